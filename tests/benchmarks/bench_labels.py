"""Accuracy of zero-shot labels (`image-finder classify`) on captioned photographs.

    python -m tests.benchmarks.bench_labels BUNDLE ROOT [--annotations FILE] [--images FOLDER] [--labels A,B,...] [--worst 8]

ROOT is in COCO layout. Its photographs have captions but no list of objects, so captions decide which labels are right.
There are three sets of labels:

one word            30 words, or those of --labels. An image counts if most of its captions name exactly one of them (or
                    its plural) and no caption names another; that word is right.
COCO categories     the 80 categories. A category is right for an image if any of its captions names the category, its
                    plural or a synonym listed in tests/benchmarks/label_sets.py. Images without one do not count.
ImageNet classes    the 1,000 classes, by their first name in timm. A class is right if any caption names its label or
                    another name of the class; the words count, not their meaning. Images without one do not count.

Captions are silent about much in an image, so the shares are lower bounds. Prints for each set the share of images with
a right label first and among the first five, with 95 % intervals (bootstrap over the images), with the project's prompt
templates and with the bare word; beside them chance, the share that the most frequent right labels reach if every image
gets them; then the most frequent wrong first answers, and the right labels that are most often not among the first five.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import IntVector, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.annotated_images import captions_by_image
from image_finder.components.metrics.bootstrap import bootstrap_recalls, percentile_interval
from image_finder.components.metrics.recall import random_recall_at_k, recall_at_k
from image_finder.components.search.labels import Labels, LabelScore
from image_finder.components.search.prompts import TEMPLATES
from tests.benchmarks.label_sets import (
    LabelSet,
    coco_categories,
    imagenet_classes,
    labels_shown,
    phrases_of,
    timm_descriptions,
)
from tests.benchmarks.measuring import show

WORDS = (
    "airplane,baseball,bear,beach,bed,bicycle,bird,boat,bus,cake,cat,clock,cow,dog,elephant,giraffe,horse,kitchen,"
    "motorcycle,pizza,sheep,skateboard,snow,surfboard,tennis,toilet,train,truck,umbrella,zebra"
)
KS = (1, 5)
SAMPLES = 1000


class Labelled(NamedTuple):
    """Labels, rows of the images that count, and the right labels of each of them."""

    name: str
    labels: list[str]
    rows: list[int]
    right: list[frozenset[str]]


def word_of(captions: Sequence[str], words: Sequence[str]) -> str | None:
    """The word of the list that most captions name, if they name no other."""
    patterns = {word: re.compile(rf"\b{word}(?:s|es)?\b", re.IGNORECASE) for word in words}
    named = Counter(word for caption in captions for word in words if patterns[word].search(caption))
    return next(iter(named)) if len(named) == 1 and 2 * named.total() > len(captions) else None


def by_word(captions: Sequence[Sequence[str]], words: list[str]) -> Labelled:
    found = {row: word for row, each in enumerate(captions) if (word := word_of(each, words)) is not None}
    return Labelled("one word", words, list(found), [frozenset([word]) for word in found.values()])


def by_names(name: str, captions: Sequence[Sequence[str]], label_set: LabelSet) -> Labelled:
    phrases = phrases_of(label_set)
    found = {row: labels for row, each in enumerate(captions) if (labels := labels_shown(each, phrases))}
    return Labelled(name, label_set.labels, list(found), list(found.values()))


def first_right_ranks(answers: Sequence[Sequence[str]], right: Sequence[frozenset[str]]) -> IntVector:
    """Rank of each image's first right label. answers: all labels of each image in the order of their probability."""
    pairs = zip(answers, right, strict=True)
    return np.array([1 + next(n for n, label in enumerate(answer) if label in own) for answer, own in pairs])


def most_frequent(right: Sequence[frozenset[str]], k: int) -> float:
    """Share of images for which one of the k labels that are right most often is right."""
    counts = Counter(label for labels in right for label in sorted(labels))
    frequent = {label for label, _ in counts.most_common(k)}
    return sum(not frequent.isdisjoint(labels) for labels in right) / len(right)


