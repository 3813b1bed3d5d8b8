"""Good matches: precision and coverage for single nouns, captions and absent things, at several library sizes.

    python -m tests.benchmarks.bench_matches DATA... --library LIBRARY [--library LARGER ...] [--captions 500]

DATA: directories whose annotations/captions_*.json (COCO layout) describe the libraries' images. A hit is right for a
noun if a caption of its image contains one of the noun's words, and for a caption if the image is its own or its
captions name every thing and colour of it (components/evaluation/caption_nouns.py). Captions are silent about much,
so precision is a lower bound. Things without a right image in a library count as absent there.

precision: right among good hits. coverage: good among the right images of the first 400 hits. any: queries with a
good hit. own: captions whose own image is a good hit. The nouns and absent things below took no part in fitting the
models of good matches; Flickr8k val and the 200 photographs of COCO val2017 did, with other queries. Flickr8k train
is the training data of the starter model: precision in a library that contains it is that of images the model knows.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from image_finder.components.evaluation.caption_nouns import is_right, things_named, things_shown
from image_finder.components.search.finder import Finder
from image_finder.components.search.query import Query
from tests.benchmarks.measuring import captions_by_name, show

DEPTH = 400
# noun: more words of captions that show it
NOUNS = {
    "dog": "puppy puppies poodle terrier greyhound labrador retriever", "cat": "kitten kitty", "horse": "pony ponies",
    "bird": "parrot seagull pigeon duck goose geese owl eagle", "cow": "cattle bull calf", "sheep": "lamb ram",
    "elephant": "", "giraffe": "", "zebra": "", "bear": "", "man": "men guy gentleman", "woman": "women lady ladies",
    "child": "children kid toddler boy girl baby", "baby": "infant toddler babies", "crowd": "people audience",
    "bicycle": "bike biker bicyclist cyclist", "motorcycle": "motorbike motorcyclist dirtbike motocross moped bike biker",
    "car": "suv automobile sedan taxi jeep racecar", "bus": "buses", "train": "locomotive", "truck": "pickup",
    "boat": "canoe kayak ship sailboat raft ferry", "airplane": "plane jet aircraft", "beach": "shore sand coast",
    "snow": "snowy snowboard snowboarder ski skier", "mountain": "mountainside peak cliff", "lake": "pond water",
    "water": "ocean sea lake river pool pond wave surf", "river": "stream creek rapids canoe kayak", "rock": "rocky boulder",
    "grass": "grassy lawn meadow field", "tree": "forest wood woods", "flower": "rose tulip daisy bouquet",
    "street": "road sidewalk city crosswalk", "kitchen": "stove refrigerator oven", "bed": "bedroom", "table": "desk",
    "bathroom": "toilet restroom sink shower", "couch": "sofa", "pizza": "", "cake": "cupcake", "sandwich": "burger",
    "laptop": "computer notebook", "phone": "cellphone telephone", "television": "tv", "clock": "", "umbrella": "parasol",
    "ball": "football baseball basketball soccer tennis volleyball", "frisbee": "disc", "skateboard": "skateboarder skater",
    "surfer": "surf surfing surfboard wave", "skier": "ski skis skiing", "football": "", "soccer": "", "tennis": "",
    "basketball": "", "swing": "swinging", "pool": "", "climber": "climb climbing", "bench": "", "fence": "", "bridge": "",
    "guitar": "guitarist", "hat": "cap helmet", "sunglasses": "glasses", "tent": "camp", "kite": "", "sand": "beach sandy",
    "dancer": "dance dancing", "runner": "run running race jog jogger", "building": "house skyscraper church tower",
    "city": "street urban downtown building", "night": "dark", "statue": "sculpture monument", "helmet": "", "desert": "sand",
    "fountain": "sprinkler", "playground": "slide swing", "book": "reading", "window": "", "microphone": "singer singing",
}  # fmt: skip
ABSENT = (
    "the eiffel tower", "unicorn", "1234", "猫", "a submarine under water", "an astronaut on the moon", "a lighthouse",
    "a dinosaur skeleton", "a penguin on ice", "a kangaroo", "a violin", "a helicopter", "a castle", "a robot", "a volcano",
    "a spaceship", "a polar bear", "a tiger", "a lion", "a panda", "a koala", "a whale", "a shark", "a dolphin", "a snake",
    "an octopus", "a crocodile", "a peacock", "a rabbit", "a pig in mud", "a camel in the desert", "a chess board", "a piano",
    "a ladder against a wall", "a drum kit", "a trumpet", "a telescope", "a microscope", "a world map", "a passport", "money",
    "a blackboard with equations", "a hospital operating room", "a dentist", "a firefighter", "an ambulance", "a bulldozer",
    "a tractor in a field", "an oil rig", "a wind turbine", "solar panels", "the great wall of china", "the pyramids",
    "a rocket launch", "a satellite", "fireworks", "a tornado", "lightning", "a coral reef", "a jellyfish", "a beehive",
    "mushrooms", "sushi", "spaghetti", "a hamburger and fries", "a bottle of wine", "a bar chart", "handwriting", "a barcode",
    "a screenshot of a website", "a tattoo", "a pair of scissors", "a toothbrush", "a wheelchair", "an escalator", "a golfer",
    "a subway station", "a cruise ship", "a hot air balloon", "a parachute", "fencing swords", "a boxing match", "bowling",
    "a sumo wrestler", "a ballet dancer on stage", "a circus clown", "a halloween pumpkin", "a christmas tree", "a courtroom",
    "a graduation ceremony", "a library full of books", "a swimming pool at night", "asdfgh", "quantum mechanics", "invoice",
    "happiness", "the year 1984", "Straßenbahn", "собака", "le chat", "der Hund", "una montaña", "democracy", "a snowman",
    "a red telephone box", "a double decker bus", "a fire truck", "a sewing machine", "a washing machine", "an igloo",
    "a keyboard and mouse", "a broccoli salad", "a sled pulled by reindeer", "a rowing race", "a sailing regatta", "rodeo",
    "a golf course", "ice hockey", "a pole vaulter", "a judo match", "an archer", "a horse race", "a formula one car",
)  # fmt: skip


class Answer(NamedTuple):
    """One query in one library.

    good, right: (hits,) of the first 400; own: whether its own image is a good hit.
    """

    kind: str
    text: str
    good: np.ndarray
    right: np.ndarray
    own: bool


def answers(finder: Finder, captions: dict[str, list[str]], n_captions: int) -> list[Answer]:
    """Answers to all queries; captions are drawn from those of the library's images."""
    names = sorted({Path(name).name for name in finder.engine.index.items["name"].to_pylist()} & set(captions))
    shown = {name: things_shown(captions[name]) for name in names}
    texts = {name: " . ".join(captions[name]).casefold() for name in names}
    found = []
    for noun, more in NOUNS.items():
        words = re.compile(rf"\b(?:{'|'.join([noun, *more.split()])})(?:s|es)?\b")
        right = {name for name in names if words.search(texts[name])}
        found.append(answer(finder, "noun" if right else "absent", noun, right, ""))
    found += [answer(finder, "absent", text, set(), "") for text in ABSENT]
    rng = np.random.default_rng(0)
    for row in rng.permutation(len(names))[:n_captions].tolist():
        own = names[row]
        text = captions[own][int(rng.integers(len(captions[own])))]
        named = things_named(text)
        found.append(answer(finder, "caption", text, {own, *(n for n in names if is_right(named, shown[n]))}, own))
    return found


