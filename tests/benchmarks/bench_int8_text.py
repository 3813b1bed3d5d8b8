"""The 8-bit text tower against the float one: recall on captioned images, time per text, size.

    python -m tests.benchmarks.bench_int8_text BUNDLE DATA [--part val] [--rounds 7] [--texts 60]

BUNDLE: with a float text tower (export.int8_text=false). DATA: a directory of captioned images, validated as for
training. Both towers encode the same captions, and the image vectors are the same. Times are medians of one text and
of 16 texts per call, measured alternately; the ratio is the median of the rounds' ratios.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from image_finder.components.bundle.bundle import TEXT_ENCODER, Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.export.exporter import quantise_text_tower
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import named_recalls
from tests.benchmarks.measuring import seconds_of, show

KS = (1, 5, 10)
CALL = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", default="val")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=60)
    options = parser.parse_args()
    if Bundle.open(options.bundle).manifest.text_quantised:
        raise SystemExit(
            f"the text tower of {options.bundle} is quantised to 8 bits; export with export.int8_text=false"
        )
    data = read_part(options.data, options.part).data
    texts, owners = data.captions["caption"].tolist(), data.image_of_caption()
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "bundle"
        shutil.copytree(options.bundle, quantised)
        quantise_text_tower(options.bundle / TEXT_ENCODER, quantised / TEXT_ENCODER)
        encoders = {
            "float": OnnxEncoder(Bundle.open(options.bundle), device="cpu"),
            "8 bits": OnnxEncoder(Bundle.open(quantised, verify=False), device="cpu"),
        }
        sizes = [path / TEXT_ENCODER for path in (options.bundle, quantised)]
        megabytes = [size.stat().st_size / 1e6 for size in sizes]
        paths = [data.root / name for name in data.image_rows()["file_name"]]
        preprocess = encoders["float"].preprocess
        images = encoders["float"].encode_image(preprocess.load(path) for path in paths)
        vectors = {name: encoder.encode_text(texts) for name, encoder in encoders.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
        for _ in range(options.rounds):
            for name, encoder in encoders.items():
                single = [seconds_of(partial(encoder.encode_text, [text])) for text in texts[: options.texts]]
                calls = [texts[at : at + CALL] for at in range(0, 10 * CALL, CALL)]
                batched = [seconds_of(partial(encoder.encode_text, call)) / CALL for call in calls]
                times[name].append((1e3 * median(single), 1e3 * median(batched)))
    rows = []
    for name, size in zip(encoders, megabytes, strict=True):
        recalls = named_recalls(first_match_ranks(images, vectors[name], owners), KS)
        cells = [f"{100 * value:.2f}" for value in recalls.values()]
        rows.append([name, *cells, *(median(column) for column in zip(*times[name], strict=True)), size])
    show([["text tower", *recalls, "one text, ms", f"one of {CALL} per call, ms", "MB"], *rows])
    ratios = [
        median(whole[at] / small[at] for whole, small in zip(times["float"], times["8 bits"], strict=True))
        for at in (0, 1)
    ]
    cosines = (vectors["float"] * vectors["8 bits"]).sum(axis=1)
    print(
        f"faster {ratios[0]:.2f} times alone, {ratios[1]:.2f} times with {CALL} per call; cosine of the two towers' vectors: "
        f"median {np.median(cosines):.4f}, minimum {cosines.min():.4f}; {len(texts):,} captions, {len(paths):,} images"
    )


if __name__ == "__main__":
    main()
