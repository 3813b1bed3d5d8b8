"""Effect of `not` on the first 20 images: how many show the excluded thing, and how many the searched one, by captions.

    python -m tests.benchmarks.bench_negation LIBRARY DATA... [--choosing]

DATA: directories whose annotations/captions_*.json (COCO layout) describe the library's images. An image shows a
thing if a caption names it by one of the words below. Captions are silent about much, so both numbers are lower
bounds. available: images that show the searched thing and not the excluded one.

Without --choosing: 20 pairs, selected by caption counts alone, on which nothing was tuned. With --choosing: means of
all other pairs of the things below, at several weights. They decided the weight and the groups of
components/search/negation.py, with Flickr8k val and 200 photographs of COCO val2017.
"""

import argparse
import itertools
import re
from pathlib import Path
from statistics import fmean

import numpy as np

from image_finder.components.arrays import Mask
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.finder import Finder
from image_finder.components.search.query import NOT_WEIGHT, Query
from tests.benchmarks.measuring import captions_by_name, show

K = 20
MIN_WANTED, MIN_BOTH, MIN_SHARE = 25, 6, 0.06  # images of a pair for --choosing
WEIGHTS = (0.5, NOT_WEIGHT, 0.8, 0.95)

# Phrases whose words name something else.
PHRASES = re.compile(
    r"\bhot ?dogs?\b|\bteddy bears?\b|\bstuffed (?:toy )?(?:animals?|bears?|dogs?)\b|\ba (?:large |small )?number of\b|"
    r"\btrain(?:ing|s? to)\b|\btoy (?:cars?|trucks?|trains?|boats?|planes?)\b"
)
PEOPLE = (
    "man men guy guys gentleman gentlemen male males woman women lady ladies female females person persons people boy "
    "boys girl girls child children kid kids baby babies infant toddler toddlers teen teens teenager teenagers adult "
    "adults family families couple crowd crowds group team player players rider riders skater skaters skateboarder "
    "skateboarders surfer surfers boarder snowboarder snowboarders wakeboarder skier skiers cyclist cyclists bicyclist "
    "bicyclists biker bikers motorcyclist motorcyclists climber climbers hiker hikers runner runners jogger joggers "
    "racer racers swimmer swimmers kayaker kayakers fisherman fishermen someone somebody worker workers tourist "
    "tourists pedestrian pedestrians passenger passengers spectator spectators onlookers audience student students "
    "friends bride groom mother father mom dad son daughter brother sister girlfriend boyfriend grandmother catcher "
    "pitcher batter umpire referee goalie officer officers policeman soldier soldiers cowboy driver performer "
    "performers musician musicians dancer dancers singer actor clown owner individual individuals human humans"
).replace(" group", "")  # "a group of dogs"
ANIMALS = (
    "animal animals pet pets dog dogs puppy puppies cat cats kitten kittens horse horses pony ponies bird birds duck "
    "ducks goose geese swan seagull seagulls pigeon pigeons parrot cow cows cattle bull bulls sheep lamb goat goats "
    "elephant elephants giraffe giraffes zebra zebras bear bears deer camel camels lion tiger monkey monkeys rabbit "
    "squirrel fish dolphin whale butterfly"
)
DOGS = (
    "dog dogs puppy puppies greyhound greyhounds poodle poodles terrier terriers retriever retrievers collie collies "
    "dalmatian lab labrador pug chihuahua rottweiler bulldog dachshund boxer"
)
BICYCLES = (
    "bicycle bicycles bike bikes bmx biking tricycle cyclist cyclists bicyclist bicyclists biker bikers motorcycle "
    "motorcycles motorbike motorbikes motocross motorcyclist motorcyclists dirtbike"
)
BOATS = "boat boats ship ships canoe canoes kayak kayaks kayaker kayakers raft rafts sailboat sailboats rowboat ferry"
CARS = "car cars taxi taxis cab van vans suv jeep racecar automobile automobiles"
VEHICLES = (
    f"{BICYCLES} {BOATS} {CARS} vehicle vehicles truck trucks bus buses train trains subway trolley tram scooter "
    "scooters airplane airplanes plane planes jet jets helicopter atv wheeler tractor"
)
FOOD = (
    "food foods meal breakfast lunch dinner eat eats eating pizza pizzas sandwich sandwiches burger fries fruit fruits "
    "banana bananas apple apples oranges vegetable vegetables veggies broccoli carrot carrots potatoes salad soup rice "
    "pasta noodles bread bun meat chicken cheese egg eggs cake cakes cupcake cupcakes dessert desserts donut donuts "
    "doughnut doughnuts pastry pastries cookie cookies candy popsicle icecream snack"
)
TEXT = (
    "text writing written letters lettering word words sign signs banner banners poster posters billboard logo label "
    "newspaper newspapers magazine book books menu chalkboard advertisement graffiti says saying reading number "
    "numbers numbered"
)

