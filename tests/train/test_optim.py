import pytest
import torch
from torch import nn

from unclip.train.optim import EMA, optimiser, orthogonal, rate


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    o = orthogonal(g).float()
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    inner = u.T @ o @ v.T
    assert inner.diag().sub(1).abs().max() < 0.5
    assert (inner - inner.diag().diag()).abs().max() < 0.1


def test_muon_takes_layers_and_leaves_the_rest_to_adamw():
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 4), nn.LayerNorm(4))
    steps = optimiser(net, "muon", 1e-2, 0.99, 1e-8, 0.0)
    taken = {id(p) for group in steps.param_groups if group["muon"] for p in group["params"]}
    assert taken == {id(net[1].weight)}
    before = net[1].weight.detach().clone()
    net(torch.tensor([1, 2])).square().sum().backward()
    steps.step()
    moved = (net[1].weight - before).detach()
    assert moved.square().mean().sqrt().item() == pytest.approx(1e-2 * 0.2, rel=0.5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_both_solve_least_squares(kind):
    torch.manual_seed(0)
    net, goal, x = nn.Linear(6, 6), torch.randn(6, 6), torch.randn(200, 6)
    steps = optimiser(net, kind, 0.1, 0.99, 1e-8, 0.0)
    for i in range(300):
        for group in steps.param_groups:
            group["lr"] = 0.1 * rate(i, 300, 10, 0.8)
        loss = (net(x) - x @ goal).square().mean()
        loss.backward()
        steps.step()
        steps.zero_grad()
    assert loss.item() < 1e-2


def test_rate_rises_holds_and_falls():
    shares = [rate(i, 100, 10, 0.2) for i in range(100)]
    assert shares[0] == 0.1 and shares[9] == shares[79] == 1.0
    assert shares[-1] == pytest.approx(0.05)
    assert shares[:80] == [rate(i, 1000, 10, 0.2) for i in range(80)]  # the plateau does not know how long the run is


def test_ema_is_short_at_first_and_then_averages():
    net = nn.Linear(1, 1, bias=False)
    ema, weights, expected = EMA(net, 0.9), [], net.weight.item()
    for step in range(50):
        net.weight.data.fill_(float(step))
        ema.update(net, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        weights.append(ema.net.weight.item())
    assert weights[-1] == pytest.approx(expected, rel=1e-5)
