import pytest
import torch

from unclip.diffusion import (
    CFG,
    Clip,
    Denoiser,
    Draw,
    Estimate,
    Guide,
    Levels,
    Threshold,
    analytic,
    cosine,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_sde,
    karras,
    linear,
    mix,
    move,
    plms,
    posterior_variance,
    renoise,
    spread,
    unipc,
    vlb,
    walk,
)
from unclip.errors import UnclipError

COSINE = Levels.from_betas(cosine(1000))
STEPS = {"ddpm": ddpm, "ddim": ddim(), "ddim-1": ddim(1.0), "dpmpp_2m": dpmpp_2m, "dpmpp_sde": dpmpp_sde,
         "unipc": unipc, "plms": plms(), "renoise": renoise}  # fmt: skip
each_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)


def end(frames):
    *_, (x, _) = frames
    return x


def silent(x):
    raise AssertionError("a step with nothing random in it drew noise")


@pytest.fixture
def randn(rng):
    return lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)


def probability_flow(denoise, x, at, to, n=500):
    """The exact trajectory, by RK4 in log s on dy/ds = (y - x0) / s, where y = x / alpha and s = sigma / alpha."""

    def slope(u, y):
        s = u.exp()
        alpha = (1 + s**2).rsqrt()
        return y - denoise(alpha * y, Levels(alpha, alpha * s, torch.tensor(0))).x0

    y, u, stop = x / at.alpha, (at.sigma / at.alpha).log(), (to.sigma / to.alpha).log()
    h = (stop - u) / n
    for _ in range(n):
        a = slope(u, y)
        b = slope(u + h / 2, y + h / 2 * a)
        c = slope(u + h / 2, y + h / 2 * b)
        d = slope(u + h, y + h * c)
        y, u = y + h / 6 * (a + 2 * b + 2 * c + d), u + h
    return y * to.alpha


ORDERS = {"ddim": (ddim(), 1), "dpmpp_2m": (dpmpp_2m, 2), "plms": (plms(), 2), "plms of v": (plms("v"), 1),
          "unipc": (unipc, 3)}  # fmt: skip


@pytest.mark.parametrize(("step", "n"), ORDERS.values(), ids=ORDERS)
def test_order(mixture, even, rng, order, step, n):
    """Against the exact flow of a mixture: DDIM is of first order, DPM-Solver++(2M) and, as its steps are not even in
    sigma / alpha, PLMS of second, UniPC of third. v of other levels tells less of eps here: PLMS by v is of first."""
    x = torch.randn(32, 2, generator=rng, dtype=torch.float64)
    truth = probability_flow(mixture, x, even(1)[2], even(1)[1])
    errors = [end(walk(mixture, x, even(n)[1:].down(), step, silent)) - truth for n in (80, 160, 320)]
    assert order([e.norm() for e in errors]) == pytest.approx(n, abs=0.1 if n < 3 else 0.25)
    assert errors[-1].abs().max() < {1: 0.05, 2: 0.005, 3: 1e-4}[n]


@pytest.mark.parametrize(("step", "n"), [(ddpm, 1), (dpmpp_sde, 2)], ids=["ddpm", "dpmpp_sde"])
def test_weak_order_of_stochastic_steps(gaussian, even, order, step, n):
    """Of a Gaussian every step is linear, so x at the end is a sum of the noises with fixed coefficients: its variance
    is theirs squared, without sampling. Ancestral steps miss it by first order, DPM-Solver++ SDE by second."""
    errors = []
    for count in (80, 160, 320):
        levels = even(count)[1:]
        still = torch.zeros(count + 2, 2, dtype=torch.float64)
        drawn = iter(range(1, count + 1))  # row i of the batch has a one for noise i and none else; the last is silent
        kick = lambda x: still.index_fill(0, torch.tensor(next(drawn)), 1.0)  # noqa: B023, E731
        x = still.index_fill(0, torch.tensor(0), 1.0)
        x = end(walk(gaussian, x, levels.down(), step, kick))
        got = (x[:-1] - x[-1]).square().sum(0)
        errors.append((got - (levels.alpha[0] * gaussian.std) ** 2 - levels.sigma[0] ** 2).abs().max())
    assert order(errors) == pytest.approx(n, abs=0.15)


