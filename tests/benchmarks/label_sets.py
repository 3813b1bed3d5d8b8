"""Label sets: COCO's 80 categories and the 1,000 ImageNet classes, and which of them captions name; knows no model.

An image shows a label if any of its captions contains a name of the label as whole words, in singular or plural. Words are
compared, not meanings: "plane", a tool in ImageNet, is right for an airplane. Captions are silent about much in an image
and general (most of ImageNet's dogs are breeds, captions say "dog"), so the share of right answers is a lower bound.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from timm.data.imagenet_info import ImageNetInfo

# category: names in captions apart from the category itself
COCO_CATEGORIES = {
    "person": (
        "people, man, woman, boy, girl, child, children, kid, toddler, guy, lady, adult, teenager, crowd, family, "
        "pedestrian, player, batter, catcher, umpire, rider, surfer, skier, skater, snowboarder, skateboarder, "
        "male, female, someone, soldier"
    ),
    "bicycle": "bike",
    "car": "automobile, sedan, suv, jeep, taxi",
    "motorcycle": "motor cycle, motorbike, motor bike, dirt bike, moped, motor scooter",
    "airplane": "plane, aeroplane, jet, jetliner, airliner, aircraft",
    "bus": "busses",
    "train": "locomotive",
    "truck": "pickup",
    "boat": "ship, sailboat, canoe, kayak, ferry, tugboat, rowboat, yacht",
    "traffic light": "traffic signal, stoplight, stop light",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bench": "",
    "bird": "seagull, pigeon, duck, goose, geese, owl, parrot, swan",
    "cat": "kitten, kitty",
    "dog": "puppy, pitbull, pit bull, terrier, poodle",
    "horse": "pony",
    "sheep": "lamb",
    "cow": "cattle, bull, calf",
    "elephant": "",
    "bear": "",
    "zebra": "",
    "giraffe": "",
    "backpack": "back pack",
    "umbrella": "parasol",
    "handbag": "hand bag, purse",
    "tie": "necktie, neck tie, bowtie, bow tie",
    "suitcase": "luggage, baggage",
    "frisbee": "",
    "skis": "ski",
    "snowboard": "snow board",
    "sports ball": "ball, soccer ball, tennis ball",
    "kite": "",
    "baseball bat": "bat",
    "baseball glove": "mitt, catcher's mitt",
    "skateboard": "skate board",
    "surfboard": "surf board",
    "tennis racket": "tennis racquet, racket, racquet",
    "bottle": "",
    "wine glass": "glass of wine, glasses of wine",
    "cup": "mug",
    "fork": "",
    "knife": "",
    "spoon": "",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "",
    "orange": "orange slice, slice of orange",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog",
    "pizza": "",
    "donut": "doughnut",
    "cake": "",
    "chair": "armchair",
    "couch": "sofa, loveseat",
    "potted plant": "plant, houseplant",
    "bed": "bunk bed",
    "dining table": "table",
    "toilet": "toilet bowl, toilet seat",
    "tv": "television",
    "laptop": "lap top",
    "mouse": "",
    "remote": "remote control, remote controller, wii remote, wii controller, wiimote, game controller",
    "keyboard": "",
    "cell phone": "cellphone, phone, smartphone, smart phone, mobile phone",
    "microwave": "",
    "oven": "stove",
    "toaster": "",
    "sink": "",
    "refrigerator": "fridge",
    "book": "",
    "clock": "",
    "vase": "",
    "scissors": "",
    "teddy bear": "teddy, stuffed bear",
    "hair drier": "hair dryer, hairdryer, blow dryer",
    "toothbrush": "tooth brush",
}
# Singular "orange" is a colour in most captions.
_ONLY_PLURAL = {"orange": "oranges"}
# Words in these phrases name something else.
COCO_OTHER = (
    *("bus stop", "bus station", "train station", "train track", "cable car", "ski slope", "ski lift", "ski resort"),
    *("chair lift", "toilet paper", "coffee table", "table tennis", "flower bed", "tie dye"),
)
# Names of ImageNet classes that mean something else in the captions of val2017, e.g. "head", a name of the promontory.
IMAGENET_OTHER = (
    *("board", "bonnet", "cell", "coach", "commode", "ear", "fly", "head", "hip", "light", "napkin", "orange", "rig"),
    *("rule", "spot", "swing"),
)
# Two classes have this name alone: the bird and the machine.
_IMAGENET_RENAMED = {517: "construction crane"}


class LabelSet(NamedTuple):
    """Labels in order, each with the names that make it right, and phrases whose words name none of them."""

    names: Mapping[str, tuple[str, ...]]
    other: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        return list(self.names)


def coco_categories() -> LabelSet:
    names = {label: (_ONLY_PLURAL.get(label, label), *_listed(more)) for label, more in COCO_CATEGORIES.items()}
    return LabelSet(names, COCO_OTHER)


def timm_descriptions() -> list[str]:
    """All names of each of the 1,000 ImageNet classes."""
    info = ImageNetInfo()
    return [info.index_to_description(number) for number in range(info.num_classes())]


def imagenet_classes(descriptions: Sequence[str]) -> LabelSet:
    """Classes labelled by their first name; names of a description are separated by commas.

    Labels must differ, but "maillot", "cardigan" and "crane" are the first name of two classes each. Of two, the one with
    further names gets the first of them that is no class's first name, and the machine "crane" is renamed.
    """
    names = [_listed(each) for each in descriptions]
    firsts = Counter(each[0].casefold() for each in names)
    labels = {}
    for number, each in enumerate(names):
        free = [name for name in each[1:] if name.casefold() not in firsts]
        label = _IMAGENET_RENAMED.get(number) or (free[0] if firsts[each[0].casefold()] > 1 and free else each[0])
        labels[label] = (label, *each)
    return LabelSet(labels, IMAGENET_OTHER)


def labels_shown(captions: Iterable[str], phrases: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Labels whose names the captions contain. phrases: see `phrases_of`.

    The longest phrase at a position counts alone: "hot dog" names no dog.
    """
    longest = max(phrase.count(" ") for phrase in phrases) + 1
    found: set[str] = set()
    for caption in captions:
        words = _words(caption)
        start = 0
        while start < len(words):
            lengths = (n for n in range(longest, 0, -1) if " ".join(words[start : start + n]) in phrases)
            length = next(lengths, 0)
            found |= phrases[" ".join(words[start : start + length])] if length else frozenset()
            start += max(length, 1)
    return frozenset(found)


def phrases_of(label_set: LabelSet) -> dict[str, frozenset[str]]:
    """Labels by each phrase that names them, in singular and plural; no label for the other phrases."""
    found: dict[str, set[str]] = {}
    for label, names in label_set.names.items():
        for phrase in {form for name in names for form in _forms(name)}:
            found.setdefault(phrase, set()).add(label)
    found |= {phrase: set() for name in label_set.other for phrase in _forms(name)}
    return {phrase: frozenset(labels) for phrase, labels in found.items()}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)?", text.casefold().replace("\u2019", "'"))


def _forms(name: str) -> set[str]:
    """A name in lower case without hyphens, and its plurals."""
    singular = " ".join(_words(name))
    endings = (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men"), ("mouse", "mice"), ("", "s"), ("", "es"))
    plurals = {singular.removesuffix(end) + plural for end, plural in endings if singular.endswith(end)}
    return {singular, *plurals}


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
