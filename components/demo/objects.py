"""Objects of the demo scenes: OpenMoji drawings and their names; knows nothing of scenes."""

import functools
from dataclasses import dataclass

# Entry: hexcode, name, optional synonym; "/plural" if irregular. Marks: ^ is placed high in the image, ! is shown at most
# once. Chosen by eye: concrete, recognisable at 80 px, no two drawings alike.
_TABLE = {
    "animal": """
        1F415 dog, puppy | 1F408 cat, kitten | 1F42D mouse/mice | 1F439 hamster | 1F407 rabbit, bunny | 1F98A fox
        1F43C panda | 1F428 koala | 1F405 tiger | 1F981 lion | 1F404 cow | 1F416 pig, hog | 1F438 frog
        1F412 monkey | 1F411 sheep/sheep, ewe | 1F410 goat | 1F42A camel, dromedary | 1F992 giraffe | 1F418 elephant
        1F98F rhino, rhinoceros | 1F993 zebra | 1F98C deer/deer, stag | 1F998 kangaroo
        1F422 turtle, tortoise | 1F40D snake, serpent | 1F40A crocodile, alligator | 1F994 hedgehog
        1F43F squirrel, chipmunk | 1F9A5 sloth | 1F40E horse, pony | 1F996 dinosaur, tyrannosaurus | 1F987^ bat""",
    "sea animal": """
        1F419 octopus | 1F980 crab | 1F99E lobster | 1F433 whale | 1F42C dolphin | 1F988 shark
        1F420 tropical fish/tropical fish | 1F9AD seal""",
    "bird": """
        1F414 hen, chicken | 1F413 rooster, cockerel | 1F427 penguin | 1F986 duck | 1F989 owl | 1F9A2 swan
        1F9A9 flamingo | 1F99A peacock | 1F99C parrot | 1F983 turkey | 1F54A^ dove, pigeon | 1F985^ eagle""",
    "small creature": """
        1F98B^ butterfly | 1F41D^ bee, honeybee | 1F41E ladybug, ladybird | 1F41C ant | 1F40C snail
        1F577 spider""",
    "fruit": """
        1F34E apple | 1F34C banana | 1F347 bunch of grapes/bunches of grapes | 1F349 slice of watermelon/slices of watermelon
        1F34A orange, tangerine | 1F34B lemon | 1F34D pineapple | 1F353 strawberry | 1F352 pair of cherries/pairs of cherries
        1F350 pear | 1F95D kiwi | 1F965 coconut""",
    "vegetable": """
        1F955 carrot | 1F33D ear of corn/ears of corn, corn cob | 1F345 tomato/tomatoes | 1F346 eggplant, aubergine
        1F952 cucumber | 1F383 pumpkin, jack-o'-lantern | 1F336 chilli pepper, hot pepper""",
    "snack": """
        1F354 hamburger, burger | 1F355 slice of pizza/slices of pizza | 1F32D hot dog | 1F369 doughnut, donut
        1F36A cookie, biscuit | 1F382 birthday cake | 1F9C1 cupcake, muffin | 1F366 ice cream cone | 1F95A egg
        1F968 pretzel | 1F950 croissant | 1F956 baguette, loaf of bread/loaves of bread | 1F9C0 piece of cheese/pieces of cheese
        1F35F box of fries/boxes of fries | 1F36D lollipop | 1F32E taco | 1F96A sandwich/sandwiches""",
    "drink": """
        2615 cup of coffee/cups of coffee | 1F37A mug of beer/mugs of beer | 1F377 glass of red wine/glasses of red wine
        1F379 cocktail""",
    "vehicle": """
        1F697 car, automobile | 1F695 taxi, cab | 1F68C bus, coach | 1F691 ambulance | 1F692 fire engine
        1F69C tractor | 1F682 steam train, locomotive | 1F6B2 bicycle, bike | 1F3CD motorcycle, motorbike
        1F6F5 scooter, moped | 26F5 sailing boat, sailboat | 1F69A van, delivery van
        2708^ airplane, aeroplane | 1F681^ helicopter, chopper | 1F680^ rocket, spaceship | 1F6F8^ flying saucer, UFO""",
    "tool": """
        1F528 hammer | 1FA9A saw, handsaw | 1F527 wrench, spanner | 1FA93 axe, hatchet
        2702 pair of scissors/pairs of scissors | 1F9F9 broom | 1FA9C ladder | 1F526 flashlight, torch""",
    "plant": """
        1F335 cactus/cacti | 1F334 palm tree, palm | 1F339 rose | 1F33B sunflower | 1F337 tulip | 1F344 mushroom, toadstool
        1FAB4 potted plant, houseplant""",
    "piece of furniture/pieces of furniture": """
        1FA91 chair, wooden seat | 1F6CB sofa, couch | 1F6CF bed | 1F6C1 bathtub, bath""",
    "musical instrument": """
        1F3B8 guitar | 1F3BB violin, fiddle | 1F3BA trumpet | 1F941 drum | 1F3B7 saxophone""",
    "piece of sports gear/pieces of sports gear": """
        26BD soccer ball, football | 1F3C0 basketball | 1F3BE tennis ball | 1F3D0 volleyball | 1F6F9 skateboard
        1F94A boxing glove | 1F3D3 table tennis bat, ping-pong paddle""",
    "piece of clothing/pieces of clothing": """
        1F455 T-shirt, tee | 1F456 pair of jeans/pairs of jeans | 1F457 dress | 1F9E3 scarf/scarves | 1F3A9 top hat
        1F45F sneaker, running shoe""",
    "toy": """
        1F9F8 teddy bear | 1FA81^ kite | 1F388^ balloon | 1F3B2 dice/dice | 1F916 robot""",
    "household item": """
        2602 umbrella, parasol | 23F0 alarm clock | 1F511 key | 1F4BB laptop, computer | 1F4D5 red book, hardback book
        1F4A1 light bulb | 1F56F candle | 1F381 present, gift | 1F3C6 trophy, golden cup | 1F514 bell, golden bell
        231B hourglass | 1F52D telescope | 1F6D2 shopping cart, shopping trolley""",
    "building": """
        1F3E0 house | 1F3F0 castle | 26FA tent | 26EA church | 1F5FC tower""",
    "thing in the sky/things in the sky": """
        2600^! bright sun, shining sun | 1F319^! crescent moon, half moon | 2601^ cloud | 1F308^! rainbow""",
    "snow figure": """26C4 snowman/snowmen""",
}

