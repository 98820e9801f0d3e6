"""Group normalisation against torch's own, and its gradients, first and second, against finite differences."""

import pytest
import torch
import torch.nn.functional as F

from unclip.nn.norm import GroupNorm, Normalise


@pytest.fixture
def given():
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((2, 12, 3, 5), (12,), (12,)))
    return tuple(v.requires_grad_() for v in ((x + 2).to(memory_format=torch.channels_last), weight, bias))


def ours(x, weight, bias):
    return Normalise.apply(x, weight, bias, 4, 1e-5)


def test_values_are_torchs(given):
    assert torch.allclose(ours(*given), F.group_norm(given[0], 4, *given[1:]), rtol=1e-12, atol=1e-12)


def test_gradients(given):
    assert torch.autograd.gradcheck(ours, given)
    assert torch.autograd.gradgradcheck(ours, given)  # a GAN's penalties differentiate the gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_in_either_layout_and_type(dtype):
    x = torch.randn(4, 64, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    layer, found = GroupNorm(64), []
    for layout in (torch.contiguous_format, torch.channels_last):
        here = x.clone(memory_format=layout).requires_grad_()
        y = layer(here)
        y.square().mul(torch.arange(8)).sum().backward()
        assert y.dtype == here.grad.dtype == dtype
        found.append((y.float(), here.grad.float() / here.grad.float().std()))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-4 if dtype == torch.float32 else 0.15)
