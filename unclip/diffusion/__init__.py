"""Gaussian diffusion, written once: levels (the schedule), a denoiser (an estimate of x0), samplers (how to step)."""

from unclip.diffusion.denoiser import PREDICTS, Denoise, Denoiser, Estimate, capped, min_snr, uniform
from unclip.diffusion.draw import Draw, white
from unclip.diffusion.guidance import CFG, Clip, Guide, Threshold
from unclip.diffusion.levels import Levels, cosine, linear, mix, posterior_mean, posterior_variance, spread
from unclip.diffusion.likelihood import bits, decoder_nll, prior_bits, vlb
from unclip.diffusion.samplers import analytic, ddim, ddpm, dpmpp_2m, move, renoise, walk

__all__ = [
    "CFG", "PREDICTS", "Clip", "Denoise", "Denoiser", "Draw", "Estimate", "Guide", "Levels", "Threshold",
    "analytic", "bits", "capped", "cosine", "ddim", "ddpm", "decoder_nll", "dpmpp_2m", "linear", "min_snr", "mix",
    "move", "posterior_mean", "posterior_variance", "prior_bits", "renoise", "spread", "uniform", "vlb", "walk",
    "white",
]  # fmt: skip