def test_karras_spacing():
    """EDM, eq. 5, on a table: the rows are those whose noise is nearest to the formula's; each is there once."""
    ratio = (COSINE.sigma / COSINE.alpha)[1:]
    rows = karras(COSINE, 12)
    first, last = ratio[0], ratio[ratio <= 80].max()
    i = torch.arange(12, dtype=torch.float64)
    want = (last ** (1 / 7) + i / 11 * (first ** (1 / 7) - last ** (1 / 7))) ** 7
    got = ratio[torch.tensor(rows) - 1].flip(0)
    assert ((got.log() - want.log()).abs() < 0.5 * ratio.log().diff()[[r - 2 for r in rows[::-1] if r > 1] + [0]]).all()
    assert rows[0] == 1
    assert ratio[rows[-1]] > 80 >= ratio[rows[-1] - 1]
    for n in (1, 2, 50, 400, 1000):
        rows = karras(COSINE, n)
        assert rows == sorted(set(rows)) and len(rows) == n and rows[0] >= 1 and rows[-1] <= 1000
    assert karras(Levels.from_betas(linear(10)), 10) == list(range(1, 11))
    with pytest.raises(UnclipError, match="cannot choose 0 of 1000 steps"):
        karras(COSINE, 0)


def test_what_few_calls_give(mixture, rng):
    """On an exact mixture, 20 calls from the same noise: each method nearer to the exact flow than the one before."""
    x = torch.randn(200, 2, generator=rng, dtype=torch.float64)
    rows = karras(COSINE, 20)
    levels = COSINE.spaced(rows)
    truth = probability_flow(mixture, x, levels[-1], levels[1])
    got = [end(walk(mixture, x, levels[1:].down(), step, silent)) for step in (ddim(), dpmpp_2m, unipc)]
    errors = [(v - truth).norm().item() for v in got]
    assert errors[0] > 1.5 * errors[1] > 2.5 * errors[2]


def test_inversion_comes_back(mixture, even, rng, order):
    """DDIM up, then down: x_T is standard normal, and the round trip closes at first order."""
    x0, errors = mixture.draw(32, rng), []
    for n in (200, 400, 800):
        x_T = end(walk(mixture, x0, even(n).up(), ddim(), silent))
        errors.append((end(walk(mixture, x_T, even(n)[1:].down(), ddim(), silent)) - x0).norm())
    assert x_T.mean() == pytest.approx(0, abs=0.4)
    assert x_T.std() == pytest.approx(1, abs=0.3)
    assert errors[-1] < 0.01 * x0.norm()
    assert order(errors) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("frac", [0.0, 1.0], ids=["small", "large"])
def test_ancestral_sampling_recovers_the_moments(mixture, randn, frac):
    n = 8000
    x = randn(torch.empty(n, 2, dtype=torch.float64))
    x = end(walk(mixture, x, Levels.from_betas(cosine(250)).down(), ddpm, randn, frac=frac))
    mean, cov = mixture.moments
    assert ((x.mean(0) - mean).abs() < 4 * (cov.diag() / n).sqrt()).all()
    error = (cov.diag().outer(cov.diag()) + cov**2).div(n).sqrt()  # of a sample covariance, were x Gaussian
    assert ((x.T.cov() - cov).abs() < 4 * error).all()


