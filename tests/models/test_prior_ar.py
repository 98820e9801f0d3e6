"""The autoregressive prior: what a code may see, what the cache keeps, how z_i becomes codes and comes back."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from unclip.models import prior_ar
from unclip.models.prior_ar import Codes, PriorAR, PriorARConfig, needed, pick
from unclip.nn.transformer import TransformerConfig

TOWER, K = TransformerConfig(32, 2, 4), 5
YES, NO = torch.tensor([True, True]), torch.tensor([False, False])


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def prior() -> PriorAR:
    torch.manual_seed(0)
    net = PriorAR(PriorARConfig(embed=16, text=32, context=12, components=K, buckets=64, transformer=TOWER))
    return net.eval()


def condition(prior: PriorAR, drop: torch.Tensor = NO, sign: float = 1.0):
    g = torch.Generator().manual_seed(3)
    text, z_t = torch.randn(2, 8, 32, generator=g), F.normalize(torch.randn(2, 16, generator=g), dim=1)
    return prior.condition(sign * text, sign * z_t, torch.arange(8) < torch.tensor([[5], [8]]), drop)


# ---- the Transformer -----------------------------------------------------------------------------------------


def test_no_code_sees_a_later_one(prior, g):
    """The gradient of output j is zero at every place behind it, and at no place before it."""
    codes = torch.randint(0, 64, (2, K), generator=g)
    for j in range(1 + K):
        logits = prior(codes, condition(prior))
        (grad,) = torch.autograd.grad(logits[:, j].square().sum(), prior.position)
        reached = grad[0].abs().sum(1) > 0
        assert reached[:8].all()  # the caption's eight tokens
        assert not reached[8:12].any()  # no token stood there
        assert reached[12 : 14 + j].all()  # z_t, first, and the codes before
        assert not reached[14 + j :].any()


@torch.no_grad()
def test_a_code_is_drawn_from_what_stands_before_it(prior, g):
    codes = torch.randint(0, 64, (2, K), generator=g)
    logits = prior(codes, condition(prior))
    for k in range(K):
        other = codes.clone()
        other[:, k] = (other[:, k] + 7) % 64
        changed = (prior(other, condition(prior)) - logits).abs().amax((0, 2)) > 1e-6
        assert changed.tolist() == [False] * (k + 1) + [True] * (K - k)


@pytest.mark.parametrize("guidance", [None, 2.5])
@pytest.mark.parametrize("n", [1, 3])
@torch.no_grad()
def test_cached_equals_uncached(prior, g, monkeypatch, guidance, n):
    """Drawn code by code over kept keys: the logits, and so the codes, are those of the whole sequence at once."""
    captions = 1 if guidance else 2
    given, seen = condition(prior, torch.tensor([bool(guidance), False])), []
    keep = lambda logits, *rest, **more: seen.append(logits) or pick(logits, *rest, **more)  # noqa: E731
    monkeypatch.setattr(prior_ar, "pick", keep)
    u = torch.rand(captions * n, 1 + K, generator=g)
    *_, codes = prior.sample(given, u, guidance, temperature=0.8)
    spread = [v.repeat_interleave(n, 0) for v in (given.seen, *(x for pair in given.keys for x in pair))]
    whole = type(given)(list(zip(spread[1::2], spread[2::2], strict=True)), spread[0])
    logits = prior(codes[:, :-1].repeat(2 if guidance else 1, 1), whole)
    if guidance:
        logits = torch.lerp(*logits.chunk(2), guidance)
    torch.testing.assert_close(torch.stack(seen, 1), logits / 0.8, rtol=1e-4, atol=1e-5)
    again = [pick(logits[:, i] / 0.8, u[:, i], upper=i == 0) for i in range(1 + K)]
    assert torch.equal(codes, torch.stack(again, 1))


@torch.no_grad()
def test_a_guidance_of_one_is_none_and_padding_is_not_seen(prior, g):
    u = torch.rand(1, 1 + K, generator=g)
    *_, guided = prior.sample(condition(prior, torch.tensor([True, False])), u, 1.0)
    *_, plain = prior.sample(type(condition(prior))(*alone(condition(prior), 1)), u)
    assert torch.equal(guided, plain)
    codes = torch.randint(0, 64, (2, K), generator=g)
    null = prior(codes, condition(prior, YES))
    torch.testing.assert_close(null, prior(codes, condition(prior, YES, sign=-1.0)))
    assert not torch.allclose(null, prior(codes, condition(prior)))


def alone(given, row: int):
    return [(k[row : row + 1], v[row : row + 1]) for k, v in given.keys], given.seen[row : row + 1]


@torch.no_grad()
def test_codes_come_one_by_one(prior, g):
    u = torch.rand(4, 1 + K, generator=g)
    frames = list(prior.sample(condition(prior), u))
    assert [f.shape for f in frames] == [(4, i) for i in range(1, 2 + K)]
    assert all(torch.equal(a, b[:, :-1]) for a, b in pairwise(frames))


# ---- codes ---------------------------------------------------------------------------------------------------


def cloud(g: torch.Generator, n: int = 20_000) -> torch.Tensor:
    """Unit vectors near a point, of known spread along turned axes."""
    axes = torch.linalg.qr(torch.randn(16, 16, generator=g))[0]
    spread = 0.02 * torch.tensor([8.0, 5.0, 3.0, 2.0, 1.0] + [0.05] * 11)
    return F.normalize(axes[-1] + torch.randn(n, 16, generator=g) * spread @ axes.T, dim=1)


def fitted(z_i: torch.Tensor, z_t: torch.Tensor, k: int = K, buckets: int = 1024) -> Codes:
    codes = Codes(16, k, buckets)
    codes.fit(z_i, (z_i * z_t).sum(1))
    return codes


def test_components_are_counted_by_what_they_leave_out():
    """On a known spectrum: variances 90, 9, 0.6, 0.3, 0.1. Two leave out 1%, which is not under it."""
    x = torch.cat([torch.diag(torch.tensor([90, 9.01, 0.59, 0.3, 0.1]).sqrt()), torch.zeros(5, 3)], dim=1).double()
    x = torch.cat([x, -x])
    assert [needed(x, e) for e in (0.5, 0.0999, 0.0101, 0.01, 0.0098, 0.0041, 0.0039)] == [1, 2, 2, 2, 3, 3, 4]


def test_codes_come_back(g):
    z_i, z_t = cloud(g), cloud(g)
    codes = fitted(z_i, z_t, needed(z_i))
    rows = codes.enter(z_i, z_t)
    back = codes.leave(rows)
    lost = (back - z_i).square().sum() / (z_i - z_i.mean(0)).square().sum()
    assert lost < 0.011  # one per cent by the components left out, hardly any by rounding
    torch.testing.assert_close(back.norm(dim=1), torch.ones(len(z_i)))
    off = (codes.enter(back, z_t) - rows)[:, 1:].abs()  # read as its bucket's median, a code is itself again, but for
    assert off.float().mean() < 5  # what normalising moves
    assert rows.min() >= 0 and rows.max() <= 1023


def test_rounding_costs_little_and_buckets_are_used_alike(g):
    y = torch.randn(200_000, 16, generator=g) * torch.linspace(2, 1, 16)
    codes = fitted(y, y, 16, 64)
    rows = codes.enter(y, y)[:, 1:]
    for k in (0, 15):
        counts = torch.bincount(rows[:, k], minlength=64).float()
        assert counts.mean() == pytest.approx(len(y) / 64)
        assert ((counts / counts.mean() - 1).abs() < 6 / counts.mean().sqrt()).all()
    deviation = codes.spread[1:]
    assert deviation.tolist() == sorted(deviation.tolist(), reverse=True)
    assert deviation.tolist() == pytest.approx(torch.linspace(2, 1, 16).tolist(), rel=0.01)


def test_what_is_not_yet_drawn_is_taken_at_its_mean(g):
    z_i = cloud(g, 2000)
    codes = fitted(z_i, z_i)
    rows = codes.enter(z_i, z_i)
    cosine = [(codes.leave(rows[:, : 1 + k]) * z_i).sum(1).mean().item() for k in range(K + 1)]
    assert cosine == sorted(cosine)
    torch.testing.assert_close(codes.leave(rows[:, :1])[0], F.normalize(z_i.mean(0), dim=0))


# ---- drawing a code ------------------------------------------------------------------------------------------


def test_pick_is_the_quantile():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    draw = lambda u, **how: pick(logits, torch.tensor([u]), **how).item()  # noqa: E731
    assert [draw(u) for u in (0.01, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 1.0)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [draw(u, top_p=0.6) for u in (0.01, 0.56, 0.58, 1.0)] == [1, 1, 3, 3]  # 0.4 and 0.3 make up 0.6
    assert draw(0.99, top_p=1e-6) == 1
    logits = torch.tensor([[0.1, 0.35, 0.2, 0.35]]).log()
    assert [draw(u, upper=True) for u in (0.01, 0.36, 0.37, 1.0)] == [2, 2, 3, 3]  # 0.2 and 0.35 hold the upper half


def test_picks_are_distributed_as_asked(g):
    logits = torch.randn(1, 8, generator=g).expand(40_000, 8)
    counts = torch.bincount(pick(logits, torch.rand(40_000, generator=g)), minlength=8) / 40_000
    assert ((counts - logits[0].softmax(0)).abs() < 5 * (counts / 40_000).sqrt()).all()


# ---- learning ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_a_few_by_heart(g):
    """Sixteen captions, each with its own z_i: the loss falls from log 1024, and what is drawn is the z_i learnt."""
    torch.manual_seed(0)
    z_i = cloud(g, 2000)
    tower = TransformerConfig(64, 2, 4)
    net = PriorAR(PriorARConfig(16, 32, 12, needed(z_i), 1024, tower))
    net.space.fit(z_i, (z_i * z_i.roll(1, 0)).sum(1))
    text, own, z_t = torch.randn(16, 8, 32, generator=g), z_i[:16], z_i[16:32]
    seen = torch.ones(16, 8, dtype=torch.bool)
    optimiser, losses = torch.optim.Adam(net.parameters(), 2e-3), []
    for step in range(500):
        given = net.condition(text, z_t, seen, torch.rand(16, generator=g) < 0.1)
        loss = net.loss(own, z_t, given)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(1024), abs=0.5)
    assert sum(losses[-20:]) / 20 < 1.0
    with torch.no_grad():
        given = net.eval().condition(text, z_t, seen, torch.zeros(16, dtype=torch.bool))
        *_, codes = net.sample(given, torch.rand(16, 1 + net.config.components, generator=g))
        assert (net.space.leave(codes) * own).sum(1).mean() > 0.99
        assert ((net.space.leave(codes) @ own.T).argmax(1) == torch.arange(16)).float().mean() > 0.9
