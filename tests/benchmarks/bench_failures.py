"""Error analysis: recall by kind of caption, and the captions of each kind whose image ranks last.

    python -m tests.benchmarks.bench_failures BUNDLE DATA [DATA ...] [--part PART] [--worst 5]

DATA: directories of captioned images, read as by `image-finder models evaluate --data`: the part test, else val, else
train, with invalid captions left out. Prints for each data set and each kind of caption the recall of a search by
caption, and its difference to the captions that are not of this kind, with a 95 % bootstrap interval that resamples
images. A difference is given if both groups have at least 30 captions; one in twenty has an interval without 0 by chance.
The kinds are defined by words, see tests/benchmarks/caption_kinds.py, and a caption can be of several:

counting            two to ten, couple of, pair of, group of, bunch of, crowd of, several
three to ten        these numbers alone
colour              a colour
position            left, right, above, under, behind, in front of, next to, between, on top of, ...
small object        a thing that fits into one hand: cell phone, remote, fork, tie, frisbee, ball, ...
negation            without, no, not, nothing, ...
text in the image   says, sign, words, written, reading "...
word not met        a word that is not in the bundle's vocabulary, so at most one training caption contains it
rare word           a word that 2 to 9 training captions contain
long, short         14 words or more; 8 words or fewer

Then follow, for each kind, the captions whose image has the highest rank, one per image: the rank, the caption, the
image's file, and the file and first caption of the image that came first instead.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import IntVector, Mask, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.evaluation.bundle_recall import image_vectors
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.metrics.bootstrap import bootstrap_recalls, per_image, percentile_interval, row_of_caption
from image_finder.components.metrics.examples import QueryExample, pick_examples
from image_finder.components.metrics.ranks import MatchRanks, first_match_ranks
from image_finder.components.metrics.recall import recall_at_k
from image_finder.components.metrics.slices import MIN_CAPTIONS
from image_finder.components.records.retrieval import Interval
from tests.benchmarks.caption_kinds import KINDS, kinds_of
from tests.benchmarks.measuring import show

KS = (1, 5, 10)
SAMPLES = 1000


class Difference(NamedTuple):
    """Recall of a group of captions minus recall of all others, with the 95 % interval."""

    value: float
    interval: Interval


def differences(ranks: MatchRanks, members: Mask, *, samples: int = SAMPLES, seed: int = 0) -> dict[int, Difference]:
    """Difference at each k; empty if the members or the others are fewer than MIN_CAPTIONS. members: (n_captions,)."""
    if min(np.count_nonzero(members), np.count_nonzero(~members)) < MIN_CAPTIONS:
        return {}
    image, n_captioned = row_of_caption(ranks), len(ranks.captioned_images)
    groups = [(group, k) for k in KS for group in (members, ~members)]
    hits = [per_image(image[group], n_captioned, ranks.text_to_image[group] <= k) for group, k in groups]
    queries = [per_image(image[group], n_captioned) for group, _ in groups]
    draws = bootstrap_recalls(np.stack(hits, axis=1), np.stack(queries, axis=1), samples=samples, seed=seed)
    found = {}
    for number, k in enumerate(KS):
        value = recall_at_k(ranks.text_to_image[members], k) - recall_at_k(ranks.text_to_image[~members], k)
        found[k] = Difference(value, percentile_interval(draws[:, 2 * number] - draws[:, 2 * number + 1]))
    return found


def worst_queries(
    images: Vectors, texts: Vectors, ranks: MatchRanks, members: Mask, count: int
) -> tuple[QueryExample, ...]:
    """The members with the highest rank above 1, one per image; hit_rows holds the image that came first."""
    rows = np.flatnonzero(members & (ranks.text_to_image > 1))
    if not len(rows) or count < 1:
        return ()
    owners: IntVector = ranks.image_of_caption[rows]
    some = replace(ranks, image_of_caption=owners, text_to_image=ranks.text_to_image[rows], margins=ranks.margins[rows])
    found = pick_examples(images, texts[rows], some, count=count, top=1).worst
    return tuple(replace(each, caption_row=int(rows[each.caption_row])) for each in found)


def row_of(kind: str, ranks: MatchRanks, members: Mask) -> list[object]:
    recalls = [f"{100 * recall_at_k(ranks.text_to_image[members], k):.1f}" for k in KS] if members.any() else ["-"] * 3
    found = differences(ranks, members)
    signed = [
        f"{100 * found[k].value:+.1f} [{100 * found[k].interval.low:+.1f}, {100 * found[k].interval.high:+.1f}]"
        if found
        else "-"
        for k in KS
    ]
    return [kind, int(np.count_nonzero(members)), " / ".join(recalls), *signed]


def analyse(bundle: Bundle, root: Path, part, worst: int) -> None:
    read = read_part(root.resolve(), part)
    data, encoder = read.data, OnnxEncoder(bundle, device="cpu")
    names = data.image_rows()["file_name"].tolist()
    captions = data.captions["caption"].tolist()
    images, texts = image_vectors(encoder, [data.root / name for name in names]), encoder.encode_text(captions)
    ranks = first_match_ranks(images, texts, data.image_of_caption())
    vocabulary = bundle.vocabulary()
    kinds = [kinds_of(caption, vocabulary) for caption in captions]
    members_of = {kind: np.array([kind in each for each in kinds]) for kind in KINDS}
    head = ["kind", "captions", "R@1 / 5 / 10", *(f"difference at {k}" for k in KS)]
    rows = [row_of("all", ranks, np.ones(len(captions), np.bool_))]
    rows += [row_of(kind, ranks, members) for kind, members in members_of.items()]
    title = f"{read.identity.dataset} {read.identity.split}: {len(names):,} images, {len(captions):,} captions"
    show([head, *rows], title)
    first_caption = data.captions.groupby("image_id")["caption"].first().reindex(data.image_ids()).tolist()
    for kind, members in members_of.items() if worst else ():
        print(f"\n{kind}, the worst of {title}")
        for query in worst_queries(images, texts, ranks, members, worst):
            other = query.hit_rows[0]
            print(f'  rank {query.rank:<5,} "{captions[query.caption_row]}"')
            print(f"        its image    {names[query.image_row]}")
            print(f'        came first   {names[other]}  "{first_caption[other]}"')
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--part", choices=["train", "val", "test"])
    parser.add_argument("--worst", type=int, default=5)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    for root in options.data:
        analyse(bundle, root, options.part, options.worst)


if __name__ == "__main__":
    main()
