"""Demo scenes: combinations of objects and backgrounds, with five captions each; knows nothing of pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from image_finder.components.demo.backgrounds import BACKGROUNDS, Background
from image_finder.components.demo.objects import Noun, Thing, all_things, with_article

CAPTIONS_PER_SCENE = 5
# Number of each object from left to right, and the share of such scenes.
_LAYOUTS = {(1,): 0.25, (2,): 0.1, (3,): 0.1, (1, 1): 0.25, (2, 1): 0.08, (1, 2): 0.07, (1, 1, 1): 0.15}
_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Group:
    thing: Thing
    number: int

    def named(self) -> str:
        return self.thing.name.counted(self.number)

    def synonym(self) -> str:
        return self.thing.synonym.counted(self.number)

    def kind(self) -> str:
        return self.thing.kind.counted(self.number)


@dataclass(frozen=True)
class Scene:
    """Groups of objects from left to right, and a background."""

    groups: tuple[Group, ...]
    background: Background

    def description(self) -> frozenset[tuple[str, int]]:
        """Objects, numbers and background: equal for scenes that captions cannot distinguish."""
        return frozenset({(group.thing.hexcode, group.number) for group in self.groups} | {(self.background.noun, 0)})


def distinct_scenes(seed: int) -> Iterator[Scene]:
    """Endless scenes with distinct descriptions; objects are dealt from a shuffled deck, equally often."""
    rng = np.random.default_rng(seed)
    deck: list[Thing] = []
    seen: set[frozenset[tuple[str, int]]] = set()
    layouts = list(_LAYOUTS)
    while True:
        if len(deck) < 2 * max(len(layout) for layout in layouts):
            things = all_things()
            deck = [*(things[i] for i in rng.permutation(len(things))), *deck]
        scene = _dealt_scene(deck, layouts[int(rng.choice(len(layouts), p=list(_LAYOUTS.values())))], rng)
        if scene.description() not in seen:
            seen.add(scene.description())
            yield scene


def five_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five captions, each with the place: four name every object, the last one names an object by its kind."""
    captions = {1: _of_one, 2: _of_two, 3: _of_three}[len(scene.groups)](scene, rng)
    return [caption[0].upper() + caption[1:] + "." for caption in captions]


def _dealt_scene(deck: list[Thing], numbers: tuple[int, ...], rng: np.random.Generator) -> Scene:
    things: list[Thing] = []
    while len(things) < len(numbers):
        thing = deck.pop()
        if thing not in things:
            things.append(thing)
    groups = tuple(Group(thing, 1 if thing.single else n) for thing, n in zip(things, numbers, strict=True))
    kinds = {thing.kind.singular for thing in things}
    return Scene(groups, _pick(rng, [each for each in BACKGROUNDS if not kinds & each.refuses]))


def _of_one(scene: Scene, rng: np.random.Generator) -> list[str]:
    (group,) = scene.groups
    places, noun = _places(scene, rng), scene.background.noun
    verb, shown = ("is", "is shown") if group.number == 1 else ("are", "are shown")
    kind: Noun = group.thing.kind
    name = group.thing.name.of_number(group.number)
    if group.number == 1:
        by_kind = f"the {kind.singular} {places[3]} is {with_article(name)}"
    else:
        number = group.named().split()[0]
        by_kind = f"the {number} {kind.plural} {places[3]} are {name}"
    return [
        f"{group.named()} {places[0]}",
        _pick(rng, [f"there {verb} {group.named()} {places[1]}", f"{group.named()} {shown} {places[1]}"]),
        _pick(
            rng, [f"{opening} {group.synonym()} {places[2]}" for opening in ("a drawing of", "a picture of", "we see")]
        ),
        _pick(rng, [f"{noun} with {group.named()}", f"{noun}, and {group.named()} in the scene"]),
        by_kind,
    ]


def _of_two(scene: Scene, rng: np.random.Generator) -> list[str]:
    left, right = scene.groups
    places, noun = _places(scene, rng), scene.background.noun
    forward, backward = _pick(rng, [("to the left of", "to the right of"), ("left of", "on the right of")])
    if left.thing.high != right.thing.high and rng.random() < 0.6:
        forward, backward = ("above", "below") if left.thing.high else ("below", "above")
    both = _pick(rng, [f"{left.named()} and {right.named()}", f"{right.named()} and {left.named()}"])
    if left.thing.kind == right.thing.kind:
        total = left.number + right.number
        by_kind = f"{left.thing.kind.counted(total)} {places[3]}: {both}"
    else:
        known, vague = _pick(rng, [(left, right), (right, left)])
        by_kind = f"{known.synonym()} {_pick(rng, ['next to', 'beside', 'near'])} {vague.kind()} {places[3]}"
    return [
        f"{left.named()} {forward} {right.named()} {places[0]}",
        _pick(rng, [f"{both} {places[1]}", f"{both} are together {places[1]}", f"you can see {both} {places[1]}"]),
        f"{right.synonym()} {backward} {left.synonym()} {places[2]}",
        f"{noun} with {both}",
        by_kind,
    ]


def _of_three(scene: Scene, rng: np.random.Generator) -> list[str]:
    left, middle, right = scene.groups
    places, noun = _places(scene, rng), scene.background.noun
    row = f"{left.named()}, {middle.named()} and {right.named()}"
    order = [scene.groups[i] for i in rng.permutation(3)]
    mixed = f"{order[0].named()}, {order[1].named()} and {order[2].named()}"
    vague, first, second = (scene.groups[i] for i in rng.permutation(3))
    return [
        _pick(rng, [f"{row} {places[0]}", f"{row} in a row {places[0]}"]),
        f"{middle.synonym()} between {left.synonym()} and {right.synonym()} {places[1]}",
        _pick(rng, [f"from left to right, {row} {places[2]}", f"there are three things {places[2]}: {mixed}"]),
        f"{noun} with {mixed}",
        f"{first.named()}, {second.synonym()} and also {vague.kind()} {places[3]}",
    ]


def _places(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Four phrases for the place, the first three different, that suit high and low objects."""
    high = {group.thing.high for group in scene.groups}
    fitting = {frozenset({True}): scene.background.over, frozenset({False}): scene.background.on}
    phrases = [*fitting.get(frozenset(high), ()), *scene.background.anywhere]
    order = [phrases[i] for i in rng.permutation(len(phrases))]
    return [order[i % len(order)] for i in range(4)]


def _pick(rng: np.random.Generator, choices: Sequence[_Choice]) -> _Choice:
    return choices[int(rng.integers(len(choices)))]
