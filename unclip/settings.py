"""What may be asked of the pipeline, checked before anything is loaded, and what it tells and gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from unclip.errors import UnclipError
from unclip.weights.config import from_dict, unknown

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SAMPLERS = ("ddim", "dpmpp_2m", "unipc", "ddpm", "dpmpp_sde", "plms", "renoise")
CHOICES = {"prior": ("diffusion", "ar", "none"), "prior_sampler": (*SAMPLERS, "analytic"), "sampler": SAMPLERS,
           "spacing": ("even", "karras")}  # fmt: skip
LONGEST = 4000  # characters of a prompt: with its metadata it fits every picture format
DIFFUSERS = {"num_inference_steps": "steps", "guidance_scale": "guidance", "decoder_num_inference_steps": "steps",
             "decoder_guidance_scale": "guidance", "prior_num_inference_steps": "prior_steps",
             "prior_guidance_scale": "prior_guidance", "super_res_num_inference_steps": "upsampler_steps"}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled. Steps are network calls of each stage; a guidance of 1 is none."""

    size: int | None = None  # pixels a side; None is what the first upsampler draws, if there is one
    steps: int = 25
    guidance: float = 2.0
    prior_steps: int = 25
    prior_guidance: float = 3.0
    upsampler_steps: int = 8  # 64 → 256
    upsampler_1024_steps: int = 4  # 256 → 1024
    fast: int = 0  # few-step students draw in so many calls a stage, guidance within; 0 is none of them
    tile: int | None = None  # upsamplers see at most so many pixels a side at once: less memory, more time
    best_of: int = 2  # candidates for z_i; the one nearest to z_t is decoded (section 2.2)
    sampler: str = "ddim"
    spacing: str = "even"  # of the decoder's steps
    guidance_z: float | None = None  # of z_i alone; `guidance` is then that of the caption
    guidance_start: float = 0.0  # guided from this share of the decoder's way from noise to picture …
    guidance_stop: float = 1.0  # … to this
    clip_guidance: float = 0.0  # pull of a noised CLIP on the decoder, where the weights have one (GLIDE, section 2.4)
    guidance_rescale: float = 0.0  # share of the contrast added by guidance that is taken back
    threshold: float | None = None  # dynamic thresholding at this quantile; None clips at the picture's range
    prior: str = "diffusion"  # none decodes z_t as if it were z_i
    prior_sampler: str = "ddim"  # of the diffusion prior: it measured best (docs/training.md)
    noise_level: int = 0  # of z_i before a decoder that was trained for it sees it: Stable unCLIP's
    hint: str | None = None  # file of a picture that leads the decoder, where it was trained for one: Kandinsky's depth
    temperature: float = 1.0  # of the autoregressive prior, as top_p
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 1000), ("prior_steps", 1, 1000), ("upsampler_steps", 1, 1000),
            ("upsampler_1024_steps", 1, 1000), ("best_of", 1, 64), ("guidance", 0, 100), ("prior_guidance", 0, 100),
            ("fast", 0, 1000), ("tile", 16, 4096), ("guidance_z", 0, 100), ("clip_guidance", 0, 100),
            ("noise_level", 0, 10_000),
            ("guidance_start", 0, 1), ("guidance_stop", 0, 1),
            ("guidance_rescale", 0, 1), ("threshold", 0, 1), ("temperature", 0.01, 10), ("top_p", 0.01, 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UnclipError(f"{name} is {value}; it must be from {low} to {high}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(getattr(self, name), list(choices), name)
        if self.guidance_start > self.guidance_stop:
            raise UnclipError(f"guidance_start, {self.guidance_start}, is after guidance_stop, {self.guidance_stop}")

    def steering(self, T: int) -> dict[str, Any]:
        """What `steered` is told of a decoder's guidance, scales apart; its network was trained on T levels."""
        times = T * (1 - self.guidance_stop), T * (1 - self.guidance_start)
        interval = None if (self.guidance_start, self.guidance_stop) == (0, 1) else times
        return {"rescale": self.guidance_rescale, "interval": interval}


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step: picture number `image`, and the estimate of it so far."""

    stage: str
    image: int
    step: int
    steps: int
    estimate: Tensor  # x0: [3, H, W] in [−1, 1], or [C, h, w] where the decoder draws latents; [D] for the prior


Callback = Callable[[Progress], object]


@dataclass
class Generated:
    """Pictures, the seed and prompt of each, their embeddings z_i [N, D], and the settings used."""

    images: list[Image.Image]
    seeds: list[int]
    prompts: list[str]
    embeddings: Tensor
    params: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One call of `generate`, checked: picture i shows `prompts[i]` and is drawn from `seeds[i]`."""

    prompts: list[str]
    seeds: list[int]
    negative: str = ""
    settings: Settings = field(default_factory=Settings)
    callback: Callback | None = None

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[str],
        n: int = 1,
        seed: int = 0,
        negative: str | None = None,
        callback: Callback | None = None,
        keywords: dict[str, Any] | None = None,
    ) -> Request:
        """`n` pictures of each prompt from seed, seed + 1, …; keywords: fields of `Settings`, or diffusers' names."""
        given = {DIFFUSERS.get(k, k): v for k, v in (keywords or {}).items()}
        n, generator = given.pop("num_images_per_prompt", n), given.pop("generator", None)
        if after := given.pop("callback_on_step_end", None):
            callback = callback or (lambda p: after(None, p.step - 1, p.steps - p.step, {"latents": p.estimate}))
        given |= {"hint": os.fspath(given["hint"])} if isinstance(given.get("hint"), os.PathLike) else {}
        known = [f.name for f in fields(Settings)]
        for name in given:
            if name not in known:
                raise unknown(name, [*known, *DIFFUSERS, "generator", "num_images_per_prompt"], "setting")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        for text in [*prompts, negative or ""]:
            check_text(text)
        if not prompts or not all(text.strip() for text in prompts):
            raise UnclipError("the prompt is empty; say what the picture should show")
        check_whole("n", n, 1, 10_000)
        count = n * len(prompts)
        if generator is None:
            check_whole("seed", seed, 0, 2**63 - count)
            seeds = [seed + i for i in range(count)]
        else:
            seeds = [g.initial_seed() for g in (generator if isinstance(generator, (list, tuple)) else [generator])]
            seeds = [seeds[0] + i for i in range(count)] if len(seeds) == 1 else seeds
        if len(seeds) != count:
            raise UnclipError(f"{len(seeds)} generators for {count} pictures; give one, or one for each")
        jobs = [text for text in prompts for _ in range(n)]
        return cls(jobs, seeds, (negative or "").strip(), from_dict(Settings, given), callback)

    @property
    def params(self) -> dict[str, Any]:
        return asdict(self.settings) | {"negative_prompt": self.negative}


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UnclipError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")


def check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise UnclipError(f"the prompt is {text!r}; it must be text")
    if len(text) > LONGEST:
        raise UnclipError(f"the prompt has {len(text)} characters; at most {LONGEST} are taken, a few dozen are seen")
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise UnclipError(f"the prompt is no valid Unicode text at character {e.start}; write it in UTF-8") from e


class Reporter:
    """Tells the callback and the progress bar, on stderr, of every step."""

    def __init__(self, callback: Callback | None, progress: bool, images: int, steps: int):
        from tqdm import tqdm

        self.callback, self.images = callback, images
        self.bar = tqdm(total=images * steps, disable=not progress, unit="step", leave=False)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def __call__(self, image: int, stage: str, step: int, steps: int, estimate: Tensor) -> None:
        which = f"{image + 1}/{self.images} " if self.images > 1 else ""
        self.bar.set_description_str(which + stage, refresh=False)
        self.bar.update()
        if self.callback:
            self.callback(Progress(stage, image, step, steps, estimate[0]))