# Thing -> the query or excluded term that names it, and the words by which captions do.
THINGS = {
    "people": ("people", PEOPLE),
    "children": ("a child", "child children kid kids boy boys girl girls baby babies infant toddler toddlers"),
    "man": ("a man", "man men guy guys gentleman gentlemen male males"),
    "woman": ("a woman", "woman women lady ladies female females girl"),
    "animals": ("animals", f"{ANIMALS} {DOGS}"),
    "dog": ("a dog", DOGS),
    "horse": ("a horse", "horse horses pony ponies horseback"),
    "vehicles": ("vehicles", VEHICLES),
    "car": ("a car", CARS),
    "bicycle": ("a bicycle", BICYCLES),
    "boat": ("a boat", BOATS),
    "bus": ("a bus", "bus buses"),
    "food": ("food", FOOD),
    "plate": ("a plate", "plate plates"),
    "text": ("text", TEXT),
    "beach": ("a beach", "beach beaches shore shoreline seashore"),
    "sand": ("sand", "sand sandy beach dune"),
    "water": (
        "water",
        (
            "water ocean sea lake river pool pond wave waves creek stream waterfall puddle surf swim swims swimming splash "
            "splashes splashing fountain shore rapids"
        ),
    ),
    "snow": ("snow", "snow snowy ski skis skier skiers skiing snowboard snowboarder snowboarding snowball"),
    "grass": ("grass", "grass grassy lawn meadow"),
    "field": ("a field", "field fields pasture meadow"),
    "forest": ("a forest", "forest woods wooded woodland"),
    "trees": ("trees", "tree trees forest woods wooded"),
    "mountain": ("a mountain", "mountain mountains mountainside mountaintop cliff cliffs hill hills hillside"),
    "rocks": ("rocks", "rock rocks rocky boulder boulders cliff"),
    "street": ("a street", "street streets road roads highway alley intersection sidewalk"),
    "city": ("a city", "city town urban downtown street streets"),
    "building": ("a building", "building buildings house houses church tower skyscraper"),
    "wall": ("a wall", "wall walls"),
    "store": ("a store", "store stores shop shops market"),
    "restaurant": ("a restaurant", "restaurant diner cafe"),
    "room": ("a room", "room kitchen bedroom bathroom indoors inside couch bed"),
    "kitchen": ("a kitchen", "kitchen"),
    "table": ("a table", "table tables desk counter"),
    "chair": ("a chair", "chair chairs couch sofa seat"),
    "bench": ("a bench", "bench benches"),
    "ball": ("a ball", "ball balls football soccer basketball baseball volleyball softball tennis rugby"),
    "hat": ("a hat", "hat hats cap caps beanie helmet helmets"),
    "helmet": ("a helmet", "helmet helmets"),
    "sunglasses": ("sunglasses", "sunglasses glasses goggles"),
    "toy": ("a toy", "toy toys"),
    "stick": ("a stick", "stick sticks branch"),
    "frisbee": ("a frisbee", "frisbee disc"),
    "skateboard": ("a skateboard", "skateboard skateboards skateboarder skateboarders skateboarding"),
    "fence": ("a fence", "fence fences fenced"),
    "playground": ("a playground", "playground swing swings slide"),
    "sports": (
        "sports",
        (
            "game sports soccer football basketball baseball tennis hockey volleyball rugby player players team race racing "
            "surfing surfer skiing skier snowboarder skateboarder skateboarding"
        ),
    ),
    "night": ("night", "night dusk sunset"),
}
# Query, its things, excluded term, its thing.
PAIRS = (
    ("beach", ("beach",), "people", "people"),
    ("water", ("water",), "people", "people"),
    ("snow", ("snow",), "people", "people"),
    ("street", ("street",), "people", "people"),
    ("grass", ("grass",), "people", "people"),
    ("beach", ("beach",), "animals", "animals"),
    ("snow", ("snow",), "animals", "animals"),
    ("grass", ("grass",), "animals", "animals"),
    ("forest", ("forest",), "animals", "animals"),
    ("street", ("street",), "vehicles", "vehicles"),
    ("a city", ("city",), "vehicles", "vehicles"),
    ("mountains", ("mountain",), "vehicles", "vehicles"),
    ("a table", ("table",), "food", "food"),
    ("people sitting at a table", ("people", "table"), "food", "food"),
    ("street", ("street",), "text", "text"),
    ("a wall", ("wall",), "text", "text"),
    ("a dog", ("dog",), "a ball", "ball"),
    ("a man", ("man",), "a hat", "hat"),
    ("a dog", ("dog",), "water", "water"),
    ("a woman", ("woman",), "a man", "man"),
)


