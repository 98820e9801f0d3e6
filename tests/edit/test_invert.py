"""Inversion: a round trip on an exact denoiser, where the published way errs and more calls do not."""

import pytest
import torch

from unclip.diffusion import Estimate, Levels, ddim, walk
from unclip.diffusion.levels import cosine, spread
from unclip.edit.invert import Latents, up
from unclip.errors import UnclipError


class Gaussians:
    """E[x0 | x_t] of a mixture of two Gaussians of standard deviation 0.3 around ±mean [1, D], elementwise weights."""

    def __init__(self, mean):
        self.mean = mean

    def __call__(self, x, at):
        var = (at.alpha * 0.3) ** 2 + at.sigma**2
        pull = (at.alpha * (x * self.mean).sum(1, keepdim=True) / var).tanh()
        centre = pull * self.mean
        return Estimate(centre + at.alpha * 0.09 / var * (x - at.alpha * centre))


@pytest.fixture
def denoise():
    return Gaussians(torch.tensor([[1.0, -0.5, 0.25, 0.0]], dtype=torch.float64))


def chain(steps: int) -> Levels:
    return Levels.from_betas(cosine(1000)).spaced(spread(1000, steps))


def trip(denoise, x, steps, calls):
    levels = chain(steps)
    *_, (x_T, _) = up(denoise, x, levels, calls)
    *_, (back, _) = walk(denoise, x_T, list(levels.down())[:-1], ddim())
    return x_T, (back - x).abs().max().item()


def test_more_calls_bring_the_picture_back(denoise, rng):
    x = 0.3 * torch.randn(6, 4, generator=rng, dtype=torch.float64) + denoise.mean
    plain, solved, more = (trip(denoise, x, 20, calls)[1] for calls in (1, 4, 8))
    assert plain > 1e-2
    assert solved < 2e-3
    assert more < 1e-6


def test_the_published_way_gets_better_with_steps(denoise, rng):
    x = 0.3 * torch.randn(6, 4, generator=rng, dtype=torch.float64) + denoise.mean
    errors = [trip(denoise, x, steps, 1)[1] for steps in (20, 80, 320)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_many_steps_lead_to_the_same_noise_either_way(denoise, rng):
    x = 0.3 * torch.randn(6, 4, generator=rng, dtype=torch.float64) + denoise.mean
    torch.testing.assert_close(trip(denoise, x, 200, 1)[0], trip(denoise, x, 200, 3)[0], atol=0.05, rtol=0.05)


def test_x_T_of_data_is_standard_noise(rng):
    denoise = Gaussians(torch.zeros(1, 4, dtype=torch.float64))  # data N(0, 0.09): x_T = x / 0.3
    x = 0.3 * torch.randn(500, 4, generator=rng, dtype=torch.float64)
    x_T, _ = trip(denoise, x, 100, 4)
    torch.testing.assert_close(x_T, x / 0.3, atol=0.05, rtol=0.05)


def test_a_pair_is_kept_in_a_file(tmp_path, rng):
    pair = Latents(torch.randn(1, 8, generator=rng), torch.randn(1, 3, 4, 4, generator=rng))
    pair.save(tmp_path / "x.safetensors")
    again = Latents.load(tmp_path / "x.safetensors")
    assert torch.equal(again.z_i, pair.z_i)
    assert torch.equal(again.x_T, pair.x_T)
    (tmp_path / "y.safetensors").write_bytes(b"no tensors")
    for name in ("y", "absent"):
        with pytest.raises(UnclipError, match="holds no z_i and x_T"):
            Latents.load(tmp_path / f"{name}.safetensors")