def with_interval(ranks: IntVector, k: int) -> str:
    hits = (ranks <= k).astype(np.float64)[:, None]
    interval = percentile_interval(bootstrap_recalls(hits, np.ones_like(hits), samples=SAMPLES, seed=0)[:, 0])
    return f"{100 * recall_at_k(ranks, k):.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def measure(encoder: OnnxEncoder, vectors: Vectors, labelled: Labelled) -> tuple[list[object], list[list[LabelScore]]]:
    """A row of the table, and the answers with the project's templates."""
    own = vectors[labelled.rows]
    scores = {each: Labels(encoder, labelled.labels, templates=each).score(own) for each in (TEMPLATES, ("{}",))}
    ranks, bare = (
        first_right_ranks([[each.label for each in answer] for answer in answers], labelled.right)
        for answers in scores.values()
    )
    n_right = np.array([len(labels) for labels in labelled.right])
    chances = [random_recall_at_k(len(labelled.labels), n_right, k) for k in KS]
    row = [
        labelled.name,
        len(labelled.labels),
        len(own),
        *(with_interval(ranks, k) for k in KS),
        " / ".join(f"{100 * recall_at_k(bare, k):.1f}" for k in KS),
        " / ".join(f"{100 * chance:.1f}" for chance in chances),
        " / ".join(f"{100 * most_frequent(labelled.right, k):.1f}" for k in KS),
    ]
    return row, scores[TEMPLATES]


def missed_labels(answers: Sequence[Sequence[str]], right: Sequence[frozenset[str]], count: int) -> list[str]:
    """The labels that are right and not among the first five most often."""
    rights = Counter(label for labels in right for label in labels)
    found = Counter(label for answer, labels in zip(answers, right, strict=True) for label in labels & {*answer[:5]})
    missed = sorted(rights, key=lambda label: (found[label] - rights[label], label))
    missed = [label for label in missed if found[label] < rights[label]]
    return [f"{label}: right for {rights[label]}, among 5 for {found[label]}" for label in missed[:count]]


def wrong_answers(answers: Sequence[Sequence[LabelScore]], labelled: Labelled, count: int) -> list[str]:
    """The most frequent wrong first answers, each with the labels that are right for most of these images."""
    right_of: dict[str, list[str]] = {}
    for answer, right in zip(answers, labelled.right, strict=True):
        if answer[0].label not in right:
            right_of.setdefault(answer[0].label, []).append(", ".join(sorted(right)))
    ordered = sorted(right_of.items(), key=lambda item: (-len(item[1]), item[0]))
    return [f"{len(rights):>3} {label}, right: {'; '.join(sorted(rights)[:4])}" for label, rights in ordered[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--annotations", default="annotations/captions_val2017.json")
    parser.add_argument("--images", default="val2017")
    parser.add_argument("--labels", default=WORDS)
    parser.add_argument("--worst", type=int, default=8)
    options = parser.parse_args()
    folder = options.root / options.images
    found = captions_by_image(options.root / options.annotations, folder)
    encoder = OnnxEncoder(Bundle.open(options.bundle), device="cpu")
    vectors = encoder.encode_image(encoder.preprocess.load(folder / path) for path in found)
    captions = list(found.values())
    cases = [
        by_word(captions, options.labels.split(",")),
        by_names("COCO categories", captions, coco_categories()),
        by_names("ImageNet classes", captions, imagenet_classes(timm_descriptions())),
    ]
    measured = [measure(encoder, vectors, labelled) for labelled in cases]
    head = ["set", "labels", "images", "first %", "among 5 %", "bare word", "chance", "most frequent"]
    show([head, *(row for row, _ in measured)], f"{len(found)} photographs; a label is right if captions name it")
    for labelled, (_, answers) in zip(cases, measured, strict=True):
        print(f"\n{labelled.name}, the most frequent wrong first answers")
        print("\n".join(wrong_answers(answers, labelled, options.worst)))
        print(f"{labelled.name}, right labels that are not among the first five")
        names = [[each.label for each in answer] for answer in answers]
        print("\n".join(f"    {line}" for line in missed_labels(names, labelled.right, options.worst)))


if __name__ == "__main__":
    main()
