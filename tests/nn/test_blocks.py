"""The shared blocks against direct formulas, and causality by gradient."""

import math

import pytest
import torch
from torch import nn

from unclip.nn.attention import Attention, causal
from unclip.nn.embed import TimeEmbedding, sinusoidal
from unclip.nn.resnet import ResBlock
from unclip.nn.transformer import Transformer, TransformerConfig
from unclip.nn.unet import SpatialAttention, UNet, UNetConfig


def stirred(net: nn.Module) -> nn.Module:
    """Every parameter random: a fresh network hides its branches behind zeros."""
    g = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g) * 0.1 + (1.0 if p.ndim == 1 else 0.0)
    return net.eval()


def test_sinusoidal_is_cosines_then_sines():
    code = sinusoidal(torch.tensor([0, 3]), 8)
    assert torch.equal(code[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    rates = [10_000 ** (-i / 4) for i in range(4)]
    expected = [math.cos(3 * r) for r in rates] + [math.sin(3 * r) for r in rates]
    assert torch.allclose(code[1], torch.tensor(expected))
    assert TimeEmbedding(8, 16)(torch.tensor([5])).shape == (1, 16)


def test_attention_is_softmax_of_scaled_products():
    layer = stirred(Attention(8, 2))
    x = torch.randn(1, 5, 8)
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = (q[..., h] @ k[..., h].transpose(1, 2) / math.sqrt(4)).softmax(-1)
        heads.append(weights @ v[..., h])
    assert torch.allclose(layer(x)[0], layer.out(torch.cat(heads, -1)), atol=1e-5)


def test_attention_looks_at_the_context_too():
    layer = stirred(Attention(8, 2, context=6))
    x, context = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    y, (k, _) = layer(x, layer.keys(context))
    assert k.shape[2] == 8
    assert not torch.allclose(y, layer(x)[0])
    shuffled = layer(x, layer.keys(context.flip(1)))[0]
    assert torch.allclose(y, shuffled, atol=1e-6)  # a set, not a sequence


def test_causal_mask():
    assert causal(2, 1).tolist() == [[True, True, False], [True, True, True]]


def test_transformer_is_causal_by_gradient():
    net = stirred(Transformer(TransformerConfig(16, 2, 2)))
    x = torch.randn(1, 6, 16, requires_grad=True)
    net(x, causal(6))[0][0, 3].sum().backward()
    reached = x.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [True] * 4 + [False] * 2


def test_prefix_keys_replace_the_prefix():
    net = stirred(Transformer(TransformerConfig(16, 3, 2)))
    x = torch.randn(2, 7, 16)
    whole = net(x, causal(7))[0]
    _, keys = net(x[:, :4], causal(4))
    assert torch.allclose(net(x[:, 4:], causal(3, 4), keys)[0], whole[:, 4:], atol=1e-5)


@pytest.mark.parametrize("how, side", [(None, 8), ("up", 16), ("down", 4)])
def test_resblock_starts_as_its_skip(how, side):
    block = ResBlock(8, 8, 4, how)
    x = torch.randn(2, 8, 8, 8)
    y = block(x, torch.randn(2, 4))
    assert y.shape == (2, 8, side, side)
    if how is None:
        assert torch.equal(y, x)


def test_scale_shift_moves_the_normalised_activations():
    block = stirred(ResBlock(8, 8, 4))
    x, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 4)
    h = block.conv_1(nn.functional.silu(block.norm_1(x)))
    scale, shift = block.emb(emb)[:, :, None, None].chunk(2, 1)
    h = block.conv_2(nn.functional.silu(block.norm_2(h) * (1 + scale) + shift))
    assert torch.allclose(block(x, emb), x + h, atol=1e-5)


TINY = UNetConfig(3, 6, (8, 16), 1, (1,), 8, context=5, patch=2)


def test_unet_shapes_context_and_conditioning():
    net = stirred(UNet(TINY))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    plain = net(x, t)
    assert plain.shape == (2, 6, 8, 8)
    assert not torch.allclose(plain, net(x, t.flip(0)))
    assert not torch.allclose(plain, net(x, t, torch.randn(2, TINY.emb)))
    assert not torch.allclose(plain, net(x, t, None, net.keys(torch.randn(2, 4, 5))))


def test_unet_gives_each_attention_its_own_keys():
    """The order of `keys` is the order in which the forward pass meets the attentions."""
    net = stirred(UNet(TINY))
    met = []
    for a in net.attentions():
        a.register_forward_hook(lambda module, args, out: met.append(module))
    net(torch.randn(1, 3, 8, 8), torch.tensor([1]))
    assert met == net.attentions()
    assert len(met) == 1 + 1 + 2


def test_convolutional_unet_does_not_know_where_it_is():
    """Trained on crops, applied to whole pictures: away from the border a shift of the input shifts the output."""
    net = stirred(UNet(UNetConfig(3, 3, (8, 8), 1, (), patch=2, local=True)))
    x, t = torch.randn(1, 3, 32, 240), torch.tensor([10])
    shifted = net(x.roll(4, 3), t)
    assert torch.allclose(net(x, t).roll(4, 3)[..., 112:128], shifted[..., 112:128], atol=1e-4)


@pytest.mark.parametrize(("channels", "depth", "patch"), [((8,), 2, 4), ((8, 8), 1, 2), ((4, 4, 4), 2, 1)])
def test_reach_is_how_far_a_local_unet_sees(channels, depth, patch):
    """By gradient: no pixel beyond `reach` has an influence, and one near it has."""
    c = UNetConfig(3, 3, channels, depth, (), patch=patch, local=True)
    net, far = stirred(UNet(c)).double(), 0
    x = torch.zeros(1, 3, c.grain, -(-4 * c.reach // c.grain) * c.grain, dtype=torch.float64, requires_grad=True)
    for middle in range(2 * c.reach, 2 * c.reach + c.grain):
        (g,) = torch.autograd.grad(net(x, torch.tensor([10]))[..., middle].sum(), x)
        far = max(far, *((g.abs().sum((0, 1, 2)) > 0).nonzero()[:, 0] - middle).abs().tolist())
    assert c.reach - c.grain <= far <= c.reach


def test_unet_without_attention_takes_any_size():
    net = UNet(UNetConfig(6, 3, (8, 16), 1, (), patch=4))
    assert net(torch.randn(1, 6, 32, 48), torch.tensor([1])).shape == (1, 3, 32, 48)
    assert not any(isinstance(m, SpatialAttention) for m in net.modules())
