"""Hugging Face: loads dual encoders of Transformers from a directory; nothing is unpickled, no remote code runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers import logging as transformers_logging

from image_finder.components.arrays import FloatMatrix, IntArray, Vectors
from image_finder.components.captions.tokens import Padding, Tokenizer
from image_finder.components.errors import BundleError
from image_finder.components.images.preprocess import Preprocess, Resize
from image_finder.components.importing.original import ImageTower, Original, TextTower
from image_finder.components.importing.sentencepiece_json import siglip_tokenizer_json
from image_finder.components.records.calibration import Scores
from image_finder.components.text import one_line

CONFIG = "config.json"
# Architectures by how their text encoder treats padding: it attends to it, masks it, or is causal and never sees it.
_FULL_ROWS, _MASKED, _CAUSAL = ("siglip",), ("chinese_clip", "altclip"), ("clip", "metaclip_2")
ARCHITECTURES = (*_CAUSAL, *_FULL_ROWS, *_MASKED)
_RESAMPLES = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
    Image.Resampling.LANCZOS: "lanczos",
}


def load_hugging_face(folder: Path) -> Original:
    """Load a model in the format of `save_pretrained`. Raises BundleError."""
    architecture = _architecture(folder)
    _require_safetensors(folder)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        loaded = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, attn_implementation="eager", **options
        )
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise BundleError(f"{folder} cannot be loaded: {one_line(error)}; fetch the model again") from error
    model: Any = loaded.eval()
    preprocess = _preprocess(processor, folder)
    full = architecture in _FULL_ROWS
    ours = _tokenizer(tokenizer, model, folder, full=full)
    scale, bias = model.logit_scale, getattr(model, "logit_bias", None)
    return Original(
        architecture=architecture,
        library=f"transformers {transformers.__version__}",
        image_tower=ImageTower(
            model, lambda pixels: _features(model.get_image_features(pixel_values=pixels)), preprocess
        ),
        text_tower=TextTower(
            model,
            lambda ids, mask=None: _features(model.get_text_features(input_ids=ids, attention_mask=mask)),
            masked=architecture in _MASKED,
        ),
        preprocess=preprocess,
        tokenizer=ours,
        scores=Scores(logit_scale=scale.exp().item(), logit_bias=None if bias is None else bias.item()),
        reference=_Library(model, processor, tokenizer, ours.max_tokens, full),
        parameters=sum(each.numel() for each in model.parameters()),
    )


def _architecture(folder: Path) -> str:
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / CONFIG} cannot be read: {one_line(error)}; fetch the model again") from error
    found = str(values.get("model_type", "unknown"))
    if "auto_map" in values:
        raise BundleError(f"{folder} needs code from its repository, which is never executed; import another model")
    if found == "siglip2":
        raise BundleError(
            f"{folder} is a NaFlex model, whose input size depends on the image; import one of fixed size, e.g. "
            "google/siglip2-base-patch16-224"
        )
    if found not in ARCHITECTURES:
        raise BundleError(
            f"{folder} has the architecture '{found}', which is not supported or has no text encoder; supported are "
            f"{', '.join(ARCHITECTURES)}, and open_clip's models"
        )
    return found


def _require_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for suffix in ("*.bin", "*.pt", "*.pth") for path in folder.glob(suffix))
    found = f"only {', '.join(pickles)}, which can execute code" if pickles else "no weights"
    raise BundleError(
        f"{folder} holds {found}; *.safetensors is needed: convert with https://huggingface.co/spaces/safetensors/convert, "
        "or import another model"
    )


def _features(output: Any) -> Tensor:  # noqa: ANN401 - a tensor before Transformers 5, an output record since
    return output if isinstance(output, Tensor) else cast("Tensor", output.pooler_output)


def _preprocess(processor: Any, folder: Path) -> Preprocess:  # noqa: ANN401 - each architecture has its class
    """The processor's steps. Raises BundleError for one that a bundle lacks."""
    size, crop = dict(processor.size or {}), dict(getattr(processor, "crop_size", None) or {})
    size, crop = ({name: value for name, value in each.items() if value} for each in (size, crop))
    crops = bool(getattr(processor, "do_center_crop", False))
    short = size.get("shortest_edge")
    final = crop if crops else size
    px = final.get("height")
    supported = {
        "conversion to RGB": processor.do_convert_rgb is not False,
        "resizing": bool(processor.do_resize) and set(size) in ({"shortest_edge"}, {"height", "width"}),
        "a square input": px is not None and final.get("width") == px and (short is not None) == crops,
        "a crop within the image": short is None or px is None or short >= px,
        "rescaling by 1/255": bool(processor.do_rescale) and abs(processor.rescale_factor * 255 - 1) < 1e-6,
        "normalisation": bool(processor.do_normalize),
        "interpolation": processor.resample in _RESAMPLES,
        "no padding": not getattr(processor, "do_pad", False),
    }
    if missing := [step for step, holds in supported.items() if not holds]:
        raise BundleError(
            f"{folder}: {type(processor).__name__} does not have {', '.join(missing)}, which a bundle needs; import another model"
        )
    return Preprocess(
        input_px=int(cast("int", px)),
        mean=_triple(processor.image_mean),
        std=_triple(processor.image_std),
        resize=Resize(short_edge_px=short, resample=cast("Any", _RESAMPLES[processor.resample])),
    )


def _tokenizer(tokenizer: Any, model: Any, folder: Path, *, full: bool) -> Tokenizer:  # noqa: ANN401
    text = model.config.text_config
    # RoBERTa and its relatives count positions from after the padding token.
    positions = int(text.max_position_embeddings) - (2 if text.model_type in ("altclip_text_model",) else 0)
    longest = min(int(tokenizer.model_max_length), positions)
    if tokenizer.padding_side != "right":
        raise BundleError(f"{folder}: its tokenizer pads at the left, which a bundle cannot; set padding_side to right")
    definition = (
        tokenizer.backend_tokenizer.to_str()
        if hasattr(tokenizer, "backend_tokenizer")
        else siglip_tokenizer_json(Path(tokenizer.vocab_file), lower=bool(tokenizer.do_lower_case))
    )
    return Tokenizer(definition, longest, Padding(token=int(tokenizer.pad_token_id), full=full))


@dataclass(frozen=True, eq=False)
class _Library:
    """Reference of Transformers: model, image processor and tokenizer as loaded."""

    model: Any
    processor: Any
    tokenizer: Any
    length: int
    full: bool

    def pixels(self, image: Image.Image) -> FloatMatrix:
        return cast("FloatMatrix", self.processor(image, return_tensors="np")["pixel_values"][0])

    def ids(self, texts: Sequence[str]) -> IntArray:
        return cast("IntArray", self._tokens(texts)["input_ids"].numpy())

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Vectors:
        values = self.processor(list(images), return_tensors="pt")["pixel_values"]
        return _unit(self.model.get_image_features(pixel_values=values))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        return _unit(self.model.get_text_features(**self._tokens(texts)))

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        padding = "max_length" if self.full else True
        options = {"truncation": True, "max_length": self.length, "return_tensors": "pt"}
        found = self.tokenizer(list(texts), padding=padding, **options)
        # SigLIP's processor passes no mask, even if its tokenizer makes one
        names = ("input_ids",) if self.full else ("input_ids", "attention_mask")
        return {name: found[name] for name in names}


def _unit(output: Any) -> Vectors:  # noqa: ANN401
    return cast("Vectors", torch.nn.functional.normalize(_features(output), dim=-1).numpy())


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return (float(red), float(green), float(blue))
