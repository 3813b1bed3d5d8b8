"""open_clip: loads its models, MobileCLIP among them, from a directory or a file of safetensors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
import torch
from open_clip import CustomTextCLIP
from open_clip.factory import load_checkpoint
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import TextTransformer, text_global_pool
from PIL import Image
from safetensors import SafetensorError
from timm.utils.model import reparameterize_model
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from torch import Tensor, nn

from image_finder.components.arrays import FloatMatrix, IntArray, Vectors
from image_finder.components.captions.tokens import Padding, Tokenizer
from image_finder.components.errors import BundleError
from image_finder.components.images.preprocess import Preprocess, Resize
from image_finder.components.importing.original import ImageTower, Original, TextTower
from image_finder.components.importing.sentencepiece_json import canonical_normalizers
from image_finder.components.records.calibration import Scores
from image_finder.components.text import one_line

CONFIG = "open_clip_config.json"
_FOLDER = "local-dir:"
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token"}
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_ENTITIES = {"&amp;": "&", "&quot;": '"', "&#39;": "'", "&apos;": "'", "&lt;": "<", "&gt;": ">", "&nbsp;": " "}
Clean = Literal["lower", "whitespace", "canonicalize"]


def load_open_clip_folder(folder: Path) -> Original:
    """Load a directory with open_clip_config.json and safetensors. Raises BundleError."""
    weights = sorted(folder.glob("*.safetensors"))
    if len(weights) != 1:
        preferred = [path for path in weights if path.name.startswith("open_clip")]
        if len(preferred) != 1:
            raise BundleError(
                f"{folder} holds {len(weights) or 'no'} *.safetensors, expected one; weights in other formats can execute "
                "code and are not read: import another model"
            )
        weights = preferred
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model_config = {**config["model_cfg"], "text_cfg": config["model_cfg"]["text_cfg"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / CONFIG} cannot be read: {one_line(error)}; fetch the model again") from error
    return _load(f"{_FOLDER}{folder}", model_config, config.get("preprocess_cfg", {}), weights[0])


def load_open_clip_file(name: str, weights: Path) -> Original:
    """Load a built-in architecture with weights from a file of safetensors. Raises BundleError."""
    config = open_clip.get_model_config(name)
    if config is None:
        near = [each for each in open_clip.list_models() if name.lower()[:8] in each.lower()][:5]
        raise BundleError(f"open_clip has no model '{name}'; similar are {', '.join(near) or 'none'}")
    if weights.suffix != ".safetensors":
        raise BundleError(f"{weights} is not a .safetensors file; other formats can execute code and are not read")
    return _load(name, config, {}, weights)


def _load(name: str, config: dict[str, Any], preprocessing: dict[str, Any], weights: Path) -> Original:
    """name: as open_clip resolves it. weights are named, because open_clip would prefer some pickles in a directory."""
    text, where = config["text_cfg"], weights.parent if name.startswith(_FOLDER) else weights
    if text.get("hf_model_name") or config.get("multimodal_cfg"):
        raise BundleError(f"{where}: text encoders of Transformers inside open_clip and CoCa are not supported")
    # They become arguments of the tokenizer's loader, which could name code or a file.
    if unknown := set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS:
        raise BundleError(
            f"{where}: tokenizer_kwargs {', '.join(sorted(unknown))} are not supported; import another model"
        )
    try:
        # CustomTextCLIP has the same weights as CLIP and reads rows of any length
        model = open_clip.create_model(name, load_weights=False, force_custom_text=True)
        load_checkpoint(model, str(weights))
        theirs = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise BundleError(f"{where} cannot be loaded: {one_line(error)}; fetch the model again") from error
    assert isinstance(model, CustomTextCLIP), "forced above"
    model = model.eval()
    settings = PreprocessCfg(**merge_preprocess_dict(model.visual.preprocess_cfg, preprocessing))
    preprocess = _preprocess(settings, where)
    short = _reads_short_rows(model.text)
    tokenizer = _tokenizer(theirs, text, where, full=not short)
    # Training branches of FastViT and MobileOne are merged: the same function, but faster.
    visual = reparameterize_model(model.visual, inplace=False)
    bias = model.logit_bias
    return Original(
        architecture=config["vision_cfg"].get("timm_model_name", "ViT") if name.startswith(_FOLDER) else name,
        library=f"open_clip {open_clip.__version__}",
        image_tower=ImageTower(visual, visual, preprocess),
        text_tower=TextTower(
            model.text, partial(_short_row_features, model.text) if short else model.text, masked=False
        ),
        preprocess=preprocess,
        tokenizer=tokenizer,
        scores=Scores(logit_scale=model.logit_scale.exp().item(), logit_bias=None if bias is None else bias.item()),
        reference=_Library(model, image_transform_v2(settings, is_train=False), theirs),
        parameters=sum(each.numel() for each in model.parameters()),
    )


def _reads_short_rows(text: nn.Module) -> bool:
    """Whether padding cannot change a text's vector: attention is causal, and the end token's output is taken."""
    return (
        isinstance(text, TextTransformer)
        and text.attn_mask is not None
        and text.cls_emb is None
        and not text.use_pad_mask
        and text.pool_type in ("argmax", "eos")
    )


def _short_row_features(text: TextTransformer, ids: Tensor) -> Tensor:
    """TextTransformer.forward for rows of any length; its own mask has the full length. A short text is 6 times faster."""
    length = ids.shape[1]
    hidden = text.token_embedding(ids) + text.positional_embedding[:length]
    hidden = text.ln_final(text.transformer(hidden, attn_mask=text.attn_mask[:length, :length]))
    pooled = text_global_pool(hidden, ids, text.pool_type, eos_token_id=text.eos_id)
    projection = text.text_projection
    if projection is None:
        return cast("Tensor", pooled)
    return cast("Tensor", projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection)


def _preprocess(settings: PreprocessCfg, where: Path) -> Preprocess:
    size = settings.size if isinstance(settings.size, int) else settings.size[0]
    square = isinstance(settings.size, int) or len(set(settings.size)) == 1
    if not square or settings.resize_mode == "longest":
        raise BundleError(f"{where}: resize mode {settings.resize_mode} to {settings.size} is not supported")
    short = size if settings.resize_mode == "shortest" else None
    resample = cast("Literal['bilinear', 'bicubic']", settings.interpolation)
    return Preprocess(
        input_px=size,
        mean=cast("tuple[float, float, float]", tuple(map(float, settings.mean))),
        std=cast("tuple[float, float, float]", tuple(map(float, settings.std))),
        resize=Resize(short_edge_px=short, resample=resample, crop_offset="even"),
    )


def _tokenizer(theirs: object, text: dict[str, Any], where: Path, *, full: bool) -> Tokenizer:
    length = int(text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))
    options = text.get("tokenizer_kwargs", {})
    if isinstance(theirs, SimpleTokenizer):
        return Tokenizer(_simple_json(theirs, options.get("clean", "lower")), length, Padding(token=0, full=full))
    if not isinstance(theirs, HFTokenizer) or theirs.tokenizer_mode or theirs.strip_sep_token:
        raise BundleError(f"{where}: its tokenizer, {type(theirs).__name__} with {options}, is not supported")
    backend = FastTokenizer.from_str(theirs.tokenizer.backend_tokenizer.to_str())
    cleaning = _cleaning(options.get("clean", "whitespace"))
    backend.normalizer = normalizers.Sequence([*cleaning, *([backend.normalizer] if backend.normalizer else [])])
    return Tokenizer(backend.to_str(), length, Padding(token=int(theirs.tokenizer.pad_token_id), full=full))


def _simple_json(theirs: SimpleTokenizer, clean: Clean) -> str:
    """The BPE of openai/CLIP as text of a tokenizer.json."""
    ranks = sorted(theirs.bpe_ranks, key=lambda pair: theirs.bpe_ranks[pair])
    tokenizer = FastTokenizer(BPE(theirs.encoder, ranks, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(_cleaning(clean))
    split = pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    names = {number: name for name, number in theirs.encoder.items()}
    start, end = (names[number] for number in (theirs.sot_token_id, theirs.eot_token_id))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, theirs.sot_token_id), (end, theirs.eot_token_id)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (start, end)])
    return str(tokenizer.to_str())


def _cleaning(clean: Clean) -> list[normalizers.Normalizer]:
    """open_clip's cleaning of a text: ftfy.fix_text without repair of wrong encodings, common HTML entities, blanks."""
    from ftfy import chardata

    replaced = {chr(code): text for table in (chardata.LIGATURES, chardata.WIDTH_MAP) for code, text in table.items()}
    steps: list[normalizers.Normalizer] = [
        *(normalizers.Replace(entity, text) for entity, text in _ENTITIES.items()),
        *(normalizers.Replace(character, text) for character, text in replaced.items()),
        normalizers.Replace(Regex(chardata.SINGLE_QUOTE_RE.pattern), "'"),
        normalizers.Replace(Regex(chardata.DOUBLE_QUOTE_RE.pattern), '"'),
        normalizers.NFC(),
    ]
    if clean == "canonicalize":
        return [*steps, normalizers.Replace("_", " "), *canonical_normalizers(lower=True)]
    blanks = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return [*steps, *blanks, *([normalizers.Lowercase()] if clean == "lower" else [])]


@dataclass(frozen=True, eq=False)
class _Library:
    """Reference of open_clip: model, transform and tokenizer as loaded."""

    model: Any
    transform: Any
    tokenizer: Any

    def pixels(self, image: Image.Image) -> FloatMatrix:
        return cast("FloatMatrix", self.transform(image).numpy())

    def ids(self, texts: Sequence[str]) -> IntArray:
        return cast("IntArray", self.tokenizer(list(texts)).numpy())

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Vectors:
        pixels = torch.stack([self.transform(each) for each in images])
        return cast("Vectors", self.model.encode_image(pixels, normalize=True).numpy())

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        return cast("Vectors", self.model.encode_text(self.tokenizer(list(texts)), normalize=True).numpy())