def captions_of(folders: list[Path]) -> dict[str, list[str]]:
    """Captions of each image by its file name, in lower case and without PHRASES."""
    captions = captions_by_name(folders)
    return {name: [PHRASES.sub(" ", text.lower()) for text in texts] for name, texts in captions.items()}


def shown_things(names: list[str], captions: dict[str, list[str]]) -> dict[str, Mask]:
    """Which images show each thing. Exits if an image has no captions."""
    if unknown := [name for name in names if name not in captions]:
        raise SystemExit(f"{len(unknown):,} of {len(names):,} images without captions in DATA, first: {unknown[0]}")
    patterns = {thing: re.compile(rf"\b(?:{'|'.join(words.split())})\b") for thing, (_, words) in THINGS.items()}
    return {
        thing: np.array([any(pattern.search(caption) for caption in captions[name]) for name in names])
        for thing, pattern in patterns.items()
    }


def first_hits(engine: SearchEngine, text: str, not_text: str = "", weight: float = NOT_WEIGHT) -> list[str]:
    """File names of the first K hits."""
    not_terms = [{"text": not_text, "weight": weight}] if not_text else []
    query = Query.parse({"terms": [{"text": text}], "not": not_terms, "k": K})
    return [hit.name for hit in engine.search(query).hits]


def report(engine: SearchEngine, row_of: dict[str, int], shown: dict[str, Mask]) -> None:
    """Print the 20 pairs and their means."""
    rows: list[tuple[object, ...]] = [
        ("query", "not", "available", "excluded", "searched", "excluded with not", "searched with not")
    ]
    for text, things, term, thing in PAIRS:
        searched, excluded = np.all([shown[each] for each in things], axis=0), shown[thing]
        counts = []
        for hits in (first_hits(engine, text), first_hits(engine, text, term)):
            first = [row_of[name] for name in hits]
            counts += [int(excluded[first].sum()), int(searched[first].sum())]
        rows.append((text, term, int((searched & ~excluded).sum()), *counts))
    for title, minimum in (("mean", 0), ("mean of those with 30 available", 30)):
        counted = [row[3:] for row in rows[1:] if isinstance(row[2], int) and row[2] >= minimum]
        if counted:
            means = [fmean(float(str(value)) for value in column) for column in zip(*counted, strict=True)]
            rows.append((title, f"{len(counted)} pairs", "", *means))
    show(rows, f"{len(row_of):,} images, counts among the first {K} hits")


def report_choosing(engine: SearchEngine, row_of: dict[str, int], shown: dict[str, Mask]) -> None:
    """Print the means of all other pairs, by weight."""
    reported = {(things[0], thing) for _, things, _, thing in PAIRS if len(things) == 1}
    pairs = [
        (searched, excluded)
        for searched, excluded in itertools.permutations(THINGS, 2)
        if (searched, excluded) not in reported
        and (shown[searched] & ~shown[excluded]).sum() >= MIN_WANTED
        and (shown[searched] & shown[excluded]).sum() >= max(MIN_BOTH, MIN_SHARE * shown[searched].sum())
    ]
    rows: list[tuple[object, ...]] = [("weight", "excluded", "searched")]
    for weight in (None, *WEIGHTS):
        counts = []
        for searched, excluded in pairs:
            text, term = THINGS[searched][0], THINGS[excluded][0]
            hits = first_hits(engine, text) if weight is None else first_hits(engine, text, term, weight)
            first = [row_of[name] for name in hits]
            counts.append((float(shown[excluded][first].sum()), float(shown[searched][first].sum())))
        rows.append((f"{weight or 'no not'}", *(fmean(column) for column in zip(*counts, strict=True))))
    show(rows, f"{len(row_of):,} images, counts among the first {K} hits, mean of {len(pairs)} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--choosing", action="store_true")
    options = parser.parse_args()
    engine = Finder.open(options.library).engine
    names: list[str] = engine.index.items["name"].to_pylist()
    row_of = {name: row for row, name in enumerate(names)}
    shown = shown_things(names, captions_of(options.data))
    (report_choosing if options.choosing else report)(engine, row_of, shown)


if __name__ == "__main__":
    main()
