"""Text tower: pooling, padding, freezing, over a DistilBERT and a BERT trunk."""

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, PreTrainedModel

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.text_tower import TextTower


def trunk(kind):
    torch.manual_seed(0)
    made: PreTrainedModel
    if kind == "distilbert":
        made = DistilBertModel(DistilBertConfig(vocab_size=200, dim=32, n_layers=3, n_heads=2, hidden_dim=64))
    else:
        config = BertConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
        )
        made = BertModel(config, add_pooling_layer=False)
    return made.eval()


def tower(kind="distilbert", *, pooling="end", layers=0, **text):
    made = trunk(kind)
    torch.manual_seed(1)
    text = {"pooling": pooling, "trained_layers": layers, **text}
    return TextTower(made, ModelConfig.parse({"text": text, "embedding_dim": 16, "dropout": 0.3}))


IDS = torch.tensor([[101, 7, 8, 9, 102], [101, 5, 102, 0, 0], [101, 0, 102, 6, 102]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def attended(head, states):
    """What the head's attention picks of one text's states, computed head by head; nothing if it has none."""
    if head.attention is None:
        return []
    shares = head.attention.score(states).softmax(dim=0)  # (T, 8)
    values = head.attention.value(states).unflatten(1, (8, -1))  # (T, 8, C / 8)
    return [sum(shares[t, h] * values[t, h] for t in range(len(states))) for h in range(8)]


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
@pytest.mark.parametrize("pooling", ["end", "mean", "mean_end", "attention"])
def test_pooling_follows_the_mask(kind, pooling):
    model = tower(kind, pooling=pooling).eval()
    with torch.no_grad():
        hidden = model.stem.trunk(input_ids=IDS, attention_mask=MASK).last_hidden_state
        rows = []
        (head,) = model.heads
        for states, length in zip(head.norm(hidden), (5, 3, 5), strict=True):
            end, mean = states[length - 1], states[:length].mean(dim=0)
            parts = {"end": [end], "mean": [mean], "mean_end": [mean, end], "attention": [mean, end]}[pooling]
            rows.append(torch.cat([*parts, *attended(head, states[:length])]))
        expected = torch.nn.functional.normalize(head.projection(torch.stack(rows)), dim=-1)
        torch.testing.assert_close(model(IDS, MASK), expected, atol=1e-5, rtol=1e-4)


def test_the_end_is_found_by_the_mask_whatever_stands_under_it():
    model = tower().eval()
    features = torch.randn(1, 5, 32)
    with torch.no_grad():
        at_three = model.embed_features(features, torch.tensor([[1, 1, 1, 0, 0]]))
        features[:, 3:] = 99.0
        torch.testing.assert_close(model.embed_features(features, torch.tensor([[1, 1, 1, 0, 0]])), at_three)
        assert (model.embed_features(features, torch.tensor([[1, 1, 1, 1, 0]])) - at_three).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
@pytest.mark.parametrize("pooling", ["end", "mean", "mean_end", "attention"])
def test_padding_and_company_change_nothing(kind, pooling):
    model = tower(kind, pooling=pooling).eval()
    with torch.no_grad():
        together = model(IDS, MASK)
        padded = model(torch.nn.functional.pad(IDS, (0, 20), value=55), torch.nn.functional.pad(MASK, (0, 20), value=0))
        alone = torch.cat([model(IDS[i : i + 1, :n], MASK[i : i + 1, :n]) for i, n in enumerate((5, 3, 5))])
    torch.testing.assert_close(padded, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
@pytest.mark.parametrize(("layers", "learned"), [(0, set()), (1, {2}), (2, {1, 2}), (9, {0, 1, 2}), ("all", {0, 1, 2})])
def test_a_step_changes_the_trained_layers_alone(kind, layers, learned):
    model = tower(kind, layers=layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(IDS, MASK)[:, 0].sum().backward()
    torch.optim.AdamW(parameters, lr=0.01).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {int(name.split("layer.")[1].split(".")[0]) for name in changed if ".layer." in name} == learned
    assert any("embeddings" in name for name in changed) == (layers == "all")
    assert "heads.0.projection.linear.weight" in changed


def test_a_frozen_trunk_has_no_dropout_while_the_heads_train():
    model = tower(layers=0).train()
    with torch.no_grad():
        torch.testing.assert_close(model.features(IDS, MASK), model.features(IDS, MASK), atol=0, rtol=0)
        assert not torch.equal(model(IDS, MASK), model(IDS, MASK)), "the heads have dropout"


@pytest.mark.parametrize("pooling", ["end", "mean", "mean_end", "attention"])
def test_tokens_are_hidden_while_training_alone_and_never_the_first_and_the_end(pooling):
    plain, hiding = (tower(pooling=pooling, token_dropout=share).eval() for share in (0, 0.9))
    hiding.heads[0].projection.dropout.p = plain.heads[0].projection.dropout.p = 0.0
    with torch.no_grad():
        torch.testing.assert_close(hiding(IDS, MASK), plain(IDS, MASK), atol=0, rtol=0)
        long, twos = torch.full((1, 40), 7), torch.tensor([[101, 102]])
        for model in (plain, hiding):
            model.train()
        assert torch.equal(hiding(twos, torch.ones_like(twos)), plain(twos, torch.ones_like(twos)))
        differ = not torch.allclose(hiding(long, torch.ones_like(long)), plain(long, torch.ones_like(long)), atol=1e-4)
        assert differ == (pooling != "end")
