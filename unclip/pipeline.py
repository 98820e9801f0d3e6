"""DALL·E 2 (Ramesh et al. 2022, 2204.06125) from end to end. Read this file first.

    caption ──tokenizer, CLIP──▶ z_t ──prior──▶ z_i ──decoder──▶ 64 px ──upsamplers──▶ 256 px, 1024 px

P(x | y) = P(x | z_i, y) · P(z_i | y): the prior draws a CLIP picture embedding z_i that goes with the caption y, the
decoder draws a picture that has this embedding, the upsamplers enlarge it. All of them are Gaussian diffusion models:
a `Levels` table, a network as `Denoiser`, guidance around it, a sampler's step.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import adapters, edit
from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.draw import Draw, Several
from unclip.diffusion.guidance import CFG, Clip, Threshold, steered
from unclip.diffusion.levels import Levels
from unclip.diffusion.samplers import Randn, Step, analytic, ddim, ddpm, dpmpp_2m, dpmpp_sde, plms, renoise, unipc, walk
from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.decoder import Condition, Decoder
from unclip.models.prefix import Prefix
from unclip.models.prior import Prior
from unclip.models.prior_ar import PriorAR
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler
from unclip.pictures import to_pil
from unclip.settings import Callback, Generated, Reporter, Request, Settings
from unclip.stored import PARTS, STUDENTS, TOKENIZER, Stored, load_part
from unclip.weights.fit import check_fit
from unclip.weights.load import saved

STEPS: dict[str, Step] = {"ddim": ddim(), "dpmpp_2m": dpmpp_2m, "unipc": unipc, "ddpm": ddpm, "dpmpp_sde": dpmpp_sde,
                          "plms": plms(), "renoise": renoise}  # fmt: skip


class UnCLIP(Stored):
    """The whole system. `UnCLIP.from_pretrained("mini").generate("a red fox").images[0]`"""

    upsampler_step = staticmethod(ddim())
    factor = 1  # pixels a side of each place of what the decoder draws
    noisiest = 0  # greatest noise_level that z_i may be given
    defaults: ClassVar[dict[str, Any]] = {}  # settings of `generate` where they are not those of `Settings`
    lora: tuple[dict[str, Any], ...] = ()  # the adapters that were added, in their order, as a record notes them

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: Decoder, upsampler: Upsampler | None,
                 name: str = "unnamed", digest: str = "", upsampler_1024: Upsampler | None = None,
                 students: Mapping[str, Any] | None = None, prior_ar: PriorAR | None = None):  # fmt: skip
        check_fit(tokenizer, clip, prior, decoder, upsampler, upsampler_1024, prior_ar)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.prior_ar, self.decoder = clip, prior, prior_ar, decoder
        self.upsampler, self.upsampler_1024, self.students = upsampler, upsampler_1024, dict(students or {})
        self.to("cpu", torch.float32)

    # ---- from the caption to the picture ---------------------------------------------------------------------

    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Captions → seen [B, L] (true where a token is), encoded text [B, L, width] and unit z_t [B, D]."""
        tokens, seen = self.tokenizer.encode(list(prompts), self.clip.config.context)
        return seen.to(self.device), *self.clip.encode_text(tokens.to(self.device))

    def embed(self, x: Tensor) -> Tensor:
        """pictures [B, 3, S, S] in [−1, 1] → unit z_i [B, D]."""
        side = self.clip.config.image_size
        return self.clip.encode_image(x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="area"))

    def sample_prior(
        self, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: "Tell"
    ) -> Tensor:
        """A caption, or one for each generator of `draw` → unit z_i [B, D], the best of `best_of` candidates."""
        n, net = len(draw.generators), self.prior_of(s)
        seen, text, z_t = self.read([*[negative] * n, *each(prompt, n)])
        if net is None:
            return z_t[n:]
        absent = (torch.arange(2 * n, device=self.device) < n) & (not negative)
        absent = absent & (not isinstance(net, Prior) or net.config.null)
        given, noises = net.condition(text, z_t, seen, absent), Several(draw, s.best_of)
        if isinstance(net, Prior):
            z_i = self.denoised(net, given, noises, s, tell)
        else:
            z_i = self.spelt(net, given, noises, s, tell)
        candidates = z_i.unflatten(0, (-1, s.best_of))
        best = (candidates @ z_t[n:, :, None])[..., 0].argmax(dim=1)
        return candidates[torch.arange(len(best)), best]

    def prior_of(self, s: Settings) -> Prior | PriorAR | None:
        """The network that the settings ask for. Raises UnclipError where the weights lack it."""
        if s.prior == "none":
            return None
        if s.prior == "ar" and self.prior_ar is None:
            raise UnclipError(f"the weights {self.name!r} hold no autoregressive prior; train it (unclip train "
                              "mini.prior_ar) or choose the prior diffusion or none")  # fmt: skip
        if s.prior == "diffusion" and s.prior_sampler == "analytic" and not self.prior.config.measured:
            raise UnclipError(f"for the weights {self.name!r} no analytic variance was measured; measure it (unclip "
                              "evaluate prior --store-variance) or choose another prior_sampler")  # fmt: skip
        return self.prior_ar if s.prior == "ar" else self.prior

    def prior_calls(self, s: Settings) -> int:
        """How often the prior's network runs for a picture."""
        net = self.prior_of(s)
        return 0 if net is None else s.prior_steps if isinstance(net, Prior) else 1 + net.config.components

    def denoised(self, net: Prior, given: Prefix, noises: Several, s: Settings, tell: "Tell") -> Tensor:
        """Unit z_i by the diffusion prior, `best_of` for each caption."""
        process, reach = net.config.diffusion, net.space.reach()
        denoise = Clip(CFG(process.denoiser(net), s.prior_guidance), -reach, reach)
        step = analytic(net.variance()) if s.prior_sampler == "analytic" else STEPS[s.prior_sampler]
        x = noises((net.config.embed,)).to(self.device)
        return net.space.leave(self.sample(denoise, x, process.spaced(s.prior_steps), step, noises.like, tell, given))

    def spelt(self, net: PriorAR, given: Prefix, noises: Several, s: Settings, tell: "Tell") -> Tensor:
        """Unit z_i by the autoregressive prior, `best_of` for each caption."""
        u = torch.special.ndtr(noises((1 + net.config.components,)).double()).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for i, codes in enumerate(net.sample(given, u, s.prior_guidance, s.temperature, s.top_p), 1):
                z_i = net.space.leave(codes)
                tell(i, u.shape[1], z_i)
        return z_i

    def decode(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: "Tell"
    ) -> Tensor:
        """unit z_i [B, D] and a caption, or one for each → pictures [B, 3, 64, 64] in [−1, 1]."""
        denoise, given = self.guided(z_i, prompt, negative, s)
        levels = self.decoder.config.diffusion.spaced(s.steps, "strides" if s.fast else s.spacing)
        x = draw(self.shape(s)).to(self.device)
        return self.leave(self.sample(denoise, x, levels, STEPS[s.sampler], draw.like, tell, given))

    def shape(self, s: Settings) -> tuple[int, int, int]:
        """Channels, height and width of what the decoder draws."""
        return 3, self.decoder.config.size, self.decoder.config.size

    def enter(self, x: Tensor) -> Tensor:
        """pictures [B, 3, S, S] → what the decoder draws: themselves, or latents `factor` times smaller."""
        return x

    def leave(self, x: Tensor) -> Tensor:
        """What the decoder draws → pictures."""
        return x

    def guided(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, s: Settings, blind: bool = False
    ) -> tuple[Denoise, Condition]:
        """The decoder with its guidance, and its condition: unit z_i [B, D] and a caption, '' being none, for each.

        The branches of guidance: neither z_i nor caption; with a scale of its own for z_i, z_i alone; then both. The
        negative prompt stands where no caption does. blind: z_i is not known, and its values do not matter.
        """
        scales = [s.guidance] if s.guidance_z is None else [s.guidance_z, s.guidance]
        scales = scales if any(scale != 1 for scale in scales) else []
        net = self.student("decoder_fast") if s.fast else self.decoder
        n, branches = len(z_i), 1 + len(scales)
        texts = [*[negative] * len(scales) * n, *each(prompt, n)]
        no_z_i = torch.arange(len(texts), device=self.device) < n * min(len(scales), 1)
        given = self.condition(net, z_i.repeat(branches, 1), texts, no_z_i | blind)
        process = net.config.diffusion
        return self.bounded(steered(process.denoiser(net), scales, **s.steering(process.T)), s), given

    def bounded(self, denoise: Denoise, s: Settings) -> Denoise:
        """Estimates kept within the range of what the decoder draws."""
        return Threshold(denoise, s.threshold) if s.threshold is not None else Clip(denoise)

    def condition(self, net: Decoder, z_i: Tensor, texts: Sequence[str], no_z_i: Tensor) -> Condition:
        """What the decoder `net` is told: z_i [B, D], none where `no_z_i` [B] is true; B captions, '' being none."""
        tokens, _ = self.tokenizer.encode(list(texts), net.config.context)
        no_text = torch.tensor([not text for text in texts], device=self.device)
        return net.condition(z_i, tokens.to(self.device), no_z_i, no_text)

    def upsample(
        self, low: Tensor, draw: Draw, s: Settings, tell: "Tell", net: Upsampler | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # fmt: skip
        """pictures [B, 3, h, w] → [B, 3, H, W], both in [−1, 1], by the first upsampler or the one given.

        size: (H, W); by default 64 becomes 256, and 256 becomes 1024.
        """
        net = net or self.upsampler
        assert net is not None
        given = net.condition(low, size)
        height, width = given.shape[2:]
        given = F.pad(given, (0, -width % net.config.unet.grain, 0, -height % net.config.unet.grain), "replicate")
        denoise = Clip(net.denoiser(s.tile))
        steps = s.upsampler_1024_steps if net is self.upsampler_1024 else s.upsampler_steps
        x = draw(given.shape[1:]).to(self.device)
        levels = net.config.diffusion.spaced(steps, "strides" if net in self.hired.values() else "even")
        x = self.sample(denoise, x, levels, self.upsampler_step, draw.like, tell, given)
        return x[..., :height, :width]

    def sample(self, denoise: Denoise, x: Tensor, levels: Levels, step: Step, randn: Randn, tell: "Tell",
               given: object) -> Tensor:  # fmt: skip
        """Walk from noise x down the levels to data."""
        if x.ndim == 4:
            x = x.to(memory_format=torch.channels_last)
        return self.follow(walk(denoise, x, levels.down(), step, randn, given=given), len(levels) - 1, tell)

    def follow(self, walking: Iterator[tuple[Tensor, Estimate]], steps: int, tell: "Tell") -> Tensor:
        """The end of a walk of so many steps, each told of."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for i, (x, estimate) in enumerate(walking, 1):
                tell(i, steps, estimate.x0)
        return x

    def generate(
        self,
        prompt: str | Sequence[str],
        n: int = 1,
        seed: int = 0,
        *,
        negative_prompt: str | None = None,
        callback: Callback | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> Generated:
        """Draw `n` pictures of each prompt; picture i of the call uses seed + i, and depends on nothing else.

        settings: fields of `Settings`; diffusers' names are understood. callback: called after every step.
        Raises UnclipError for an empty prompt and for values out of range; warns of a prompt that is too long.
        """
        request = self.fit(Request.of(prompt, n, seed, negative_prompt, callback, self.defaults | settings))
        for text in dict.fromkeys([*request.prompts, request.negative]):
            if unseen := self.cut(text):
                warnings.warn(f"the prompt is too long for these weights; left out: {unseen!r}", stacklevel=2)
        images, embeddings = zip(*self.draw(request, progress), strict=True)
        return Generated(list(images), request.seeds, request.prompts, torch.stack(embeddings), request.params)

    def fit(self, request: Request) -> Request:
        """The request with its size settled, which these weights must be able to draw."""
        self.check(request.settings)
        size = request.settings.size or self.sizes[:2][-1]
        if size not in self.sizes:
            raise UnclipError(f"size is {size}; these weights draw {' or '.join(map(str, self.sizes))}")
        if request.settings.noise_level > self.noisiest:
            told = f"noise_level is {request.settings.noise_level}; the weights {self.name!r}"
            raise UnclipError(f"{told} take at most {self.noisiest}")
        self.prior_of(request.settings)
        for net in self.cascade(size).values():
            net.denoiser(request.settings.tile)  # says now what would fail once half is drawn
        return replace(request, settings=self.hurried(replace(request.settings, size=size), request.negative))

    def check(self, s: Settings) -> None:
        """Raises UnclipError for a setting that was chosen and would do nothing."""
        usual = Settings(**self.defaults)
        for name, why in self.idle().items():
            if getattr(s, name) != getattr(usual, name):
                raise UnclipError(f"{name} does nothing with the weights {self.name!r}: {why}; leave it out")

    def idle(self) -> dict[str, str]:
        """The settings that these weights have no use for, and why."""
        found = {"clip_guidance": "they hold no noised CLIP", "hint": "their decoder is led by no picture"}
        if self.prior is None and self.prior_ar is None:
            found |= dict.fromkeys(("prior_steps", "prior_guidance", "prior_sampler", "best_of"), "they have no prior")
        if self.prior_ar is None:
            found |= dict.fromkeys(("temperature", "top_p"), "they have no autoregressive prior")
        if not self.upsampler:
            found |= dict.fromkeys(("upsampler_steps", "tile"), "they have no upsampler")
        if not self.upsampler_1024:
            found["upsampler_1024_steps"] = "they have no second upsampler"
        if not self.noisiest:
            found["noise_level"] = "their decoder takes z_i as it is"
        return found

    def hurried(self, s: Settings, negative: str = "") -> Settings:
        """With `fast`, the settings of the students' own: that many calls of each stage, no guidance."""
        if not s.fast:
            return s
        if self.shelf is not None:
            raise UnclipError("a few-step student is made beside its teacher; leave out fast, or the limit of memory")
        if "decoder_fast" not in self.students:
            raise UnclipError(f"the weights {self.name!r} hold no few-step decoder; train it: unclip train "
                              "mini.decoder_fast, or leave out fast")  # fmt: skip
        self.student("decoder_fast")  # says now if it does not fit its teacher
        if negative:
            raise UnclipError("a few-step student cannot steer away from a negative prompt; leave out one of the two")
        s = replace(s, steps=s.fast, guidance=1.0)
        if not self.upsampler:
            return s
        student = "upsampler_256_fast" in self.students
        return replace(s, upsampler_steps=s.fast if student else min(s.fast, s.upsampler_steps))

    @torch.inference_mode()
    def draw(self, request: Request, progress: bool = True) -> Iterator[tuple[Image.Image, Tensor]]:
        """Each picture of a fitted request as soon as it is done, with its z_i [D]."""
        s = request.settings
        assert s.size is not None, "the request is not fitted"
        cascade = self.cascade(s.size)
        if s.fast and "upsampler" in cascade and "upsampler_256_fast" in self.students:
            cascade["upsampler"] = self.student("upsampler_256_fast")
        stages = {"prior": self.prior_calls(s), "decoder": s.steps}
        stages |= {name: getattr(s, f"{name}_steps") for name in cascade}
        with Reporter(request.callback, progress, len(request.seeds), sum(stages.values())) as report:
            # One by one: sums in a batch of another size may round differently, and a picture is its seed's alone.
            # In little memory each stage is done for all of them before the next is loaded.
            jobs = list(enumerate(zip(request.prompts, request.seeds, strict=True)))
            for group in [jobs] if self.shelf else [[job] for job in jobs]:
                z = [self.sample_prior(prompt, request.negative, Draw([seed], "prior"), s, partial(report, i, "prior"))
                     for i, (prompt, seed) in group]  # fmt: skip
                x = [self.decode(z_i, prompt, request.negative, Draw([seed], "decoder"), s,
                                 partial(report, i, "decoder"))
                     for z_i, (i, (prompt, seed)) in zip(z, group, strict=True)]  # fmt: skip
                for name, net in cascade.items():
                    x = [self.upsample(low, Draw([seed], name), s, partial(report, i, name), net)
                         for low, (i, (_, seed)) in zip(x, group, strict=True)]  # fmt: skip
                yield from ((to_pil(picture)[0], z_i[0].float().cpu()) for picture, z_i in zip(x, z, strict=True))

    def record(self, request: Request, i: int) -> dict[str, Any]:
        """All that is needed to draw picture `i` of a fitted request again, as `metadata.encode` writes it."""
        return {
            "prompt": request.prompts[i],
            "negative_prompt": request.negative,
            "seed": request.seeds[i],
            "settings": asdict(request.settings),
            "model": {"name": self.name, "digest": self.digest} | ({"lora": list(self.lora)} if self.lora else {}),
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "torch": str(torch.__version__),
        }

    def cut(self, text: str) -> str:
        """The tail of a caption that is too long for these networks to see; '' if all is seen."""
        return self.tokenizer.cut(text, min(self.clip.config.context, self.decoder.config.context))

    # ---- from pictures to pictures: DALL·E 2, section 3, in unclip/edit -----------------------------------------

    invert, reconstruct, variations, img2img = edit.invert, edit.reconstruct, edit.variations, edit.img2img
    interpolate, text_diff, pca_probe = edit.interpolate, edit.text_diff, edit.pca_probe
    inpaint, outpaint, fill_in = edit.inpaint, edit.outpaint, edit.fill_in

    # ---- differences to weights: LoRA, in unclip/adapters.py -----------------------------------------------------

    load_lora, student = adapters.load_lora, adapters.student

    # ---- weights; how they are read, kept and written is in unclip/stored.py ---------------------------------

    @property
    def sizes(self) -> list[int]:
        """Of the pictures that can be drawn: without the first upsampler, the second has nothing to enlarge."""
        return [self.decoder.config.size, *(net.config.size for net in self.upsamplers.values() if self.upsampler)]

    @property
    def upsamplers(self) -> dict[str, Upsampler]:
        """Those there are, by the name of their stage, in the order in which they are used."""
        nets = {"upsampler": self.upsampler, "upsampler_1024": self.upsampler_1024}
        return {name: net for name, net in nets.items() if net is not None}

    def cascade(self, size: int) -> dict[str, Upsampler]:
        """The upsamplers that lead from the decoder's pictures to those of `size`."""
        return {name: net for name, net in self.upsamplers.items() if net.config.size <= size}

    @classmethod
    def from_saved(cls, folder: Path) -> "UnCLIP":
        """Read what `save_pretrained` wrote."""
        name, digest, parts, _ = saved(folder, PARTS, ("clip", "prior", "decoder"), load_part)
        return cls(Tokenizer.load(folder / TOKENIZER), parts["clip"], parts["prior"], parts["decoder"],
                   parts.get("upsampler_256"), name, digest, parts.get("upsampler_1024"),
                   {name: parts[name] for name in STUDENTS if name in parts}, parts.get("prior_ar"))  # fmt: skip

    @property
    def parts(self) -> dict[str, Any]:
        nets = {"clip": self.clip, "prior": self.prior, "prior_ar": self.prior_ar, "decoder": self.decoder,
                "upsampler_256": self.upsampler, "upsampler_1024": self.upsampler_1024,
                **self.students}  # fmt: skip
        return {name: net for name, net in nets.items() if net is not None}

# ---- around the system ---------------------------------------------------------------------------------------


Tell = Callable[[int, int, Tensor], None]  # step, steps, estimate of x0 [B, ...]


def each(prompt: str | Sequence[str], n: int) -> list[str]:
    """A caption for each of n pictures."""
    return [prompt] * n if isinstance(prompt, str) else list(prompt)
