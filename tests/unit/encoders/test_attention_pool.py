"""Attention pooling against torch's own multi-head attention, whose keys and values are computed for every token."""

import pytest
import torch
from torch.nn import functional

from image_finder.components.encoders.heads import AttentionPool


def by_the_book(pool, tokens):
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + pool.positions
    x = tokens.transpose(0, 1)  # (1 + HW, N, C)
    width = pool.query.out_features
    pooled, weights = functional.multi_head_attention_forward(
        query=x[:1],
        key=x,
        value=x,
        embed_dim_to_check=x.shape[-1],
        num_heads=pool.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.query.bias, torch.zeros(width), pool.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.out.weight,
        out_proj_bias=pool.out.bias,
        training=False,
        need_weights=True,
        use_separate_proj_weight=True,
        q_proj_weight=pool.query.weight,
        k_proj_weight=pool.key.weight,
        v_proj_weight=pool.value.weight,
    )
    return pooled[0], weights[:, 0, 1:]


def by_loops(pool, tokens):
    """One image at a time, one head at a time, from the definition of attention."""
    rows, maps = [], []
    for image in tokens.double():
        x = torch.cat([image.mean(dim=0, keepdim=True), image]) + pool.positions.double()
        q = pool.query.weight.double() @ x[0] + pool.query.bias.double()
        keys = x @ pool.key.weight.double().T
        values = x @ pool.value.weight.double().T + pool.value.bias.double()
        size = len(q) // pool.heads
        out, shares = [], []
        for head in range(pool.heads):
            own = slice(head * size, (head + 1) * size)
            share = torch.softmax(keys[:, own] @ q[own] / size**0.5, dim=0)
            out.append(share @ values[:, own])
            shares.append(share)
        rows.append(pool.out.weight.double() @ torch.cat(out) + pool.out.bias.double())
        maps.append(torch.stack(shares).mean(dim=0)[1:])
    return torch.stack(rows).float(), torch.stack(maps).float()


@pytest.fixture
def pool():
    torch.manual_seed(1)
    return AttentionPool(channels=24, n_positions=9, width=24, heads=4)


def test_pooling_is_multi_head_attention_with_the_mean_as_query(pool):
    tokens = torch.randn(5, 9, 24)
    expected, shares = by_the_book(pool, tokens)
    pooled, attention = pool(tokens)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, shares, atol=1e-6, rtol=1e-5)


def test_pooling_into_another_width_follows_the_definition():
    torch.manual_seed(2)
    pool = AttentionPool(channels=20, n_positions=4, width=12, heads=3)
    tokens = torch.randn(3, 4, 20) * 3
    expected, shares = by_loops(pool, tokens)
    pooled, attention = pool(tokens)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, shares, atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_multi_head_attention(pool):
    tokens = torch.randn(2, 9, 24)
    gradients = []
    for forward in (pool, lambda x: by_the_book(pool, x)):
        pool.zero_grad()
        forward(tokens)[0].square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in pool.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_what_attention_lacks_to_one_fell_on_the_mean_token(pool):
    with torch.no_grad():  # equal scores: each of the 10 tokens gets a tenth
        pool.key.weight.zero_()
    _, attention = pool(torch.randn(2, 9, 24))
    torch.testing.assert_close(attention, torch.full((2, 9), 0.1))