_MARKS = "^!"
_SAID_WITH_A = ("UFO", "ewe", "uni", "uku", "one")  # written with a vowel, spoken with a consonant
_NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str

    @classmethod
    def parse(cls, text: str) -> "Noun":
        """From `name` (regular plural) or `name/plural`."""
        singular, _, plural = text.strip().partition("/")
        return cls(singular, plural or _regular_plural(singular))

    def counted(self, count: int) -> str:
        """With its article or number: a dog, an apple, two mice. count: 1 to 4."""
        return with_article(self.singular) if count == 1 else f"{_NUMBERS[count]} {self.plural}"

    def of_number(self, count: int) -> str:
        return self.singular if count == 1 else self.plural


@dataclass(frozen=True)
class Thing:
    """One OpenMoji drawing: hex code points (the name of its SVG), names, and placement."""

    hexcode: str
    name: Noun
    synonym: Noun
    kind: Noun
    high: bool
    single: bool


@functools.lru_cache(maxsize=1)
def all_things() -> tuple[Thing, ...]:
    """One without a synonym repeats its name."""
    return tuple(
        _parse_thing(entry, Noun.parse(kind))
        for kind, lines in _TABLE.items()
        for entry in lines.replace("\n", "|").split("|")
        if entry.strip()
    )


def with_article(phrase: str) -> str:
    """The phrase with `a` or `an`, as spoken: an apple, an hourglass, a UFO."""
    vowel = phrase[0] in "aeiouAEIOU" and not phrase.startswith(_SAID_WITH_A)
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"


def _parse_thing(entry: str, kind: Noun) -> Thing:
    code, names = entry.strip().split(" ", 1)
    name, _, synonym = names.partition(",")
    return Thing(
        hexcode=code.rstrip(_MARKS),
        name=Noun.parse(name),
        synonym=Noun.parse(synonym or name),
        kind=kind,
        high="^" in code,
        single="!" in code,
    )


def _regular_plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
