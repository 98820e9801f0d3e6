"""Gaussian diffusion, written once: levels (the schedule), a denoiser (an estimate of x0), samplers (how to step)."""

from unclip.diffusion.denoiser import PREDICTS, Denoise, Denoiser, Estimate, capped, min_snr, simple, uniform
from unclip.diffusion.distill import landing, shortcut
from unclip.diffusion.draw import Draw, white
from unclip.diffusion.guidance import (
    CFG,
    Clip,
    Guide,
    Interval,
    Rescale,
    Threshold,
    Unguided,
    classified,
    resembling,
    steered,
)
from unclip.diffusion.levels import (
    Levels,
    cosine,
    hops,
    karras,
    linear,
    mix,
    posterior_mean,
    posterior_variance,
    spread,
    strides,
)  # fmt: skip
from unclip.diffusion.likelihood import bits, decoder_nll, prior_bits, vlb
from unclip.diffusion.samplers import analytic, ddim, ddpm, dpmpp_2m, dpmpp_sde, move, plms, renoise, unipc, walk

__all__ = [
    "CFG", "PREDICTS", "Clip", "Denoise", "Denoiser", "Draw", "Estimate", "Guide", "Interval", "Levels", "Rescale",
    "Threshold", "Unguided", "analytic", "bits", "capped", "classified", "cosine", "ddim", "ddpm", "decoder_nll",
    "dpmpp_2m", "dpmpp_sde", "hops", "karras", "landing", "linear", "min_snr", "mix", "move", "plms", "posterior_mean",
    "posterior_variance", "prior_bits", "renoise", "resembling", "shortcut", "simple", "spread", "steered", "strides",
    "uniform", "unipc", "vlb", "walk", "white",
]  # fmt: skip
