"""Small dual encoders with random weights, made by their own libraries and saved in their own formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import sentencepiece
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    MetaClip2Config,
    MetaClip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    XLMRobertaTokenizer,
)
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

PX = 64
_WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_WIDE, "image_size": PX, "patch_size": 16}
_SHORT_EDGE: dict[str, Any] = {"size": {"shortest_edge": PX}, "crop_size": {"height": PX, "width": PX}}
CAPTIONS = [
    f"{subject} {action} {place}"
    for subject in ("a dog", "two children", "a man in a red shirt", "собака", "一只 狗", "ein Hund", "the woman's cat")
    for action in ("runs", "plays with a ball", "sits", "бежит", "奔跑", "läuft", "jumps over 3 hurdles")
    for place in (
        "on the beach",
        "in a café",
        "near a blue car",
        "по пляжу",
        "在 海滩",
        "am Strand",
        "at night, alone.",
    )
]


def clip(folder: Path) -> Path:
    tokenizer = _clip_tokenizer()
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config={**text, **ends}, vision_config=_VISION, projection_dim=16)
    return _saved(folder, CLIPModel(config), tokenizer, CLIPImageProcessorPil(**_SHORT_EDGE))


def siglip(folder: Path) -> Path:
    folder.mkdir(parents=True)
    source = folder / "captions.txt"
    source.write_text("\n".join(CAPTIONS), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(source), model_prefix=str(folder / "spiece"), vocab_size=200, character_coverage=1.0, model_type="unigram",
        pad_id=-1, bos_id=-1, eos_id=1, unk_id=2, control_symbols=["<pad>"], hard_vocab_limit=False, minloglevel=2,
        num_threads=1,
    )  # fmt: skip
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=64)
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    processor = SiglipImageProcessorPil(size={"height": PX, "width": PX})
    for name in ("captions.txt", "spiece.vocab"):
        (folder / name).unlink()
    return _saved(folder, model, tokenizer, processor)


def siglip2(folder: Path) -> Path:
    """The fixed-size kind of SigLIP 2, which has SigLIP's architecture and Gemma's tokenizer."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        CAPTIONS, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    state = json.loads(trained.to_str())["model"]
    merges: list[Any] = [tuple(each) for each in state["merges"]]
    tokenizer = Siglip2Tokenizer(
        vocab=state["vocab"], merges=merges, model_max_length=64, padding_side="right",
        add_bos_token=False, add_eos_token=True,
    )  # fmt: skip
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    return _saved(folder, model, tokenizer, SiglipImageProcessorPil(size={"height": PX, "width": PX}))


def chinese_clip(folder: Path) -> Path:
    characters = sorted({character for caption in CAPTIONS for character in caption.lower() if not character.isspace()})
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *(f"##{each}" for each in characters),
        "dog",
        "beach",
    ]
    tokenizer = BertTokenizer(vocab={word: row for row, word in enumerate(dict.fromkeys(words))}, model_max_length=52)
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    model = ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16))
    return _saved(folder, model, tokenizer, ChineseCLIPImageProcessorPil(**_SHORT_EDGE))


def alt_clip(folder: Path) -> Path:
    tokenizer = _xlm_tokenizer(40)
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 50, "pad_token_id": 1, "project_dim": 24}
    model = AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16))
    return _saved(folder, model, tokenizer, CLIPImageProcessorPil(**_SHORT_EDGE))


def metaclip2(folder: Path) -> Path:
    tokenizer = _xlm_tokenizer(77)
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**_WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ends}
    model = MetaClip2Model(MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=16))
    return _saved(folder, model, tokenizer, CLIPImageProcessorPil(**_SHORT_EDGE))


def _xlm_tokenizer(length: int) -> XLMRobertaTokenizer:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        CAPTIONS,
        trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizer(vocab=pieces, model_max_length=length)


def open_clip_vit(folder: Path) -> Path:
    vision = {"image_size": PX, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    return _open_clip(folder, {"embed_dim": 16, "vision_cfg": vision, "text_cfg": _open_clip_text()})


def mobile_clip(folder: Path) -> Path:
    """MobileCLIP2-S0 with its image encoder and a small text encoder, which sees its padding."""
    config = open_clip.get_model_config("MobileCLIP2-S0")
    config["text_cfg"] = {**_open_clip_text(), "no_causal_mask": True}
    preprocessing = {"size": 256, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
    return _open_clip(folder, config, preprocessing)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "clip": clip,
    "siglip": siglip,
    "siglip2": siglip2,
    "chinese_clip": chinese_clip,
    "alt_clip": alt_clip,
    "metaclip2": metaclip2,
    "open_clip": open_clip_vit,
    "mobile_clip": mobile_clip,
}


def _open_clip_text() -> dict[str, int]:
    return {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def _open_clip(folder: Path, config: dict, preprocessing: dict | None = None) -> Path:
    folder.mkdir(parents=True)
    values = {"model_cfg": config, "preprocess_cfg": {"size": PX, **(preprocessing or {})}}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    _drawn(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _saved(folder: Path, model: Any, tokenizer: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    _drawn(model)
    if hasattr(model, "logit_bias"):  # SigLIP starts with a scale of 1 and no bias
        with torch.no_grad():
            model.logit_scale.fill_(2.5)
            model.logit_bias.fill_(-3.0)
    for each in (model, tokenizer, processor):
        each.save_pretrained(folder)
    return folder


def _drawn(model: torch.nn.Module) -> None:
    """Larger weights than a fresh model has, so that different inputs get clearly different vectors."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "logit" not in name and weights.ndim > 1:
                torch.nn.init.normal_(weights, std=0.15)


def _clip_tokenizer() -> CLIPTokenizer:
    """CLIP's real vocabulary, which open_clip carries, in the format of Transformers."""
    simple = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in simple.encoder.items()}
    merges = sorted(simple.bpe_ranks, key=lambda pair: simple.bpe_ranks[pair])
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
