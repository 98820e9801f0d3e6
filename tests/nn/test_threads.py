"""A picture does not depend on the number of CPU threads: the layers at shapes where torch's own kernels do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unclip.nn.attention import attend
from unclip.nn.norm import GroupNorm
from unclip.nn.resnet import Pointwise


def with_threads(f):
    """f() by one thread and by two."""
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                results.append(f())
        return results
    finally:
        torch.set_num_threads(before)


def picture(channels: int, size: int, batch: int = 1) -> torch.Tensor:
    x = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("inputs", "outputs", "size"), [(320, 160, 4), (224, 64, 16), (96, 64, 32)])
def test_pointwise(inputs, outputs, size):
    x, layer = picture(inputs, size, 2), Pointwise(inputs, outputs, 1)
    one, two = with_threads(lambda: layer(x))
    assert torch.equal(one, two)
    assert one.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, nn.Conv2d.forward(layer, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "size"), [(64, 64), (96, 32), (8, 16)])
def test_group_norm(channels, size):
    x, layer = picture(channels, size) + 1, GroupNorm(channels)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    one, two = with_threads(lambda: layer(x))
    assert torch.equal(one, two)
    exact = F.group_norm(x.double(), layer.num_groups, layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(one.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x.requires_grad_()).double(), exact, rtol=1e-4, atol=1e-4)  # as when training


def test_group_norm_of_a_flat_picture_is_its_bias():
    layer = GroupNorm(32)
    with torch.inference_mode():
        assert layer(torch.full((1, 32, 8, 8), 300.1)).abs().max() < 1e-2 * 300


@pytest.mark.parametrize("shape", [(4, 4, 3, 36, 64), (4, 2, 17, 17, 8), (2, 4, 33, 65, 32)])
@pytest.mark.parametrize("masked", [True, False])
def test_attention(shape, masked):
    batch, heads, queries, keys, width = shape
    g = torch.Generator().manual_seed(0)
    q = torch.randn(batch, heads, queries, width, generator=g)
    k, v = torch.randn(2, batch, heads, keys, width, generator=g)
    mask = torch.rand(batch, 1, queries, keys, generator=g) < 0.7 if masked else None
    one, two = with_threads(lambda: attend(q, k, v, mask))
    assert torch.equal(one, two)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
    torch.testing.assert_close(one.double(), exact, rtol=1e-5, atol=1e-5)
