"""Accuracy of zero-shot labels on captioned photographs, whose label is the one word of a list in their captions.

    python -m tests.benchmarks.bench_labels BUNDLE ROOT [--annotations FILE] [--images FOLDER] [--labels A,B,...]

ROOT is in COCO layout. An image counts if most of its captions name exactly one word of the list (or its plural) and
no caption names another. Prints, for the project's prompt templates and for the bare word, the share of images whose
word is first and among the first five, beside chance and beside always answering the most frequent word.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.annotated_images import captions_by_image
from image_finder.components.search.labels import Labels
from image_finder.components.search.prompts import TEMPLATES

WORDS = (
    "airplane,baseball,bear,beach,bed,bicycle,bird,boat,bus,cake,cat,clock,cow,dog,elephant,giraffe,horse,kitchen,"
    "motorcycle,pizza,sheep,skateboard,snow,surfboard,tennis,toilet,train,truck,umbrella,zebra"
)


def word_of(captions: tuple[str, ...], words: list[str]) -> str | None:
    """The word of the list that most captions name, if they name no other."""
    patterns = {word: re.compile(rf"\b{word}(?:s|es)?\b", re.IGNORECASE) for word in words}
    named = Counter(word for caption in captions for word in words if patterns[word].search(caption))
    return next(iter(named)) if len(named) == 1 and 2 * named.total() > len(captions) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--annotations", default="annotations/captions_val2017.json")
    parser.add_argument("--images", default="val2017")
    parser.add_argument("--labels", default=WORDS)
    options = parser.parse_args()
    words = options.labels.split(",")
    folder = options.root / options.images
    found = captions_by_image(options.root / options.annotations, folder)
    images = [(folder / path, word_of(captions, words)) for path, captions in found.items()]
    labelled = [(path, word) for path, word in images if word is not None]
    encoder = OnnxEncoder(Bundle.open(options.bundle), device="cpu")
    vectors = encoder.encode_image(encoder.preprocess.load(path) for path, _ in labelled)
    counts = Counter(word for _, word in labelled)
    measured: dict[str, object] = {
        "images": len(labelled),
        "of_images": len(images),
        "labels": len(words),
        "labels_that_occur": len(counts),
        "chance_first": round(1 / len(words), 3),
        "commonest_word_first": round(counts.most_common(1)[0][1] / len(labelled), 3),
    }
    for name, templates in (("templates", TEMPLATES), ("bare_word", ("{}",))):
        answers = Labels(encoder, words, templates=templates).score(vectors)
        ranks = [
            1 + [each.label for each in answer].index(word) for answer, (_, word) in zip(answers, labelled, strict=True)
        ]
        measured[name] = {
            "first": round(float(np.mean(np.array(ranks) == 1)), 3),
            "among_5": round(float(np.mean(np.array(ranks) <= 5)), 3),
            "mean_probability_of_the_first": round(float(np.mean([answer[0].probability for answer in answers])), 3),
        }
    sys.stdout.write(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
