"""Adapters against their definition, W + s · B·A."""

import pytest
import torch
from torch import nn

from unclip.nn.adapter import adapt, learnt, merge, plain, twin
from unclip.nn.resnet import Pointwise
from unclip.nn.unet import UNet, UNetConfig


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.GroupNorm(2, 8), Pointwise(8, 6, 1), nn.Flatten(),
                        nn.Linear(24, 5), nn.Embedding(2, 2).requires_grad_(False))  # fmt: skip
    return net.eval()


def stir(net):
    g = torch.Generator().manual_seed(1)
    for parameter in learnt(net).values():
        parameter.data = torch.randn(parameter.shape, generator=g) * 0.3


def run(net, x):
    return net[:5](x)


def test_an_adapter_changes_nothing_at_first_and_alone_is_trained(net):
    x = torch.randn(4, 3, 4, 4)
    before, names = run(net, x), {k for k, p in net.named_parameters() if k[0] != "5"}
    adapt(net, 2)
    assert torch.equal(run(net, x), before)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert len(trained) == len(learnt(net)) == len(names) + 3  # two factors for each of three weights
    shapes = {name: tuple(p.shape) for name, p in learnt(net).items()}
    assert shapes["0.weight.A"] == (2, 27) and shapes["0.weight.B"] == (8, 2) and shapes["1.weight.d"] == (8,)


def test_gradients_are_those_of_the_factors(net):
    x, reference = torch.randn(4, 3, 4, 4), twin(net)
    adapt(net, 2)
    for each in (net, reference):
        run(each, x).square().sum().backward()
    g, ours = reference[4].weight.grad, learnt(net)
    torch.testing.assert_close(ours["4.weight.B"].grad, g @ ours["4.weight.A"].T)
    torch.testing.assert_close(ours["4.weight.A"].grad, torch.zeros(2, 24))  # B is zero yet
    torch.testing.assert_close(ours["4.bias.d"].grad, reference[4].bias.grad)


@pytest.mark.parametrize("scale", [0.0, 0.8, 1.0, -0.5])
def test_merged_weights_are_w_plus_s_b_a(net, scale):
    x, before = torch.randn(4, 3, 4, 4), {k: v.clone() for k, v in net.state_dict().items()}
    adapted, base = twin(net), net.requires_grad_(False)
    adapt(adapted, 2)
    stir(adapted)
    parts = {k: v.detach() for k, v in learnt(adapted).items()}
    merged = twin(base)
    merge(merged, parts, scale)
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items()), "the weights that were shared changed"
    conv = before["0.weight"] + scale * (parts["0.weight.B"] @ parts["0.weight.A"]).view(8, 3, 3, 3)
    torch.testing.assert_close(merged[0].weight, conv)
    torch.testing.assert_close(merged[1].bias, before["1.bias"] + scale * parts["1.bias.d"])
    assert merged[5].weight is base[5].weight
    if scale == 1.0:
        torch.testing.assert_close(run(merged, x), run(adapted, x))
        whole = plain(adapted)
        assert whole.keys() == before.keys()
        assert all(torch.equal(v, whole[k]) for k, v in merged.state_dict().items())


def test_a_rank_above_the_matrix_is_its_own():
    net = nn.Sequential(nn.Linear(3, 7))
    adapt(net, 64)
    assert {tuple(p.shape) for p in learnt(net).values()} == {(3, 3), (7, 3), (7,)}


def test_a_twin_shares_what_is_frozen(net):
    adapt(net, 2)
    stir(net)
    other = twin(net)
    shared = {id(p) for p in net.parameters()} & {id(p) for p in other.parameters()}
    assert shared == {id(p) for p in net.parameters() if not p.requires_grad}
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(run(net, x), run(other, x))
    learnt(other)["4.bias.d"].data += 1
    assert not torch.equal(run(net, x), run(other, x))


def test_low_rank_learning_finds_a_low_rank_difference():
    """Least squares whose solution lies W + (rank 2) away: the factors find it, and W stays."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(10, 10, bias=False)), torch.randn(200, 10)
    first = net[0].weight.detach().clone()
    goal = x @ (first + torch.randn(10, 2) @ torch.randn(2, 10)).T
    adapt(net, 2)
    steps = torch.optim.Adam(learnt(net).values(), 0.02)
    for _ in range(800):
        loss = (net(x) - goal).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert loss.item() < 1e-4
    assert torch.equal(net[0].parametrizations.weight.original, first)


def test_a_whole_unet_adapts():
    torch.manual_seed(0)
    net = UNet(UNetConfig(3, 3, (8, 16), 1, (1,), 8, context=16, patch=2)).eval()
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    x, t, keys = torch.randn(1, 3, 8, 8), torch.tensor([3]), net.keys(torch.randn(1, 4, 16))
    before = net(x, t, keys=keys)
    adapt(net, 2)
    torch.testing.assert_close(net(x, t, keys=keys), before)
    stir(net)
    fresh = UNet(net.config).eval()
    fresh.load_state_dict(plain(net))
    torch.testing.assert_close(fresh(x, t, keys=keys), net(x, t, keys=keys))
