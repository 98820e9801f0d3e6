"""How a folder of diffusers says that a network be sampled: scheduler_config.json."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Estimate
from unclip.diffusion.guidance import squeezed
from unclip.diffusion.levels import Levels, cosine, linear, mix, scaled, spread, strides
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import Past, Randn, Step, ddpm, dpmpp_2m, dpmpp_sde, move, plms, twice, unipc
from unclip.errors import UnclipError
from unclip.weights.config import from_dict

SAMPLERS = {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm", "PNDMScheduler": "plms", "UnCLIPScheduler": "ddpm",
            "DPMSolverMultistepScheduler": "dpmpp_2m", "UniPCMultistepScheduler": "unipc"}  # fmt: skip
UNBOUND: dict[str, Step] = {"dpmpp_2m": dpmpp_2m, "dpmpp_sde": dpmpp_sde, "unipc": unipc}  # they bound no estimate
FRACTIONS = {"fixed_small": 0.0, "fixed_small_log": 0.0, "fixed_large": 1.0}  # of the log-variance's range
# What is followed of each setting, and what it is here.
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled", "squaredcos_cap_v2": "cosine"}
PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SPACINGS = {name: name for name in ("leading", "linspace", "trailing")}
VARIANCES = {name: name for name in (*FRACTIONS, "learned_range")}
# What the published schedulers leave as it is, and so is not followed here: its one value.
FIXED = {"trained_betas": None, "rescale_betas_zero_snr": False, "use_karras_sigmas": False}


@dataclass(frozen=True)
class Scheduler:
    sampler: Literal["ddim", "ddpm", "plms", "dpmpp_2m", "dpmpp_sde", "unipc"] = "ddim"
    schedule: Literal["linear", "scaled", "cosine"] = "linear"
    T: int = 1000
    predicts: Literal["eps", "x0", "v"] = "eps"
    betas: tuple[float, ...] = (0.00085, 0.012)
    spacing: Literal["leading", "linspace", "trailing"] = "leading"  # leading: whole strides, from the first level up
    offset: int = 0  # of leading steps
    to_data: bool = True  # the last step ends at x0, not at the first noisy level
    variance: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] = "learned_range"
    reach: float | None = None  # estimates of x0 are kept within it
    quantile: float | None = None  # they are squeezed by dynamic thresholding instead, which is to reach …
    most: float = 1.0  # … no further than this

    @classmethod
    def of(cls, said: Mapping[str, Any], where: str) -> "Scheduler":
        """From the content of scheduler_config.json; what it leaves out has the default of diffusers.

        Raises UnclipError for what cannot be followed; warns where DDIM takes the place of a sampler not known here.
        """
        kind = said.get("_class_name")
        sampler, own = SAMPLERS.get(str(kind), "ddim"), kind == "UnCLIPScheduler"
        for name, value in FIXED.items():
            if said.get(name, value) != value:
                raise UnclipError(f"{where} has {name} {said[name]!r}; only {value!r} is followed")

        def known(name: str, usual: str, values: Mapping[str, str]) -> str:
            value = said.get(name, usual)
            if not isinstance(value, str) or value not in values:
                raise UnclipError(f"{where} has {name} {value!r}; followed are {', '.join(values)}")
            return values[value]

        if kind not in SAMPLERS:
            warnings.warn(f"{where} names the scheduler {kind!r}, which is not known here; DDIM is used", stacklevel=2)
        if sampler == "plms" and not said.get("skip_prk_steps", False):
            warnings.warn(f"{where} begins by Runge-Kutta steps, not known here; linear multisteps are used alone",
                          stacklevel=2)  # fmt: skip
        noisy = sampler == "dpmpp_2m" and str(said.get("algorithm_type")).startswith("sde")
        bounds = kind in ("DDIMScheduler", "DDPMScheduler", "UnCLIPScheduler")
        return from_dict(cls, {
            "sampler": "dpmpp_sde" if noisy else sampler, "T": said.get("num_train_timesteps", 1000),
            "schedule": known("beta_schedule", "squaredcos_cap_v2" if own else "linear", SCHEDULES),
            "predicts": known("prediction_type", "epsilon", PREDICTS),
            "betas": [said.get("beta_start", 1e-4), said.get("beta_end", 0.02)],
            "spacing": known("timestep_spacing", "linspace" if own or sampler in UNBOUND else "leading", SPACINGS),
            "offset": said.get("steps_offset", 0),
            "to_data": sampler not in ("ddim", "plms") or said.get("set_alpha_to_one", sampler == "ddim"),
            "variance": known("variance_type", "fixed_small", VARIANCES) if sampler == "ddpm" else "fixed_small",
            "reach": said.get("clip_sample_range", 1.0) if bounds and said.get("clip_sample", True) else None,
            "quantile": said.get("dynamic_thresholding_ratio", 0.995) if said.get("thresholding", False) else None,
            "most": said.get("sample_max_value", 1.0),
        }, where)  # fmt: skip

    @property
    def said(self) -> dict[str, Any]:
        """The content of scheduler_config.json that `of` makes this of."""
        kind = "dpmpp_2m" if self.sampler == "dpmpp_sde" else self.sampler
        bounds = {"clip_sample": False, "clip_sample_range": 1.0}
        if self.reach is not None:
            bounds = {"clip_sample": True, "clip_sample_range": self.reach}
        own: dict[str, dict[str, Any]] = {
            "ddim": {"set_alpha_to_one": self.to_data, **bounds}, "ddpm": {"variance_type": self.variance, **bounds},
            "plms": {"set_alpha_to_one": self.to_data, "skip_prk_steps": True},
            "dpmpp_2m": {"algorithm_type": "dpmsolver++" if kind == self.sampler else "sde-dpmsolver++"},
        }  # fmt: skip
        return {
            "_class_name": {name: theirs for theirs, name in SAMPLERS.items() if theirs != "UnCLIPScheduler"}[kind],
            "num_train_timesteps": self.T, "beta_start": self.betas[0], "beta_end": self.betas[1],
            "beta_schedule": {name: theirs for theirs, name in SCHEDULES.items()}[self.schedule],
            "prediction_type": {name: theirs for theirs, name in PREDICTS.items()}[self.predicts],
            "timestep_spacing": self.spacing, "steps_offset": self.offset, "thresholding": self.quantile is not None,
            **({} if self.quantile is None else {"dynamic_thresholding_ratio": self.quantile}),
            "sample_max_value": self.most, **own.get(kind, {}),
        }  # fmt: skip

    @property
    def process(self) -> Process:
        return Process(self.schedule, self.T, self.predicts, betas=self.ends(self.T))

    def ends(self, T: int) -> tuple[float, ...]:
        """The betas as our schedules take them: those of the linear one are given for 1000 steps, whatever T is."""
        return tuple(beta * T / 1000 for beta in self.betas) if self.schedule == "linear" else self.betas

    def levels(self, T: int, steps: int) -> Levels:
        """The chain to sample along, worked out in single precision as there: near data that tells."""
        if self.spacing == "leading":
            rows = [1 + self.offset + i * (T // max(1, steps)) for i in range(steps)]
        elif self.spacing == "linspace":
            rows = spread(T, steps + 1)[1:] if self.sampler in UNBOUND else spread(T, steps)
        else:
            rows = strides(T, steps)
        if not 1 <= steps <= T or rows[0] < 1 or rows[-1] > T:
            raise UnclipError(f"{steps} steps do not fit a chain of {T}; ask for 1 or more, and fewer than {T}")
        betas = cosine(T) if self.schedule == "cosine" else SHAPES[self.schedule](T, *self.ends(T))
        abar = torch.cat([torch.ones(1), (1 - betas.float()).cumprod(0)])
        levels = replace(Levels.of(abar.double(), torch.arange(T + 1) - 1), single=True)
        levels = levels.spaced(rows) if self.to_data else levels[torch.tensor([1, *rows])]
        return twice(levels) if self.sampler == "plms" else levels

    def bound(self, x0: Tensor) -> Tensor:
        if self.quantile is not None:
            return squeezed(x0, self.quantile, self.most)
        return x0 if self.reach is None else x0.clamp(-self.reach, self.reach)

    def step(self, x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        """A sampler's step. DDIM's keeps eps as it was estimated when it bounds x0."""
        if self.sampler == "plms":
            return plms(self.predicts)(x, est, at, to, past, randn)
        if self.sampler in UNBOUND:
            return UNBOUND[self.sampler](x, est, at, to, past, randn)
        x0 = self.bound(est.x0)
        if self.sampler == "ddim":
            return move(x, est.x0, at, to) + mix((to.alpha, x0 - est.x0))
        frac = FRACTIONS.get(self.variance, est.frac)
        return ddpm(x, replace(est, x0=x0, frac=frac), at, to, past, randn)


SHAPES = {"linear": linear, "scaled": scaled}
