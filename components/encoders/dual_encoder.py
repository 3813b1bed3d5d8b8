"""Dual encoder: both towers and the logit scale, with preprocessing and tokenizer."""

from typing import NamedTuple

from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from transformers import PreTrainedModel

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.concepts import class_names, fit_concepts
from image_finder.components.encoders.hubness import SCALE
from image_finder.components.encoders.image_tower import ImageTower
from image_finder.components.encoders.loss import LogitScale
from image_finder.components.encoders.text_tower import TextTower
from image_finder.components.encoders.weights import load_image_trunk, load_text_trunk, load_tokenizer_json
from image_finder.components.errors import ConfigError
from image_finder.components.images.preprocess import Preprocess


class DualEncoder(nn.Module):
    """Image tower and text tower with one shared space of unit vectors.

    Independently trained ensemble heads make different errors, and the mean of their cosines makes fewer (Hansen and
    Salamon 1990). The product of an image vector and a text vector is that mean times product_scale, plus the part of the
    concept branch.
    """

    def __init__(self, image_tower: ImageTower, text_tower: TextTower) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.logit_scale = LogitScale()
        self.product_scale = SCALE if image_tower.hubness is not None else 1.0
        if image_tower.concepts is not None:
            self.product_scale /= 1 + image_tower.concept_weight

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of (N, H, W, 3) uint8 pixels."""
        vectors: Tensor = self.image_tower(pixels)[0]
        return vectors

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of token ids under mask, both (N, T) int64."""
        vectors: Tensor = self.text_tower(ids, mask)
        return vectors

    def logits(self, image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """Scaled similarities (n_images, n_texts) of unit vectors."""
        scaled: Tensor = self.logit_scale() * image_vectors @ text_vectors.t()
        return scaled


class Assembled(NamedTuple):
    model: DualEncoder
    preprocess: Preprocess
    tokenizer: Tokenizer


def assemble(config: ModelConfig) -> Assembled:
    """Build a dual encoder; heads are random (seed torch before). Raises ConfigError, DataError."""
    image = load_image_trunk(config.image)
    text = load_text_trunk(config.text)
    preprocess = Preprocess(input_px=config.image.input_px, mean=image.mean, std=image.std)
    tokenizer = Tokenizer(load_tokenizer_json(config.text), config.text.max_tokens)
    model = build(config, preprocess, image.trunk, text)
    concepts = model.image_tower.concepts, model.text_tower.concepts
    if concepts[0] is not None and concepts[1] is not None:
        fit_concepts(concepts[0], concepts[1], class_names(image.trunk), model.text_tower.stem, tokenizer)
    return Assembled(model, preprocess, tokenizer)


def build(
    config: ModelConfig, preprocess: Preprocess, image_trunk: EfficientNet, text_trunk: PreTrainedModel
) -> DualEncoder:
    """Build a dual encoder on two given trunks, with random heads. Raises ConfigError."""
    length = int(text_trunk.config.max_position_embeddings)
    if config.text.max_tokens > length:
        raise ConfigError(
            f"text.max_tokens ({config.text.max_tokens}) must not be above the {length} positions of '{config.text.trunk}'"
        )
    return DualEncoder(ImageTower(image_trunk, preprocess.mean, preprocess.std, config), TextTower(text_trunk, config))
