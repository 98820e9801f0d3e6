"""DALL·E 2 (Ramesh et al. 2022, 2204.06125) from end to end. Read this file first.

    caption ──tokenizer, CLIP──▶ z_t ──prior──▶ z_i ──decoder──▶ 64 px ──upsampler──▶ 256 px

P(x | y) = P(x | z_i, y) · P(z_i | y): the prior draws a CLIP picture embedding z_i that goes with the caption y, the
decoder draws a picture that has this embedding, the upsampler enlarges it. All three are Gaussian diffusion models:
a `Levels` table, a network as `Denoiser`, guidance around it, a sampler's step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import CFG, Clip
from unclip.diffusion.levels import spread
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import Step, ddim, ddpm, dpmpp_2m, walk
from unclip.errors import UnclipError
from unclip.machine import best_device, keep_buffers
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.pictures import to_pil
from unclip.weights import hub
from unclip.weights.checkpoint import load_module, read_json, save_module
from unclip.weights.config import from_dict, unknown

SAMPLERS: dict[str, Step] = {"ddim": ddim(), "dpmpp_2m": dpmpp_2m, "ddpm": ddpm}
PARTS = {"clip": (CLIPConfig, CLIP), "prior": (PriorConfig, Prior), "decoder": (DecoderConfig, Decoder),
         "upsampler_256": (UpsamplerConfig, Upsampler)}  # fmt: skip
TOKENIZER = Path("tokenizer") / "tokenizer.json"


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled. Steps are network calls of each stage; a guidance of 1 is none."""

    size: int = 256
    steps: int = 25
    guidance: float = 3.0
    prior_steps: int = 25
    prior_guidance: float = 2.0
    upsampler_steps: int = 8
    best_of: int = 2  # candidates for z_i; the one nearest to z_t is decoded (section 2.2)
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        for name in ("steps", "prior_steps", "upsampler_steps"):
            if not 1 <= getattr(self, name) <= 1000:
                raise UnclipError(f"{name} is {getattr(self, name)}; it must be from 1 to 1000")
        for name in ("guidance", "prior_guidance"):
            if not 0 <= getattr(self, name) <= 100:
                raise UnclipError(f"{name} is {getattr(self, name)}; it must be from 0 to 100")
        if not 1 <= self.best_of <= 64:
            raise UnclipError(f"best_of is {self.best_of}; it must be from 1 to 64")
        if self.sampler not in SAMPLERS:
            raise UnclipError(f"no sampler is called {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step: picture number `image`, and the estimate of it so far."""

    stage: str
    image: int
    step: int
    steps: int
    estimate: Tensor  # x0: [C, H, W] in [−1, 1], or [D] for the prior


@dataclass
class Generated:
    """Pictures (PIL), the seed and prompt of each, their embeddings z_i [N, D], and the settings used."""

    images: list[Any] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    embeddings: Tensor = field(default_factory=lambda: torch.empty(0))
    params: dict[str, Any] = field(default_factory=dict)


class UnCLIP:
    """The whole system. `UnCLIP.from_pretrained("mini").generate("a red fox").images[0]`"""

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: Decoder, upsampler: Upsampler | None,
                 name: str = "unnamed"):  # fmt: skip
        spaces = {"clip": clip.config.embed, "prior": prior.config.embed, "decoder": decoder.config.embed}
        if len(set(spaces.values())) > 1:
            raise UnclipError(f"these parts have different embedding spaces: {spaces}; use parts trained on one CLIP")
        self.tokenizer, self.name = tokenizer, name
        self.clip, self.prior, self.decoder, self.upsampler = clip, prior, decoder, upsampler
        self.device, self.dtype = torch.device("cpu"), torch.float32

    # ---- from the caption to the picture ---------------------------------------------------------------------

    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Captions → tokens [B, L], encoded text [B, L, width] and unit z_t [B, D]."""
        tokens, _ = self.tokenizer.encode(list(prompts), self.clip.config.context)
        tokens = tokens.to(self.device)
        return tokens, *self.clip.encode_text(tokens)

    def sample_prior(self, prompt: str, negative: str, draw: Draw, s: Settings, tell: "Tell") -> Tensor:
        """A caption → unit z_i [B, D], one for each generator of `draw`: the best of `best_of` candidates."""
        n = len(draw.generators) * s.best_of
        tokens, text, z_t = self.read([negative, prompt])
        absent = torch.tensor([not negative, False], device=self.device)
        given = self.prior.condition(*(v.repeat_interleave(n, 0) for v in (text, z_t, tokens != 0, absent)))
        process = self.prior.config.diffusion
        denoise = Clip(CFG(process.denoiser(self.prior), s.prior_guidance), -5, 5)
        noises = Several(draw, s.best_of)
        x = noises((self.prior.config.embed,)).to(self.device)
        for x in self.sampled(denoise, x, process, s.prior_steps, ddpm, noises.like, tell, given):
            pass
        candidates = F.normalize(x, dim=-1).unflatten(0, (-1, s.best_of))
        best = (candidates @ z_t[1]).argmax(dim=1)
        return candidates[torch.arange(len(best)), best]

    def decode(self, z_i: Tensor, prompt: str, negative: str, draw: Draw, s: Settings, tell: "Tell") -> Tensor:
        """unit z_i [B, D] and its caption → pictures [B, 3, 64, 64] in [−1, 1]."""
        n = len(z_i)
        tokens, _ = self.tokenizer.encode([negative, prompt], self.decoder.config.context)
        absent = torch.arange(2 * n, device=self.device) < n
        given = self.decoder.condition(
            z_i.repeat(2, 1), tokens.to(self.device).repeat_interleave(n, 0), absent, absent & (not negative)
        )
        process = self.decoder.config.diffusion
        denoise = Clip(CFG(process.denoiser(self.decoder), s.guidance))
        x = draw((3, self.decoder.config.size, self.decoder.config.size)).to(self.device)
        for x in self.sampled(denoise, x, process, s.steps, SAMPLERS[s.sampler], draw.like, tell, given):
            pass
        return x

    def upsample(self, low: Tensor, draw: Draw, s: Settings, tell: "Tell") -> Tensor:
        """pictures [B, 3, 64, 64] → [B, 3, 256, 256], both in [−1, 1]."""
        assert self.upsampler is not None
        process, given = self.upsampler.config.diffusion, self.upsampler.condition(low)
        denoise = Clip(process.denoiser(self.upsampler))
        x = draw(given.shape[1:]).to(self.device)
        for x in self.sampled(denoise, x, process, s.upsampler_steps, ddim(), draw.like, tell, given):
            pass
        return x

    def sampled(self, denoise, x: Tensor, process: Process, steps: int, step: Step, randn, tell: "Tell",
                given: object) -> Iterator[Tensor]:  # fmt: skip
        """Walk from noise to data in `steps` evenly spread steps."""
        levels = process.levels().spaced(spread(process.T, steps))
        if x.ndim == 4:
            x = x.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for i, (x, estimate) in enumerate(walk(denoise, x, levels.down(), step, randn, given=given), 1):
                tell(i, steps, estimate.x0)
                yield x

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str],
        n: int = 1,
        seed: int = 0,
        *,
        negative_prompt: str = "",
        callback: Callable[[Progress], None] | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> Generated:
        """Draw `n` pictures of each prompt; picture i of the call uses seed + i, and depends on nothing else.

        settings: fields of `Settings`; diffusers' names are understood. callback: called after every step.
        Raises UnclipError for an empty prompt and for values out of range.
        """
        s, n, seeds, callback = options(settings, n, seed, callback)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        jobs = [p for p in prompts for _ in range(n)]
        for p in prompts:
            if not p.strip():
                raise UnclipError("the prompt is empty; say what the picture should show")
        if s.size not in self.sizes:
            raise UnclipError(f"size is {s.size}; these weights draw {' or '.join(map(str, self.sizes))}")
        seeds = seeds or [seed + i for i in range(len(jobs))]
        if len(seeds) != len(jobs) or not all(0 <= v < 2**63 for v in seeds):
            raise UnclipError(f"seeds {seeds[0]}…{seeds[-1]}: {len(jobs)} numbers from 0 to 2^63 − 1 are needed")
        out, embeddings = Generated(seeds=seeds, prompts=jobs, params=asdict(s) | {"negative_prompt": negative_prompt}), []
        stages = {"prior": s.prior_steps, "decoder": s.steps} | ({"upsampler": s.upsampler_steps} if s.size > 64 else {})
        with Reporter(callback, progress, len(jobs) * sum(stages.values())) as report:
            for i, (job, number) in enumerate(zip(jobs, seeds, strict=True)):  # one by one: see `Draw`
                tell, draw = (partial(report, i, stage) for stage in stages), partial(Draw, [number])
                z_i = self.sample_prior(job, negative_prompt, draw("prior"), s, next(tell))
                x = self.decode(z_i, job, negative_prompt, draw("decoder"), s, next(tell))
                if s.size > x.shape[-1]:
                    x = self.upsample(x, draw("upsampler"), s, next(tell))
                out.images += to_pil(x)
                embeddings.append(z_i.float().cpu())
        out.embeddings = torch.cat(embeddings)
        return out

    # ---- weights ---------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> list[int]:
        return [self.decoder.config.size] + ([self.upsampler.config.size] if self.upsampler else [])

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "mini",
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> "UnCLIP":
        """Load shipped weights by name, a folder, or a repository of the hub ("org/name").

        dtype: bfloat16 computes in it (the weights stay float32). Files are memory-mapped and never executed.
        """
        keep_buffers()
        folder = hub.locate(source, revision, local_files_only)
        index = read_json(folder / hub.INDEX)
        parts = {n: load_module(folder / n, *kinds)[0] for n, kinds in PARTS.items() if n in index.get("parts", ())}
        for name in ("clip", "prior", "decoder"):
            if name not in parts:
                raise UnclipError(f"{str(folder)!r} lacks the part {name!r}; train it: unclip train mini.{name}")
        system = cls(Tokenizer.load(folder / TOKENIZER), parts["clip"], parts["prior"], parts["decoder"],
                     parts.get("upsampler_256"), name=index.get("name", folder.name))  # fmt: skip
        return system.to(device or best_device(), dtype)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> Path:
        """Write a folder that `from_pretrained` reads: model_index.json, tokenizer/, and a folder for each network."""
        folder = Path(folder)
        for name, net in self.parts.items():
            save_module(folder / name, net.config, net.state_dict(), dtype, {})
        (folder / TOKENIZER).parent.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder / TOKENIZER)
        hub.write_index(folder, self.name)
        return folder

    def push_to_hub(self, repository: str, *, private: bool = False, dtype: torch.dtype = torch.float16) -> str:
        """Upload to the Hugging Face hub; returns the address of the commit."""
        return hub.push(repository, lambda folder: self.save_pretrained(folder, dtype), private)

    @property
    def parts(self) -> dict[str, Any]:
        nets = {"clip": self.clip, "prior": self.prior, "decoder": self.decoder, "upsampler_256": self.upsampler}
        return {name: net for name, net in nets.items() if net is not None}

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "UnCLIP":
        """Move every network; `dtype` is what sampling computes in."""
        self.device, self.dtype = torch.device(device), dtype or self.dtype
        for net in self.parts.values():
            net.to(self.device)
        for net in (self.decoder, self.upsampler):
            if net is not None:
                net.to(memory_format=torch.channels_last)
        return self


# ---- around the system ---------------------------------------------------------------------------------------

Tell = Callable[[int, int, Tensor], None]  # step, steps, estimate of x0 [B, ...]
DIFFUSERS = {"num_inference_steps": "steps", "guidance_scale": "guidance", "decoder_num_inference_steps": "steps",
             "decoder_guidance_scale": "guidance", "prior_num_inference_steps": "prior_steps",
             "prior_guidance_scale": "prior_guidance", "super_res_num_inference_steps": "upsampler_steps"}  # fmt: skip


class Several:
    """Noise for `times` candidates of each image, all from the image's own generator."""

    def __init__(self, draw: Draw, times: int):
        self.draw, self.times = draw, times

    def __call__(self, shape: Sequence[int]) -> Tensor:
        return self.draw((self.times, *shape)).flatten(0, 1)

    def like(self, x: Tensor) -> Tensor:
        return self(x.shape[1:]).to(x)


