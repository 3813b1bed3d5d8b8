"""Fixtures of the unit tests: a tiny dual encoder and coloured shapes with captions. Heavy imports wait for their use."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.checkout import CHECKOUT

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 50), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("circle", "square", "bar")
SENTENCES = ("a {colour} {shape}", "there is a {shape} that is {colour}", "one {colour} {shape} on {ground} paper")
GROUNDS = {"white": (250, 250, 250), "black": (5, 5, 5), "grey": (128, 128, 128)}


@pytest.fixture(scope="session")
def tiny_text_trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder as the hub would serve it: a DistilBERT of 2 layers, 32 wide, with BERT's tokenizer."""
    import torch
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    from image_finder.components.captions.tokens import packaged_tokenizer_json

    folder = tmp_path_factory.mktemp("hub") / "tiny-distilbert"
    torch.manual_seed(7)
    config = DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    DistilBertModel(config).save_pretrained(folder)
    (folder / "source.json").write_text(packaged_tokenizer_json(), encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "source.json")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_text_trunk: Path) -> dict[str, Any]:
    """Values of a ModelConfig with 0.4 million parameters in the image trunk and 1 million in the text trunk."""
    return {
        "image": {
            "trunk": "test_efficientnet",
            "weights": "random",
            "input_px": 64,
            "pool_width": 32,
            "pool_heads": 4,
        },
        "text": {"trunk": str(tiny_text_trunk), "weights": "hub", "max_tokens": 16},
        "embedding_dim": 16,
        "dropout": 0.1,
    }


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """36 coloured shapes with 3 captions each: a CaptionedImages."""
    import pandas as pd

    from image_finder.components.captions.captioned import CaptionedImages
    from image_finder.components.storage import sha256_of_file

    root = tmp_path_factory.mktemp("scenes")
    captions, images = [], []
    kinds = [(c, s, g) for c in COLOURS for s in SHAPES for g in GROUNDS]
    for image_id, (colour, shape, ground) in enumerate(kinds, start=100):
        image = Image.new("RGB", (64, 64), GROUNDS[ground])
        draw = ImageDraw.Draw(image)
        if shape == "circle":
            draw.ellipse((12, 12, 52, 52), COLOURS[colour])
        else:
            draw.rectangle((14, 14, 50, 50) if shape == "square" else (4, 26, 60, 38), COLOURS[colour])
        name = f"{image_id}.png"
        image.save(root / name)
        images.append({"image_id": image_id, "file_name": name, "sha256": sha256_of_file(root / name)})
        captions += [
            {
                "image_id": image_id,
                "caption_id": 10 * image_id + i,
                "caption": s.format(colour=colour, shape=shape, ground=ground),
            }
            for i, s in enumerate(SENTENCES)
        ]
    return CaptionedImages(pd.DataFrame(captions), pd.DataFrame(images), root)


@pytest.fixture
def tiny_assembled(tiny_model: dict[str, Any]) -> Any:
    """The tiny dual encoder, drawn anew for each test with seed 0."""
    from image_finder.components.configs import ModelConfig
    from image_finder.components.training.trainer import untrained

    return untrained(ModelConfig.parse(tiny_model), 0)


@pytest.fixture
def pixels() -> Any:
    """(5, 64, 64, 3) uint8 noise."""
    return np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def run_children() -> Any:
    """Runs scenarios of children.py one after the other; fails if one does not end as it should."""
    import json
    import subprocess
    import sys
    import tempfile

    def run(scenarios: list[dict[str, Any]]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as stream:
            json.dump(scenarios, stream)
            stream.flush()
            root = CHECKOUT
            command = [sys.executable, str(CHECKOUT / "tests/support/children.py"), stream.name]
            done = subprocess.run(
                command, check=False, cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300
            )
        assert done.returncode == 0, done.stderr[-5000:]

    return run


def _environment(root: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture(scope="session")
def s3_server() -> Any:
    """s3_server(folder): serves the folders in it as buckets while it is entered; gives the options of an s3:// URI."""
    from tests.support.s3_server import s3_server as serve

    credentials = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**credentials, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        yield serve


@pytest.fixture(scope="session")
def write_colour_bundle() -> Any:
    """write(path, dataset="colours"): a Bundle whose towers know colours; text "red" is nearest to a red image."""
    from tests.support.colour_bundle import write_colour_bundle

    return write_colour_bundle


@pytest.fixture(scope="session")
def colour_bundle(write_colour_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One such bundle for tests that change nothing in it."""
    return write_colour_bundle(tmp_path_factory.mktemp("bundle") / "colours")


@pytest.fixture(scope="session")
def colour_scores() -> Any:
    """The ScoreCalibration of that bundle."""
    from tests.support.colour_bundle import colour_scores

    return colour_scores()


@pytest.fixture(scope="session")
def good_from() -> Any:
    """good_from(cosine): match models of a colour bundle."""
    from tests.support.colour_bundle import good_from

    return good_from


@pytest.fixture
def paint() -> Any:
    """paint(path, colour, size): write a plain image; the ending decides the format."""

    def write(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (16, 12)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def album_tools() -> Any:
    """publish_album(folder, bundle, place) and serving(index, **settings) of album.py."""
    from tests.support import album

    return album


@pytest.fixture(scope="module")
def album(album_tools: Any, colour_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """place/images with striped images in five colours, place/index published; for tests that change nothing."""
    place = tmp_path_factory.mktemp("album")
    noise = np.random.default_rng(0)
    colours = {"red": (255, 10, 10), "green": (10, 255, 10), "blue": (10, 10, 255), "yellow": (255, 255, 10)}
    for name, colour in {**colours, 'wei\u00df "\n\u767d': (255, 255, 255)}.items():
        folder = place / "images" / ("warm" if name in {"red", "yellow"} else "cold")
        folder.mkdir(parents=True, exist_ok=True)
        pattern = noise.integers(-10, 10, (30, 40, 1)).repeat(10, 0).repeat(10, 1)
        pixels = np.clip(np.array(colour) + pattern, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    album_tools.publish_album(place / "images", colour_bundle, place)
    return place


@pytest.fixture(scope="module")
def api(album_tools: Any, album: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A client of the application on that album."""
    with album_tools.serving(album / "index", thumbnails_path=tmp_path_factory.mktemp("thumbnails")) as client:
        yield client
