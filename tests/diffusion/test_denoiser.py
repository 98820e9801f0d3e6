import math

import pytest
import torch
from torch import nn

from unclip.diffusion import (
    PREDICTS,
    Denoiser,
    Levels,
    capped,
    cosine,
    min_snr,
    mix,
    posterior_variance,
    simple,
    uniform,
)
from unclip.errors import UnclipError

COSINE = Levels.from_betas(cosine(1000))
FLOW = Levels(*(torch.linspace(a, b, 101, dtype=torch.float64) for a, b in ((1, 0), (0, 1))), torch.arange(101))
SHAPES = [(4, 6), (4, 2, 8, 8)]


class Toy(nn.Module):
    """Any function of x and t, with `gain` output channels for each input channel."""

    def __init__(self, shape, gain=1):
        super().__init__()
        torch.manual_seed(0)
        c = shape[1]
        self.layer = nn.Linear(c, gain * c) if len(shape) == 2 else nn.Conv2d(c, gain * c, 3, padding=1)

    def forward(self, x, t):
        assert t.shape == x.shape[:1]
        return torch.tanh(self.layer(x)) * (1 + t.reshape(-1, *[1] * (x.ndim - 1)) / 1000)


@pytest.fixture
def batch(rng):
    def draw(shape, i=(1, 2, 300, 1000)):
        x0 = (torch.randint(0, 256, shape, generator=rng) / 127.5 - 1).double()
        i = torch.tensor(i)
        return x0, COSINE[i], COSINE[i - 1], torch.randn(shape, generator=rng, dtype=torch.float64)

    return draw


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [COSINE, FLOW], ids=["cosine", "flow"])
@pytest.mark.parametrize("predicts", PREDICTS)
def test_every_parameterisation_inverts(rng, predicts, levels, shape):
    """A network that gives y = a x0 + b eps gives x0, for a batch of levels and for one."""
    x0, eps = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    i = torch.tensor([1, 20, 50, 90])
    for at in (levels[i], levels[50]):
        row = at.like(x0)
        a, b = PREDICTS[predicts](row)
        x, y = mix((row.alpha, x0), (row.sigma, eps)), mix((a, x0), (b, eps))
        est = Denoiser(lambda x, t, y=y: y, predicts)(x, at)
        torch.testing.assert_close(est.x0, x0)


def test_parameterisations_as_published(rng):
    x0, eps = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    for at, name, want in [
        (COSINE[300], "eps", eps),
        (COSINE[300], "x0", x0),
        (COSINE[300], "v", COSINE.alpha[300] * eps - COSINE.sigma[300] * x0),
        (FLOW[30], "flow", eps - x0),  # the velocity d x_t / d t of the straight path
    ]:
        a, b = PREDICTS[name](at)
        torch.testing.assert_close(mix((a, x0), (b, eps)), want)


@pytest.mark.parametrize(("variance", "frac"), [("small", 0.0), ("large", 1.0)])
def test_fixed_variance(variance, frac):
    x = torch.randn(2, 3)
    est = Denoiser(lambda x, t: x, variance=variance)(x, COSINE[5])
    assert est.frac == frac
    beta = 1 - (COSINE.alpha[5] / COSINE.alpha[4]) ** 2
    want = beta if frac else beta * COSINE.sigma[4] ** 2 / COSINE.sigma[5] ** 2
    torch.testing.assert_close(est.log_var(COSINE[5], COSINE[4]), want.log())


def test_learned_variance():
    """iDDPM, eq. 15: the second half of the channels, -1 for beta~ and 1 for beta."""
    x = torch.randn(3, 2, 4, 4)
    v = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand_as(x)
    net = lambda x, t: torch.cat([x, v], 1)  # noqa: E731
    est = Denoiser(net, "x0", "learned")(x, COSINE[5])
    assert torch.equal(est.x0, x)
    small, large = (v.log() for v in posterior_variance(COSINE[5], COSINE[4]))
    got = est.log_var(COSINE[5], COSINE[4])[:, 0, 0, 0]
    torch.testing.assert_close(got, torch.stack([small, (small + large) / 2, large]).float())


