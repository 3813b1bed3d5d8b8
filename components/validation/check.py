"""Data check: a folder of captioned images to its validation report, the way a training sees it."""

from pathlib import Path

from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.layout import detect_layout
from image_finder.components.captions.manifest import build_manifest, inspect_images
from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json
from image_finder.components.configs import ValidationConfig
from image_finder.components.records.data import ValidationReport
from image_finder.components.validation.expectations import validate_captions

_MAX_TOKENS = 64  # of the packaged text tower; counting is not cut by it


def check_folder(root: Path, *, max_quarantined_share: float, progress: bool = True) -> ValidationReport:
    """Read, inspect and validate a data set found out from its folder. Captions are counted in the packaged trunk's tokens."""
    dataset = detect_layout(root)
    captions = read_captions(dataset)
    images = inspect_images(captions, root, progress=progress)
    tokenizer = Tokenizer(packaged_tokenizer_json(), _MAX_TOKENS)
    return validate_captions(
        captions,
        images,
        build_manifest(captions, images, dataset),
        ValidationConfig(max_quarantined_share=max_quarantined_share),
        token_counts=tokenizer.count(captions["caption"].tolist()),
    )
