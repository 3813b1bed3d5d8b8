"""Caption nouns: things and colours that English captions name, to judge images by captions; knows nothing of models.

Recall counts only a caption's own image as right, but a person who searches for "two dogs on a beach" accepts others.
Here an image is right for a text if its captions name every thing and colour of the text. A thing is a group of words
that can replace each other. Captions are silent about much in an image, so the share of right images is a lower bound.
"""

import re
from collections.abc import Iterable
from functools import cache

_PEOPLE = (
    "person people player rider surfer skater skateboarder snowboarder skier biker bicyclist cyclist climber swimmer "
    "runner dancer singer performer fisherman someone individual couple group crowd team worker hiker batter umpire "
    "pitcher golfer athlete teenager teen youth adult gymnast racer motorcyclist pedestrian friend family officer "
    "soldier cowboy bride groom musician chef driver diver"
)
_MEN = "man men guy male gentleman gentlemen dad father boy businessman"
_WOMEN = "woman women lady ladies girl female mother mom bride"
_CHILDREN = "child children kid boy girl toddler baby babies infant youngster son daughter"

# thing: words of a query that name it; more words of a caption that show it
_THINGS: dict[str, tuple[str, str]] = {
    "person": (_PEOPLE, f"{_MEN} {_WOMEN} {_CHILDREN}"),
    "man": ("man men guy gentleman gentlemen male businessman", f"{_MEN} {_PEOPLE}"),
    "woman": ("woman women lady ladies female", f"{_WOMEN} {_PEOPLE}"),
    "child": ("child children kid toddler baby babies infant boy girl", f"{_CHILDREN} young little {_PEOPLE}"),
    "dog": ("dog puppy puppies pup terrier poodle greyhound labrador retriever collie dalmatian husky", "animal"),
    "cat": ("cat kitten kitty", ""),
    "horse": ("horse pony ponies", "bronco"),
    "bird": ("bird seagull pigeon duck goose geese owl parrot flamingo", "vulture swan"),
    "cow": ("cow cattle bull", "calf ox"),
    "sheep": ("sheep lamb", "goat"),
    "elephant": ("elephant", ""),
    "giraffe": ("giraffe", ""),
    "zebra": ("zebra", ""),
    "bear": ("bear", ""),
    "bicycle": ("bicycle bike bmx", "biker cyclist bicyclist biking cycling motorcycle motorbike"),
    "motorcycle": ("motorcycle motorbike motocross moped atv", "dirtbike bike biker motorcyclist scooter vehicle"),
    "car": ("car suv sedan taxi jeep racecar", "vehicle traffic"),
    "bus": ("bus buses", ""),
    "train": ("train locomotive", "railroad rail"),
    "truck": ("truck pickup", "vehicle"),
    "boat": ("boat canoe kayak ship sailboat raft rowboat", "ferry vessel"),
    "airplane": ("airplane plane jet aircraft", "jetliner airliner"),
    "beach": ("beach shore shoreline sand", "sandy coast ocean sea surf dune"),
    "snow": ("snow snowy", "ski skier skiing snowboard snowboarder snowboarding sled ice winter"),
    "mountain": ("mountain cliff peak hill", "rock slope summit climb climbing"),
    "water": (
        "water ocean sea lake river pool pond wave stream creek",
        "surf surfer surfing swim swimming beach splash splashing rapids fountain wading",
    ),
    "grass": ("grass grassy lawn field meadow", "yard park pasture green"),
    "tree": ("tree forest wood woods", "branch palm"),
    "street": ("street road sidewalk crosswalk highway", "city path pavement intersection traffic track"),
    "building": ("building house church tower skyscraper", "city home barn"),
    "kitchen": ("kitchen stove oven refrigerator fridge", "counter"),
    "bathroom": ("bathroom toilet shower bathtub urinal restroom", "sink tub"),
    "bed": ("bed bedroom", "couch"),
    "table": ("table desk", "counter"),
    "seat": ("chair couch sofa bench stool", "seat sitting"),
    "food": (
        "food pizza sandwich cake plate meal salad fruit banana vegetable broccoli donut bread soup meat dessert",
        "doughnut dinner lunch eating dish pastry pastries",
    ),
    "computer": ("laptop computer keyboard monitor", "screen"),
    "phone": ("phone cellphone", ""),
    "television": ("tv television", "screen"),
    "clock": ("clock", ""),
    "umbrella": ("umbrella", "parasol"),
    "ball": ("ball football soccer baseball basketball tennis volleyball rugby softball", "hockey"),
    "frisbee": ("frisbee", "disc disk"),
    "board": (
        "skateboard snowboard surfboard skateboarder snowboarder surfer skateboarding snowboarding surfing",
        "surf wave skate skater board",
    ),
    "ski": ("ski skis skiing skier", ""),
    "kite": ("kite", ""),
    "flower": ("flower bouquet rose", "vase plant"),
    "sign": ("sign", "light stoplight signal"),
    "vase": ("vase", ""),
    "hydrant": ("hydrant", ""),
    "toy": ("toy teddy", "doll stuffed"),
    "instrument": ("guitar instrument piano drum", "music musician band"),
    "hat": ("hat cap helmet", "hood"),
    "rock": ("rock boulder", "rocky cliff stone mountain climbing"),
    "playground": ("swing slide playground", "swinging sliding"),
    "stick": ("stick", "branch twig log toy"),
    "red": ("red", ""),
    "blue": ("blue", ""),
    "green": ("green", ""),
    "yellow": ("yellow", ""),
    "orange": ("orange", ""),
    "pink": ("pink", ""),
    "purple": ("purple", ""),
    "black": ("black", "dark"),
    "white": ("white", ""),
    "gray": ("gray grey", ""),
    "brown": ("brown", "tan golden"),
}
COLOURS = frozenset(["red", "blue", "green", "yellow", "orange", "pink", "purple", "black", "white", "gray", "brown"])


def things_named(text: str) -> frozenset[str]:
    return frozenset(thing for thing, (names, _) in _patterns().items() if names.search(text.casefold()))


def things_shown(captions: Iterable[str]) -> frozenset[str]:
    text = " . ".join(captions).casefold()
    return frozenset(thing for thing, (_, shows) in _patterns().items() if shows.search(text))


def is_right(named: frozenset[str], shown: frozenset[str]) -> bool:
    """Whether an image is right for a text, by the things that they show and name.

    False for a text that names none. A missing colour counts only if the captions name other colours, because most
    captions name none.
    """
    colours, shown_colours = named & COLOURS, shown & COLOURS
    return bool(named) and named - colours <= shown and (colours <= shown_colours or not shown_colours)


def single_words() -> tuple[str, ...]:
    """The most frequent word of each thing that is not a colour."""
    return tuple(names.split()[0] for thing, (names, _) in _THINGS.items() if thing not in COLOURS)


@cache
def _patterns() -> dict[str, tuple[re.Pattern[str], re.Pattern[str]]]:
    return {thing: (_any_of(names), _any_of(f"{names} {shows}")) for thing, (names, shows) in _THINGS.items()}


def _any_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words.split())})(?:s|es)?\b")
