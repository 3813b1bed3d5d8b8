"""SentencePiece: turns SigLIP's spiece.model into a tokenizer.json.

Its text is first made canonical: lower case, no ASCII punctuation, single blanks (big_vision, prompt_engineering.py;
transformers, SiglipTokenizer.canonicalize_text).
"""

import re
import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

_PUNCTUATION = "[" + re.escape(string.punctuation) + "]"


def canonical_normalizers(*, lower: bool) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lower else []
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    return [*steps, normalizers.Replace(Regex(_PUNCTUATION), ""), blanks, normalizers.Strip()]


def siglip_tokenizer_json(model: Path, *, lower: bool) -> str:
    """Text of a tokenizer.json with the pieces of a SentencePiece model and an end token."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(Unigram(pieces, proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback))
    charsmap = proto.normalizer_spec.precompiled_charsmap
    steps = canonical_normalizers(lower=lower)
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    end = "</s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.add_special_tokens([AddedToken(end, normalized=False, special=True)])
    return str(tokenizer.to_str())
