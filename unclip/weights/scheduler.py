"""How a folder of diffusers says that a network be sampled: scheduler_config.json, of DDIM or DDPM."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Estimate
from unclip.diffusion.guidance import squeezed
from unclip.diffusion.levels import Levels, mix, spread, strides
from unclip.diffusion.samplers import Past, Randn, ddpm, move
from unclip.errors import UnclipError
from unclip.weights.config import from_dict

SAMPLERS = {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm"}
FRACTIONS = {"fixed_small": 0.0, "fixed_small_log": 0.0, "fixed_large": 1.0}  # of the log-variance's range
# What the published schedulers leave as it is, and so is not followed here: its one value.
FIXED = {"beta_schedule": "linear", "prediction_type": "epsilon", "trained_betas": None,
         "rescale_betas_zero_snr": False}  # fmt: skip


@dataclass(frozen=True)
class Scheduler:
    sampler: str = "ddim"
    betas: tuple[float, ...] = (0.00085, 0.012)
    spacing: str = "leading"  # "leading": whole strides, from the first level up; "linspace" and "trailing" too
    offset: int = 0  # of leading steps
    to_data: bool = True  # the last step ends at x0, not at the first noisy level
    variance: str = "learned_range"
    reach: float | None = None  # estimates of x0 are kept within it
    quantile: float | None = None  # they are squeezed by dynamic thresholding instead, which is to reach …
    most: float = 1.0  # … no further than this

    @classmethod
    def of(cls, said: Mapping[str, Any], where: str) -> "Scheduler":
        """From the content of scheduler_config.json; what it leaves out has the default of diffusers."""
        kind = said.get("_class_name")
        if kind not in SAMPLERS:
            raise UnclipError(f"{where} names the scheduler {kind!r}; followed are {' and '.join(SAMPLERS)}")
        for name, value in FIXED.items():
            if said.get(name, value) != value:
                raise UnclipError(f"{where} has {name} {said[name]!r}; only {value!r} is followed")
        variance = said.get("variance_type", "fixed_small")
        spacing = said.get("timestep_spacing", "leading")
        for name, value, known in (("variance_type", variance, (*FRACTIONS, "learned_range")),
                                   ("timestep_spacing", spacing, ("leading", "linspace", "trailing"))):  # fmt: skip
            if value not in known:
                raise UnclipError(f"{where} has {name} {value!r}; followed are {', '.join(known)}")
        return from_dict(cls, {
            "sampler": SAMPLERS[kind], "betas": [said.get("beta_start", 1e-4), said.get("beta_end", 0.02)],
            "spacing": spacing, "offset": said.get("steps_offset", 0), "variance": variance,
            "to_data": kind == "DDPMScheduler" or said.get("set_alpha_to_one", True),
            "reach": said.get("clip_sample_range", 1.0) if said.get("clip_sample", True) else None,
            "quantile": said.get("dynamic_thresholding_ratio", 0.995) if said.get("thresholding", False) else None,
            "most": said.get("sample_max_value", 1.0),
        }, where)  # fmt: skip

    def levels(self, T: int, steps: int) -> Levels:
        """The chain to sample along, worked out in single precision as there: near data that tells."""
        if self.spacing == "leading":
            rows = [1 + self.offset + i * (T // steps) for i in range(steps)]
        else:
            rows = (spread if self.spacing == "linspace" else strides)(T, steps)
        first, last = self.betas
        abar = torch.cat([torch.ones(1), (1 - torch.linspace(first, last, T)).cumprod(0)])
        levels = replace(Levels.of(abar.double(), torch.arange(T + 1) - 1), single=True)
        return levels.spaced(rows) if self.to_data else levels[torch.tensor([1, *rows])]

    def bound(self, x0: Tensor) -> Tensor:
        if self.quantile is not None:
            return squeezed(x0, self.quantile, self.most)
        return x0 if self.reach is None else x0.clamp(-self.reach, self.reach)

    def step(self, x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        """A sampler's step. DDIM's keeps eps as it was estimated when it bounds x0."""
        x0 = self.bound(est.x0)
        if self.sampler == "ddim":
            return move(x, est.x0, at, to) + mix((to.alpha, x0 - est.x0))
        frac = FRACTIONS.get(self.variance, est.frac)
        return ddpm(x, replace(est, x0=x0, frac=frac), at, to, past, randn)