def answer(finder: Finder, kind: str, text: str, right: set[str], own: str) -> Answer:
    hits = finder.search(Query.parse({"terms": [{"text": text}], "k": DEPTH, "duplicates": "show"})).hits
    good = np.array([hit.good is True for hit in hits])
    of_right = np.array([Path(hit.name).name in right for hit in hits])
    is_own = np.array([Path(hit.name).name == own for hit in hits])
    return Answer(kind, text, good, of_right, bool((good & is_own).any()))


def row_of(size: int, kind: str, answered: list[Answer]) -> list[object]:
    good = np.concatenate([each.good for each in answered])
    right = np.concatenate([each.right for each in answered])
    n_good = int(good.sum())
    return [
        f"{size:,}",
        kind,
        len(answered),
        n_good,
        f"{100 * right[good].mean():.0f} %" if n_good and kind != "absent" else "-",
        f"{100 * good[right].mean():.1f} %" if right.any() else "-",
        f"{100 * np.mean([each.good.any() for each in answered]):.1f} %",
        f"{100 * np.mean([each.own for each in answered]):.1f} %" if kind == "caption" else "-",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--library", type=Path, action="append", required=True)
    parser.add_argument("--captions", type=int, default=500)
    options = parser.parse_args()
    captions = captions_by_name(options.data)
    rows: list[list[object]] = [["images", "queries", "n", "good hits", "precision", "coverage", "any", "own"]]
    for library in options.library:
        finder = Finder.open(library)
        found = answers(finder, captions, options.captions)
        size = finder.index_manifest.count
        rows += [
            row_of(size, kind, [each for each in found if each.kind == kind]) for kind in ("noun", "caption", "absent")
        ]
        wrong = [each.text for each in found if each.kind == "absent" and each.good.any()]
        print(f"{size:,} images, absent things with a good hit: {', '.join(wrong) or 'none'}")
    show(rows)


if __name__ == "__main__":
    main()