def test_analytic_variance_of_each_element(randn):
    """Data of another deviation in each dimension: a table of errors for each gives each its whole variance."""
    std = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    snr = (COSINE.alpha / COSINE.sigma)[1:, None] ** 2
    exact = lambda x, at: Estimate(at.alpha * std**2 / (at.alpha**2 * std**2 + at.sigma**2) * x)  # noqa: E731
    levels, n = COSINE.spaced([100, 500, 1000]), 20000
    frames = walk(exact, randn(torch.empty(n, 3).double()), levels.down(), analytic(1 / (1 / std**2 + snr)), randn)
    _, (y, _), _ = frames
    want = (levels[1].alpha * std) ** 2 + levels[1].sigma ** 2
    assert y.var(0).tolist() == pytest.approx(want.tolist(), rel=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_analytic_variance_is_exact_in_any_number_of_steps(gaussian, randn, count):
    """Of a Gaussian the reverse steps are Gaussian: with the best variance few of them give the whole variance."""
    n, std = 20000, gaussian.std.item()
    levels = COSINE.spaced(spread(1000, count) if count > 1 else [1000])
    snr = (COSINE.alpha / COSINE.sigma)[1:] ** 2
    step = analytic(1 / (1 / std**2 + snr))  # the variance of x0 given x_t
    x = randn(torch.empty(n, 2, dtype=torch.float64))
    for (_, to), (y, est) in zip(levels.down(), walk(gaussian, x, levels.down(), step, randn), strict=True):
        if to.sigma > 0:
            want = (to.alpha * std) ** 2 + to.sigma**2
            assert y.var(0).tolist() == pytest.approx([want.item()] * 2, rel=5 * (2 / n) ** 0.5)
        else:
            torch.testing.assert_close(y, est.x0)  # the last step keeps the mean


def test_renoise_of_a_point_mass(randn):
    """The posterior of a point mass is the point: every level is drawn exactly, and the end is the point."""
    point = torch.tensor([0.3, -0.7], dtype=torch.float64)
    x = randn(torch.empty(20000, 2, dtype=torch.float64))
    path = list(COSINE.spaced([250, 500, 1000]).down())
    frames = walk(lambda x, at: Estimate(point.expand_as(x)), x, path, renoise, randn)
    for (_, to), (y, _) in zip(path, frames, strict=True):
        off = (y - to.alpha * point) / to.sigma.clamp(min=1e-9)
        assert off.mean(0).abs().max() < 5 / 20000**0.5
        assert off.var(0).tolist() == pytest.approx([float(to.sigma > 0)] * 2, abs=5 * (2 / 20000) ** 0.5)
    assert torch.equal(y, point.expand_as(y))


def test_ddim_with_eta_one_is_ancestral(mixture, rng):
    """DDIM, section 4.1: with eta = 1 the generative process is DDPM's, noise for noise."""
    x = torch.randn(16, 2, generator=rng, dtype=torch.float64)
    levels = COSINE.spaced(spread(1000, 20))
    ours, theirs = (walk(mixture, x, levels.down(), s, Draw(range(16), "a").like) for s in (ddim(1.0), ddpm))
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_ddim_keeps_the_marginal(gaussian, randn):
    """For any eta the step is a draw from DDIM's q(x_to | x_at, x0) (eq. 7), whose marginal is alpha x0 + sigma eps."""
    at, to, n = COSINE[600], COSINE[300], 20000
    x0 = torch.tensor([0.4, -0.3], dtype=torch.float64).expand(n, 2)
    x = mix((at.alpha, x0), (at.sigma, randn(x0)))
    for eta in (0.0, 0.6, 1.0):
        y = ddim(eta)(x, Estimate(x0), at, to, None, randn)
        assert (y - to.alpha * x0).std(0).tolist() == pytest.approx([to.sigma.item()] * 2, rel=5 / (2 * n) ** 0.5)


def test_2m_is_exact_where_x0_is_linear_in_lambda(rng):
    """The second order term: were x0 = c + d lambda, the exact solution over a step is known (DPM-Solver++, eq. 9)."""
    was, at, to = (COSINE[i] for i in (740, 690, 680))  # uneven: r is far from 1
    lam = [(row.alpha / row.sigma).log() for row in (was, at, to)]
    c, d, x = torch.randn(3, 4, generator=rng, dtype=torch.float64)
    got = dpmpp_2m(x, Estimate(c + d * lam[1]), at, to, ((was, Estimate(c + d * lam[0]), x),), silent)
    u = torch.linspace(lam[1], lam[2], 20001, dtype=torch.float64)  # sigma_to * integral of e^u x0(u) du
    integral = torch.trapezoid(u.exp() * (c[:, None] + d[:, None] * u), u)
    want = to.sigma / at.sigma * x + to.sigma * integral
    h = lam[2] - lam[1]
    assert ((got - want).abs() < d.abs() * h**3).all()  # local error of third order
    assert ((move(x, c + d * lam[1], at, to) - want).abs() > d.abs() * h**3).all()  # which `move` alone is not


@pytest.mark.parametrize("step", [ddim(), dpmpp_2m, unipc], ids=["ddim", "dpmpp_2m", "unipc"])
def test_deterministic_steps_draw_nothing(mixture, step):
    assert len(list(walk(mixture, torch.ones(2, 2).double(), COSINE.spaced([1, 10, 100]).down(), step, silent))) == 3


@each_step
def test_the_last_step_draws_nothing_and_gives_the_estimate(mixture, step):
    x = torch.ones(2, 2).double()
    ((x, est),) = walk(mixture, x, COSINE.spaced([50]).down(), step, silent)
    torch.testing.assert_close(x, est.x0)


@each_step
def test_float32_sampling_is_finite_and_close_to_float64(mixture, step):
    levels, ends = Levels.from_betas(linear(1000)).spaced(spread(1000, 50)), []
    for dtype in (torch.float32, torch.float64):
        draw = Draw(range(8), "a")
        with torch.inference_mode():
            denoise = lambda x, at: mixture(x.double(), at).each(lambda v: v.to(dtype))  # noqa: B023, E731
            ends.append(end(walk(Clip(denoise, -3, 3), draw((2,)).to(dtype), levels.down(), step, draw.like)))
    assert ends[0].dtype == torch.float32
    torch.testing.assert_close(ends[0].double(), ends[1], atol=1e-4, rtol=1e-4)


def test_guided_last_step_spends_the_floor(mixture):
    """Trap: OpenAI's code multiplies the last gradient by the unclipped small variance, 0, and so loses it. Here it is
    the floor's share that is spent, the same for "small" as for a learned variance that asks for the least."""
    levels, x = COSINE.spaced([10, 20]), torch.ones(1, 2).double()
    at, to = levels[1], levels[0]
    for frac in (0.0, torch.zeros(1, 2).double()):
        est = Estimate(0.5 * x, frac, grad=x)
        torch.testing.assert_close(ddpm(x, est, at, to, None, silent), 0.5 * x + levels.floor * x)
    assert levels.floor == posterior_variance(levels[2], levels[1])[0]


@pytest.mark.parametrize(
    ("step", "count"), [(ddim(), 200), (dpmpp_2m, 100), (ddpm, 500)], ids=["ddim", "dpmpp_2m", "ddpm"]
)
@pytest.mark.parametrize("through", [False, True], ids=["noised", "through"])
def test_exact_guidance_samples_the_posterior(gaussian, randn, step, count, through):
    """Data N(m, s^2) seen as y = x0 + N(0, r^2): guided by the exact p(y | x_t), sampling gives the exact posterior."""
    y, r, s, m = 1.0, 0.4, gaussian.std.item(), gaussian.mean[0]

    def log_prob(v, at):
        x0 = v if through else gaussian(v, at).x0
        var = 1 / (1 / s**2 + (at.alpha / at.sigma) ** 2) + r**2  # of y given x_t
        return -(y - x0).square().sum(1) / (2 * var)

    n, levels = 4000, COSINE.spaced(spread(1000, count))
    x = randn(torch.empty(n, 2, dtype=torch.float64))
    x = end(walk(Guide(gaussian, log_prob, through=through), x, levels.down(), step, randn))
    var = 1 / (1 / s**2 + 1 / r**2)
    assert x.mean(0).tolist() == pytest.approx((var * (m / s**2 + y / r**2)).tolist(), abs=5 * (var / n) ** 0.5)
    assert x.var(0).tolist() == pytest.approx([var] * 2, rel=5 * (2 / n) ** 0.5)


@each_step
@pytest.mark.parametrize("variance", ["small", "learned"])
def test_everything_follows_x_to_its_device(step, variance):
    """On the meta device, which like a GPU refuses to meet any tensor of the CPU but a scalar."""
    net = lambda x, t: torch.cat([x, x], 1) if variance == "learned" else x * t.reshape(-1, 1)  # noqa: E731
    plain = Denoiser(net, "v", variance)
    levels, x, draw = COSINE.spaced([10, 500, 1000]), torch.empty(2, 3, device="meta"), Draw([0, 1], "a")
    denoise = Guide(Clip(Threshold(CFG(plain, 2.0))), lambda x, at: (x * at.t[:, None]).sum(1))
    assert end(walk(denoise, x, levels.down(), step, draw.like)).device.type == "meta"
    assert vlb(plain, x, levels, draw.like).shape == (2,)
    i = torch.tensor([1, 3])
    assert plain.loss(x, levels[i], levels[i - 1], x).device.type == "meta"


def test_previews_come_free(mixture):
    """A walk is lazy: a frame costs one call of the denoiser, and its estimate is the one the step was made from."""
    x, calls = torch.ones(4, 2).double(), []
    levels = COSINE.spaced([10, 500, 1000])
    frames = walk(lambda x, at: calls.append(at) or mixture(x, at), x, levels.down(), ddim())
    y, est = next(frames)
    assert len(calls) == 1
    assert torch.equal(est.x0, mixture(x, levels[3]).x0)
    assert torch.equal(y, move(x, est.x0, levels[3], levels[2]))
    assert len(list(frames)) == 2