def options(settings: dict[str, Any], n: int, seed: int, callback):
    """Settings from keywords, diffusers' names included → (Settings, n, seeds or None, callback)."""
    known, seeds = {f.name for f in fields(Settings)}, None
    settings = {DIFFUSERS.get(k, k): v for k, v in settings.items()}
    n = settings.pop("num_images_per_prompt", n)
    generator = settings.pop("generator", None)
    if generator is not None:
        generators = generator if isinstance(generator, (list, tuple)) else [generator]
        seeds = [g.initial_seed() for g in generators]
        seeds = seeds if len(seeds) > 1 else [seeds[0] + i for i in range(n)]
    if "callback_on_step_end" in settings:
        inner = settings.pop("callback_on_step_end")
        callback = callback or (lambda p: inner(None, p.step - 1, p.steps - p.step, {"latents": p.estimate}))
    for name in settings:
        if name not in known:
            raise unknown(name, [*known, *DIFFUSERS], "setting")
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 10_000:
        raise UnclipError(f"n is {n!r}; it must be a whole number from 1 to 10000")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise UnclipError(f"seed is {seed!r}; it must be a whole number from 0 to 2^63 − 1")
    return from_dict(Settings, settings), n, seeds, callback


class Reporter:
    """Tells the callback and the progress bar of every step."""

    def __init__(self, callback: Callable[[Progress], None] | None, progress: bool, total: int):
        from tqdm import tqdm

        self.callback, self.bar = callback, tqdm(total=total, disable=not progress, unit="step", leave=False)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def __call__(self, image: int, stage: str, step: int, steps: int, estimate: Tensor) -> None:
        self.bar.set_description_str(stage, refresh=False)
        self.bar.update()
        if self.callback:
            self.callback(Progress(stage, image, step, steps, estimate[0]))
