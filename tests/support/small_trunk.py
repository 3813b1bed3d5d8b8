"""Trunks that are exported in a second: what a pipeline does around them is the same, and takes half the time."""

# of an image tower: timm's smallest EfficientNet
SMALL_IMAGE_TRUNK = {"trunk": "test_efficientnet", "weights": "random", "input_px": 96}


def write_text_trunk(folder):
    """A DistilBERT of one layer with random weights, frozen: each word some direction, which is enough to tell them apart."""
    import torch
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    from image_finder.components.captions.tokens import packaged_tokenizer_json

    torch.manual_seed(7)
    config = DistilBertConfig(dim=128, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    DistilBertModel(config).save_pretrained(folder)
    (folder / "source.json").write_text(packaged_tokenizer_json(), encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "source.json")).save_pretrained(folder)
    return folder
