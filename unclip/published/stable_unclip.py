"""Stable unCLIP: Stable Diffusion 2.1 taught to draw from z_i, as diffusers saves it.

It is the system of `unclip/pipeline.py` with other parts. z_i is noised by as much as is asked for, so that the
caption, read by a text tower of its own, has a say; the decoder draws latents, and an autoencoder makes them a picture.
The published folders hold no prior: they vary pictures. Karlo's goes with the smaller of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import edit, pictures
from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.draw import Draw, Several
from unclip.diffusion.guidance import CFG, Threshold
from unclip.edit.session import Session, Source, open_picture
from unclip.errors import UnclipError
from unclip.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from unclip.models.clip import CLIP, TextTower, TextTowerConfig, centred
from unclip.models.decoder import Condition
from unclip.models.noised_decoder import NoisedDecoder, NoisedDecoderConfig, Noiser, NoiserConfig
from unclip.models.prefix import Prefix
from unclip.models.prior import Prior
from unclip.models.tokenizer import Tokenizer
from unclip.pipeline import STEPS, Tell, UnCLIP
from unclip.published import to_diffusers
from unclip.published.karlo import CLIPS, by_tower, caption_tower, saved_prior, towers, whole_clip
from unclip.settings import Generated, Settings
from unclip.stored import TOKENIZER
from unclip.weights import hub, load
from unclip.weights.config import read_json
from unclip.weights.hf_tokenizer import clip_tokenizer
from unclip.weights.scheduler import Scheduler

PRIOR_APART = True
CLASSES = ("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline")
FOLDERS = ("unet", "image_normalizer", "text_encoder", "vae", "image_encoder", "prior", "prior_text_encoder")


class StableUnCLIP(UnCLIP):
    """`UnCLIP.from_pretrained("stabilityai/stable-diffusion-2-1-unclip")`, or a folder that diffusers saved."""

    system = "stable_unclip"

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior | None, decoder: NoisedDecoder, noiser: Noiser,
                 caption_tokenizer: Tokenizer, caption: TextTower, autoencoder: AutoencoderKL, scheduler: Scheduler,
                 prior_scheduler: Scheduler | None = None, name: str = "stable-unclip", digest: str = ""):  # fmt: skip
        check_fit(clip, prior, decoder, noiser, caption, autoencoder)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.decoder = clip, prior, decoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.prior_ar = self.upsampler = self.upsampler_1024 = None
        self.students, self.noiser, self.autoencoder = {}, noiser, autoencoder
        self.caption_tokenizer, self.caption = caption_tokenizer, caption
        self.scheduler, self.prior_scheduler = scheduler, prior_scheduler
        self.schedulers = {"decoder": scheduler} | ({"prior": prior_scheduler} if prior_scheduler else {})
        self.factor, self.noisiest = 1 << (len(autoencoder.config.multiples) - 1), noiser.config.diffusion.T - 1
        self.defaults = {  # pyright: ignore[reportAttributeAccessIssue]
            "steps": 20, "guidance": 10.0, "prior_steps": 25, "prior_guidance": 4.0, "best_of": 1,
            "sampler": scheduler.sampler, "prior": "diffusion" if prior else "none",
            "prior_sampler": prior_scheduler.sampler if prior_scheduler else "ddpm",
        }  # fmt: skip
        self.to("cpu", torch.float32)

    # ---- from the caption to z_i -------------------------------------------------------------------------------

    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Captions → seen [B, 77], encoded text [B, 77, width] and z_t [B, D] as CLIP gives it: for the prior."""
        if self.clip.text is None:
            raise UnclipError(f"the weights {self.name!r} hold no prior: vary a picture, or name one of the "
                              "same CLIP (prior='kakaobrain/karlo-v1-alpha')")  # fmt: skip
        tokens, seen = self.tokenizer.encode(list(prompts), self.clip.config.context)
        text, z_t = self.clip.text(tokens.to(self.device))
        return seen.to(self.device), text, z_t.float()

    def embed(self, x: Tensor) -> Tensor:
        """pictures [B, 3, S, S] in [−1, 1] → z_i [B, D] as CLIP gives it."""
        if self.clip.image is None:
            raise UnclipError(f"the weights {self.name!r} hold no picture encoder; those that vary pictures have it")
        side = self.clip.config.image_size
        seen = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        return self.clip.image(centred(seen, self.clip.config)).float()

    def look(self, image: Image.Image) -> Tensor:
        """A picture of any shape → z_i [1, D]. CLIP sees the middle of it, the shorter side whole."""
        side, short = self.clip.config.image_size, min(image.size)
        width, height = (int(side * v / short) for v in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
        return self.embed(pictures.to_tensor(image).to(self.device))

    def denoised(self, net: Prior, given: Prefix, noises: Several, s: Settings, tell: Tell) -> Tensor:
        """z_i by the diffusion prior, as its folder says."""
        scheduler = self.prior_scheduler
        if scheduler is None or s.prior_sampler != scheduler.sampler:
            return super().denoised(net, given, noises, s, tell)
        process, x = net.config.diffusion, noises((net.config.embed,)).to(self.device)
        denoise, levels = CFG(process.denoiser(net), s.prior_guidance), scheduler.levels(process.T, s.prior_steps)
        return net.space.leave(self.sample(denoise, x, levels, scheduler.step, noises.like, tell, given))

    # ---- from z_i to the picture -------------------------------------------------------------------------------

    def decode(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: Tell
    ) -> Tensor:
        """z_i [B, D] and a caption, or one for each → pictures [B, 3, S, S] in [−1, 1]."""
        return self.leave(self.latents(z_i, prompt, negative, draw, s, tell))

    def latents(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: Tell
    ) -> Tensor:
        """z_i [B, D] is noised, and decoded → [B, channels, S / factor, S / factor]."""
        noised = self.noiser(z_i, s.noise_level, draw.like(z_i))
        denoise, given = self.guided(noised, prompt, negative, s)
        process, step = self.decoder.config.diffusion, STEPS[s.sampler]
        levels = process.spaced(s.steps, s.spacing)
        if s.sampler == self.scheduler.sampler and s.spacing == "even":
            levels, step = self.scheduler.levels(process.T, s.steps), self.scheduler.step
        x = draw(self.shape(s)).to(self.device)
        return self.sample(denoise, x, levels, step, draw.like, tell, given)

    def guided(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, s: Settings, blind: bool = False
    ) -> tuple[Denoise, Condition]:
        """The decoder with its guidance, and its condition: z_i [B, D], left without noise, or as `noiser` gives it
        [B, 2 D], and a caption for each."""
        if z_i.shape[1] == self.noiser.config.embed:
            z_i = self.noiser(z_i, s.noise_level, torch.zeros_like(z_i))
        return super().guided(z_i, prompt, negative, s, blind)

    def bounded(self, denoise: Denoise, s: Settings) -> Denoise:
        """Latents have no range of their own; the published sampler bounds them itself, if at all."""
        return Threshold(denoise, s.threshold) if s.threshold is not None else denoise

    def condition(self, net: Any, z_i: Tensor, texts: Sequence[str], no_z_i: Tensor) -> Condition:
        """What the decoder is told: z_i as `noiser` gives it [B, 2 D], 0 where `no_z_i` [B] is true, and B captions."""
        tokens, _ = self.caption_tokenizer.encode(list(texts), self.caption.config.context)
        return net.condition(z_i * ~no_z_i[:, None], self.caption(tokens.to(self.device))[0])

    @torch.inference_mode()
    def variations(self, source: Source, n: int = 4, eta: float = 1.0, seed: int = 0, prompt: str = "",
                   **options: Any) -> Generated:  # fmt: skip
        """`n` pictures with the z_i of `source`, and as the `prompt` says, each from noise of its own.

        With an eta below 1, from the x_T of `source` instead, by DDIM with noise of that strength.
        """
        if eta != 1 or isinstance(source, edit.Latents):
            return edit.variations(self, source, n, eta, seed, **options)
        session = Session(self, [prompt] * n, seed, **self.defaults | options)
        z_i = self.look(pictures.flat(open_picture(source)))

        def paint(i: int, tell: Tell) -> tuple[Tensor, Tensor]:
            noise = session.noise(i, "decoder")
            return self.latents(z_i, prompt, session.request.negative, noise, session.s, tell), z_i

        return session.draw(paint, session.s.steps)

    def shape(self, s: Settings) -> tuple[int, int, int]:
        return self.decoder.config.channels, self.decoder.config.size, self.decoder.config.size

    def enter(self, x: Tensor) -> Tensor:
        return self.autoencoder.encode(x).float()

    def leave(self, x: Tensor) -> Tensor:
        return self.autoencoder.decode(x).float()

    def cut(self, text: str) -> str:
        return self.caption_tokenizer.cut(text, self.caption.config.context)

    # ---- weights -------------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> list[int]:
        return [self.factor * self.decoder.config.size]

    @property
    def parts(self) -> dict[str, Any]:
        own = {"noiser": self.noiser, "caption": self.caption, "autoencoder": self.autoencoder}
        return by_tower(super().parts) | own

    @property
    def tokenizers(self) -> dict[str, Any]:
        return super().tokenizers | {"caption": self.caption_tokenizer}

    def save_diffusers(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        return to_diffusers.stable(self, Path(folder), dtype)

    @classmethod
    def from_saved(cls, folder: Path, prior: str | Path | None = None) -> "StableUnCLIP":
        """prior: as in `from_folder`."""
        found = load.saved(folder, PARTS, ("decoder", "noiser", "caption", "autoencoder"))
        parts, clip = found.parts, whole_clip(found.parts)
        tokenizer, net, leading = Tokenizer.load(folder / TOKENIZER), parts.get("prior"), found.schedulers.get("prior")
        if prior is not None:
            tokenizer, text, net, leading = read_prior(hub.locate(prior))
            clip = towers(text, clip.image)
        return cls(tokenizer, clip, net, parts["decoder"], parts["noiser"],
                   Tokenizer.load((folder / TOKENIZER).with_stem("caption")), parts["caption"], parts["autoencoder"],
                   found.scheduler("decoder"), leading, found.name, found.digest)  # fmt: skip


SYSTEM = StableUnCLIP
PARTS: load.Kinds = {
    **CLIPS, "decoder": (NoisedDecoderConfig, NoisedDecoder), "noiser": (NoiserConfig, Noiser),
    "caption": (TextTowerConfig, TextTower), "autoencoder": (AutoencoderKLConfig, AutoencoderKL),
}  # fmt: skip


def found_in(folder: Path) -> bool:
    """Whether a folder is Stable unCLIP's, as diffusers saves it."""
    index = folder / hub.INDEX
    return index.is_file() and read_json(index).get("_class_name") in CLASSES


def from_folder(
    folder: Path, prior: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> StableUnCLIP:
    """Read a folder that diffusers saved: one that draws captions, or one that varies pictures.

    prior: a folder or repository whose prior, of the same CLIP, is to draw z_i: Karlo's.
    """

    def part(name: str, place: Path = folder) -> Any:
        return load.load(place / name, dtype=dtype)

    captions, decoding = clip_tokenizer(folder / "tokenizer"), scheduler(folder / "scheduler")
    decoder, noiser = part("unet"), part("image_normalizer")
    decoder.config = replace(decoder.config, diffusion=decoding.process)  # which their own files do not say
    noiser.config = replace(noiser.config, diffusion=scheduler(folder / "image_noising_scheduler").process)
    image = part("image_encoder") if (folder / "image_encoder").is_dir() else None
    tokenizer, text, net, leading = captions, None, None, None
    if prior is not None or (folder / "prior").is_dir():
        led = read_prior(folder, "prior_") if prior is None else read_prior(hub.locate(prior))
        tokenizer, text, net, leading = led
    if text is None and image is None:
        raise UnclipError(f"{str(folder)!r} holds neither a prior nor an image_encoder; fetch it again")
    return StableUnCLIP(tokenizer, towers(text, image), net, decoder, noiser, captions,
                        caption_tower(folder / "text_encoder", captions, dtype), part("vae"), decoding, leading,
                        folder.name, hub.fingerprint(folder, FOLDERS))  # fmt: skip


def read_prior(place: Path, prefix: str = "") -> tuple[Tokenizer, TextTower, Prior, Scheduler | None]:
    """What draws z_i, of a folder of diffusers' or of ours, and how, unless by the way that the prior knows itself."""
    if hub.system(place):
        tokenizer, clip, net, leading = saved_prior(place)
        return tokenizer, clip.text, net, leading
    tokenizer = clip_tokenizer(place / f"{prefix}tokenizer")
    text: Any = caption_tower(place / f"{prefix}text_encoder", tokenizer, torch.float32)
    net: Any = load.load(place / "prior")
    told = scheduler(place / "prior_scheduler")
    net.space.deviations = told.reach or net.space.deviations
    net.config = replace(net.config, reach=net.space.deviations)
    own = told.sampler == "ddpm" and told.spacing == "linspace"  # UnCLIPScheduler's
    return tokenizer, text, net, None if own else told


def scheduler(folder: Path) -> Scheduler:
    path = folder / "scheduler_config.json"
    return Scheduler.of(read_json(path), repr(str(path)))


def check_fit(clip: CLIP, prior: Prior | None, decoder: NoisedDecoder, noiser: Noiser, caption: TextTower,
              autoencoder: AutoencoderKL) -> None:  # fmt: skip
    """Parts that were not trained together would draw noise without a word."""
    d, p = decoder.config, prior.config if prior else None
    agree = {
        "embedding spaces": {"clip": clip.config.embed, "decoder": d.embed, "image_normalizer": noiser.config.embed}
        | ({"prior": p.embed} if p else {}),
        "widths of encoded text": {"text_encoder": caption.config.text.width, "decoder": d.unet.context},
        "widths of the prior's text": {"clip": clip.config.text.width, "prior": p.text} if p else {},
        "caption lengths": {"clip": clip.config.context, "prior": p.context} if p else {},
        "latents": {"decoder": d.channels, "decoder's output": d.unet.out_channels, "vae": autoencoder.config.embed},
    }  # fmt: skip
    for what, values in agree.items():
        if len(set(values.values())) > 1:
            raise UnclipError(f"these parts have different {what}: {values}; use parts trained on one CLIP")
