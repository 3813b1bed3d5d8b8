"""An epoch of head training with cached features against the same epoch with decoding and trunks.

    python -m tests.benchmarks.bench_epoch FLICKR8K [--images 512]

Both epochs are timed in one run on the same images, captions, batches and heads; extraction is timed separately.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.training.loop import train
from image_finder.components.training.sources import DecodedImages, PairedSet, TokenisedTexts
from image_finder.components.training.trainer import FeatureSettings, paired_set, untrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=512)
    arguments = parser.parse_args()
    dataset = detect_layout(arguments.root).model_copy(update={"max_images": arguments.images})
    captions = read_captions(dataset)
    captions = captions[captions["part"] == "train"].reset_index(drop=True)
    data = CaptionedImages(captions, inspect_images(captions, arguments.root), arguments.root)
    config, training = ModelConfig(), TrainingConfig(epochs=2, batch_images=128, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        assembled = untrained(config, 0)
        started = time.perf_counter()
        cached = paired_set(assembled, config, data, FeatureSettings(cache, EmbeddingConfig()))
        extraction_s = time.perf_counter() - started
        paths = [data.root / name for name in data.image_rows()["file_name"]]
        texts = TokenisedTexts(captions["caption"].tolist(), assembled.tokenizer)
        whole = PairedSet(DecodedImages(paths, assembled.preprocess), texts, data.image_of_caption())
        cached_s = _epoch_s(config, cached, cached, training, cache / "cached")
        whole_s = _epoch_s(config, whole, cached, training.model_copy(update={"epochs": 1}), cache / "whole")
    threads = torch.get_num_threads()
    print(f"{arguments.images} images, {len(captions)} captions, heads only, {threads} threads")
    print(f"features computed once   {extraction_s:8.2f} s (ONNX export included)")
    print(f"epoch with cached        {cached_s:8.2f} s")
    print(f"epoch without            {whole_s:8.2f} s")
    print(f"ratio                    {whole_s / cached_s:8.1f}")


def _epoch_s(config: ModelConfig, data: PairedSet, val: PairedSet, training: TrainingConfig, work: Path) -> float:
    """Seconds of the last epoch without validation."""
    model = untrained(config, 0).model
    return train(model, data, val, training, work=work, identity="benchmark").history[-1].seconds


if __name__ == "__main__":
    main()