def test_gradient_moves_eps():
    """ADM, algorithm 2: eps <- eps - sigma grad."""
    at, x, eps, grad = COSINE[300], *torch.randn(3, 4, dtype=torch.float64)
    est = Denoiser(lambda x, t: eps)(x[None], at)
    x0 = est.each(lambda v: v).spend(at)
    assert x0 is est.x0
    spent = type(est)(est.x0, grad=grad).spend(at)
    torch.testing.assert_close((x - at.alpha * spent[0]) / at.sigma, eps - at.sigma * grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("predicts", PREDICTS)
def test_simple_loss(batch, predicts, shape):
    x0, at, to, noise = batch(shape)
    net = Toy(shape).double()
    got = Denoiser(net, predicts).loss(x0, at, to, noise)
    assert got.shape == (4,)
    for n in range(4):
        a, s = at.alpha[n], at.sigma[n]
        y = net(a * x0[n : n + 1] + s * noise[n : n + 1], at.t[n : n + 1])[0]
        want = {"eps": noise[n], "x0": x0[n], "v": a * noise[n] - s * x0[n], "flow": noise[n] - x0[n]}[predicts]
        torch.testing.assert_close(got[n], ((y - want) ** 2).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_hybrid_loss_as_published(batch, shape):
    """L_simple + L_vlb from the papers' formulas in betas, sample by sample: DDPM eq. 5, 7, 13; iDDPM eq. 15, 16."""
    x0, at, to, noise = batch(shape)
    net = Toy(shape, 2).double()
    got = Denoiser(net, variance="learned").loss(x0, at, to, noise)
    beta = cosine(1000)
    abar = (1 - beta).cumprod(0)
    for n, t in enumerate(at.t):  # counts from 0
        x = abar[t].sqrt() * x0[n] + (1 - abar[t]).sqrt() * noise[n]
        eps, v = net(x[None], t[None])[0].chunk(2)
        before = abar[t - 1] if t > 0 else torch.tensor(1.0).double()
        k = max(t, 1)  # the floor: the variance of the step before the last
        tilde = (1 - abar[k - 1]) / (1 - abar[k]) * beta[k]
        var = torch.exp((v + 1) / 2 * beta[t].log() + (1 - v) / 2 * tilde.log())
        mu = (x - beta[t] / (1 - abar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()  # DDPM, eq. 11
        if t == 0:
            edge = lambda c: torch.special.ndtr((c - mu) / var.sqrt())  # noqa: B023, E731
            upper = torch.where(x0[n] > 0.999, 1, edge(x0[n] + 1 / 255))
            lower = torch.where(x0[n] < -0.999, 0, edge(x0[n] - 1 / 255))
            vlb, close = -(upper - lower).log(), {"rtol": 2e-3, "atol": 0}  # the published code approximates ndtr
        else:
            mean = before.sqrt() * beta[t] * x0[n] + (1 - beta[t]).sqrt() * (1 - before) * x  # DDPM, eq. 7
            mean = mean / (1 - abar[t])
            vlb = (var / tilde).log() / 2 + (tilde + (mean - mu) ** 2) / (2 * var) - 0.5  # KL of two Gaussians
            close = {"rtol": 1e-7, "atol": 0}
        want = ((eps - noise[n]) ** 2).mean() + vlb.mean() / math.log(2)
        torch.testing.assert_close(got[n], want, **close)
    twice = Denoiser(net, variance="learned", vlb=2.0).loss(x0, at, to, noise)
    simple = Denoiser(lambda x, t: net(x, t).chunk(2, 1)[0]).loss(x0, at, to, noise)
    torch.testing.assert_close(twice - got, got - simple)


def test_vlb_teaches_the_variance_alone(batch):
    x0, at, to, noise = batch(SHAPES[0])
    out = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    loss = Denoiser(lambda x, t: out, variance="learned").loss(x0, at, to, noise)
    (grad,) = torch.autograd.grad(loss.sum(), out)
    torch.testing.assert_close(grad[:, :6], 2 * (out[:, :6] - noise) / 6)
    assert (grad[1:, 6:] != 0).all()


@pytest.mark.parametrize("variance", ["small", "learned"])
def test_loss_gradcheck(batch, variance):
    """The analytic gradient is the numerical one; with a learned variance, of the variance (the mean is held)."""
    x0, at, to, noise = batch(SHAPES[0])
    mean, frac = (torch.randn(4, 6, dtype=torch.float64, requires_grad=g) for g in (variance == "small", True))
    net = (lambda x, t: mean) if variance == "small" else (lambda x, t: torch.cat([mean, frac], 1))
    denoise = Denoiser(net, variance=variance)
    free = mean if variance == "small" else frac
    assert torch.autograd.gradcheck(lambda _: denoise.loss(x0, at, to, noise), free)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_min_snr_is_one_loss_for_every_parameterisation(batch, predicts):
    """Hang et al., section 3.4: min(SNR, gamma) for x0, over SNR for eps, over SNR + 1 for v."""
    x0, at, to, noise = batch(SHAPES[0])
    snr = (at.alpha / at.sigma) ** 2
    want = (
        snr.clamp(max=5)
        / {"x0": 1, "eps": snr, "v": snr + 1, "flow": (at.alpha + at.sigma) ** 2 / at.sigma**2}[predicts]
    )
    torch.testing.assert_close(min_snr(5.0, predicts)(at), want)
    guess = x0 + torch.randn_like(x0)
    row = at.like(x0)
    eps = (row.sigma * noise - row.alpha * (guess - x0)) / row.sigma  # x_t and the guess imply this
    a, b = PREDICTS[predicts](row)
    got = Denoiser(lambda x, t: a * guess + b * eps, predicts, weight=min_snr(5.0, predicts)).loss(x0, at, to, noise)
    torch.testing.assert_close(got, snr.clamp(max=5) * ((guess - x0) ** 2).mean(1))


@pytest.mark.parametrize("predicts", PREDICTS)
def test_simple_is_the_error_of_eps_whatever_is_predicted(batch, predicts):
    x0, at, to, noise = batch(SHAPES[0])
    row, eps = at.like(x0), noise + torch.randn_like(x0)  # a guess of eps, and the x0 that it implies
    guess = x0 - row.sigma / row.alpha * (eps - noise)
    a, b = PREDICTS[predicts](row)
    got = Denoiser(lambda x, t: a * guess + b * eps, predicts, weight=simple(predicts)).loss(x0, at, to, noise)
    torch.testing.assert_close(got, (eps - noise).square().mean(1))


def test_capped_is_the_loss_on_v(batch):
    x0, at, to, noise = batch(SHAPES[0], (30, 200, 500, 1000))
    row, guess = at.like(x0), x0 + torch.randn_like(x0)
    v = (row.alpha * mix((row.alpha, x0), (row.sigma, noise)) - guess) / row.sigma
    by_v = Denoiser(lambda x, t: v, "v").loss(x0, at, to, noise)
    by_x0 = Denoiser(lambda x, t: guess, "x0", weight=capped(20.0)).loss(x0, at, to, noise)
    capped_at = 20 * at.sigma**2 < 1
    assert capped_at.tolist() == [True, False, False, False]
    torch.testing.assert_close(by_x0[1:], by_v[1:])
    torch.testing.assert_close(by_x0[0], by_v[0] * 20 * at.sigma[0] ** 2)


def test_uniform_weighs_nothing():
    assert uniform(COSINE[torch.tensor([1, 9])]).tolist() == [1, 1]


@pytest.mark.parametrize("variance", ["small", "learned"])
@pytest.mark.parametrize("shape", SHAPES)
def test_autocast(batch, shape, variance):
    """A network that computes in bfloat16 still has its loss and its estimate in float32."""
    x0, at, to, noise = batch(shape)
    x0, noise = x0.float(), noise.float()
    net = Toy(shape, 2 if variance == "learned" else 1)
    denoise = Denoiser(net, "v", variance, weight=min_snr(5.0, "v"))
    exact = denoise.loss(x0, at, to, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.layer(x0).dtype == torch.bfloat16
        loss, est = denoise.loss(x0, at, to, noise), denoise(noise, COSINE[500])
    assert loss.dtype == est.x0.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.02)
    loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_a_half_precision_prediction_is_not_rounded_again():
    y, x = torch.randn(2, 8).bfloat16(), torch.randn(2, 4)
    est = Denoiser(lambda x, t: y, "v", "learned")(x, COSINE[300])
    want = COSINE.alpha[300] * x - COSINE.sigma[300] * y.float()[:, :4]
    torch.testing.assert_close(est.x0, want, rtol=1e-6, atol=1e-6)
    assert est.frac.dtype == torch.float32


def test_refuses_what_it_does_not_know():
    with pytest.raises(UnclipError, match="choose one of eps, x0, v, flow"):
        Denoiser(nn.Identity(), "score")
    with pytest.raises(UnclipError, match="choose small, large or learned"):
        Denoiser(nn.Identity(), variance="fixed")


@pytest.mark.parametrize("row", [1, 30, 300])
def test_a_floor_weighs_x_and_the_network_by_their_errors(rng, row):
    """Two independent estimates of x0 of error variance v and w make one of 1 / (1 / v + 1 / w), the least there is."""
    at, floor = COSINE[row], 0.01
    x0, noise, error = torch.randn(3, 100_000, 1, generator=rng, dtype=torch.float64)
    x = mix((at.alpha, x0), (at.sigma, noise))
    est = Denoiser(lambda x, t: x0 + floor**0.5 * error, "x0", floor=floor)(x, at)
    expected = 1 / (1 / floor + (at.alpha / at.sigma).item() ** 2)
    assert (est.x0 - x0).square().mean().item() == pytest.approx(expected, rel=0.03)


def test_with_a_floor_a_learned_variance_stays_within_its_range():
    at, to, y = COSINE[300], COSINE[200], torch.tensor([[0.1, 9.0], [0.1, -9.0], [0.1, 0.5]])
    est = Denoiser(lambda x, t: y, "x0", "learned", floor=0.01)(torch.zeros(3, 1), at)
    small, large = (v.log().item() for v in posterior_variance(at, to))
    expected = torch.tensor([[large], [small], [small + 0.75 * (large - small)]])
    assert torch.allclose(est.log_var(at, to), expected, atol=1e-5)
