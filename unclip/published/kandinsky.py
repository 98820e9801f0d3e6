"""Kandinsky 2.1 and 2.2 (Razzhigaev et al. 2023, 2310.03502), put together from what they were published as.

A prior as Karlo's; a decoder that draws latents of MoVQ, which in 2.1 reads the caption through XLM-R and in 2.2 not at
all. An absent z_i is that of a grey picture, or what the prior draws for the negative prompt. Prior and decoder were
published apart, and are named together.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Threshold
from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.decoder import Condition
from unclip.models.encoded_decoder import EncodedDecoder
from unclip.models.prior import Prior
from unclip.models.tokenizer import Tokenizer
from unclip.models.vqgan import VQGAN
from unclip.pipeline import STEPS, Tell
from unclip.published.karlo import Karlo, clip_tokenizer, fill, towers
from unclip.settings import Request, Settings
from unclip.weights import diffusers, hub, load
from unclip.weights.config import read_json
from unclip.weights.family import Schema
from unclip.weights.scheduler import Scheduler

CONFIG = "scheduler_config.json"
DEFAULTS: dict[str, Any] = {"steps": 100, "guidance": 4.0, "prior_steps": 25, "prior_guidance": 4.0, "best_of": 1,
                            "prior_sampler": "ddpm"}  # fmt: skip
KINDS = ("KandinskyV22Pipeline", "KandinskyV22CombinedPipeline", "KandinskyV22Img2ImgPipeline",
         "KandinskyV22Img2ImgCombinedPipeline")  # fmt: skip
PRIORS = {"2.1": "kandinsky-community/kandinsky-2-1-prior", "2.2": "kandinsky-community/kandinsky-2-2-prior"}


class Kandinsky(Karlo):
    """`UnCLIP.from_pretrained("kandinsky-community/kandinsky-2-2-decoder")` gives one, or a folder."""

    system = None

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: EncodedDecoder, movq: VQGAN,
                 scheduler: Scheduler, name: str = "kandinsky", digest: str = ""):  # fmt: skip
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.decoder = clip, prior, decoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.prior_ar, self.upsampler, self.upsampler_1024, self.students = None, None, None, {}
        self.movq, self.scheduler, self.factor = movq, scheduler, 2 ** (len(movq.config.multiples) - 1)
        self.defaults = DEFAULTS | {"sampler": scheduler.sampler}  # pyright: ignore[reportAttributeAccessIssue]
        self.to("cpu", torch.float32)

    def condition(self, net: Any, z_i: Tensor, texts: Sequence[str], no_z_i: Tensor) -> Condition:
        """What the decoder is told: z_i [B, D], that of the text where `no_z_i` [B] is true, and B captions."""
        for text in dict.fromkeys(texts):
            here = no_z_i & torch.tensor([text == other for other in texts], device=self.device)
            z_i = torch.where(here[:, None], self.absent(text), z_i) if here.any() else z_i
        return net.condition(z_i)

    def absent(self, negative: str) -> Tensor:
        """What stands for no z_i, [1, D]: z_i of a grey picture, or what the prior draws for the negative prompt."""
        if negative:
            s, draw = Settings(**self.defaults), Draw([0], "negative")
            return self.sample_prior(negative, negative, draw, s, lambda *_: None)
        side = self.clip.config.image_size
        return self.clip.image(torch.zeros(1, 3, side, side, device=self.device)).float()

    def bounded(self, denoise: Denoise, s: Settings) -> Denoise:
        """Latents have no range of their own; the published sampler bounds them itself."""
        return Threshold(denoise, s.threshold) if s.threshold is not None else denoise

    def decode(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: Tell
    ) -> Tensor:
        """z_i [B, D] and a caption, or one for each → pictures [B, 3, S, S] in [−1, 1]."""
        denoise, given = self.guided(z_i, prompt, negative, s)
        process, own = self.decoder.config.diffusion, (s.sampler, s.spacing) == (self.scheduler.sampler, "even")
        levels = self.scheduler.levels(process.T, s.steps) if own else process.spaced(s.steps, s.spacing)
        x, step = draw(self.shape(s)).to(self.device), self.scheduler.step if own else STEPS[s.sampler]
        return self.leave(self.sample(denoise, x, levels, step, draw.like, tell, given))

    def shape(self, s: Settings) -> tuple[int, int, int]:
        side = s.size // self.factor if s.size else self.decoder.config.size
        return self.decoder.config.channels, side, side

    def enter(self, x: Tensor) -> Tensor:
        """pictures [B, 3, S, S] → latents [B, 4, S / 8, S / 8]."""
        return self.movq.encode(x)

    def leave(self, x: Tensor) -> Tensor:
        """latents → pictures: as they are, none of the codebook's."""
        return self.movq.decode(x)

    def fit(self, request: Request) -> Request:
        size, grain = request.settings.size or self.sizes[0], self.factor * self.decoder.config.unet.grain
        if size % grain or size > 2048:
            raise UnclipError(f"size is {size}; these weights draw multiples of {grain} pixels, up to 2048")
        self.prior_of(request.settings)
        return replace(request, settings=self.hurried(replace(request.settings, size=size), request.negative))

    @property
    def sizes(self) -> list[int]:
        """That of the pictures it was trained on; `fit` knows what else can be drawn."""
        return [self.decoder.config.size * self.factor]

    @property
    def parts(self) -> dict[str, Any]:
        return super().parts | {"movq": self.movq}


# ---- weights -------------------------------------------------------------------------------------------------------


def found_in(folder: Path) -> bool:
    """Whether a folder is Kandinsky's: a pipeline as diffusers saves it, or two beside each other."""
    index = folder / "decoder" / hub.INDEX if (folder / "decoder").is_dir() else folder / hub.INDEX
    return index.is_file() and str(read_json(index).get("_class_name")).startswith("Kandinsky")


def from_folder(folder: Path, prior: str | Path | None = None) -> Kandinsky:
    """Read the folder of a decoder, or of decoder and prior both, as diffusers saves them.

    prior: a folder or repository of its own. By default it is looked for in the folder and beside it, and else the one
    that was published with the decoder is taken from the hub. Raises UnclipError for two that do not fit.
    """
    name = folder.name
    if (folder / "decoder").is_dir():
        folder, prior = folder / "decoder", folder / "prior" if prior is None else prior
    kind = read_json(folder / hub.INDEX).get("_class_name", "")
    if "Prior" in kind:
        raise UnclipError(f"{str(folder)!r} is a prior alone; name it beside its decoder: prior={str(folder)!r}")
    if kind not in KINDS:
        raise UnclipError(f"{str(folder)!r} is of {kind!r}, which is not read; read are {', '.join(KINDS)}")
    place, prefix = find_prior(folder, prior, kind)
    tokenizer, clip, net = read_prior(place, prefix)
    decoder, movq, scheduler = read_decoder(folder)
    spaces = {str(place): net.config.embed, str(folder): decoder.config.embed}
    if len(set(spaces.values())) > 1:
        told = " and ".join(f"{where!r} {embed}" for where, embed in spaces.items())
        raise UnclipError(f"prior and decoder have z_i of different spaces: {told} numbers; use two of one Kandinsky")
    return Kandinsky(tokenizer, clip, net, decoder, movq, scheduler, name)


def find_prior(folder: Path, prior: str | Path | None, kind: str) -> tuple[Path, str]:
    """Where the prior's parts are, and what their names begin with."""
    if prior is None and (folder / "prior_prior").is_dir():
        return folder, "prior_"
    published = PRIORS["2.2" if "V22" in kind else "2.1"]
    beside = folder.parent / published.split("/")[1]
    wanted = prior if prior is not None else beside if beside.is_dir() else published
    try:
        place = hub.locate(wanted)
    except UnclipError as e:
        raise UnclipError(f"{str(folder)!r} needs a prior beside it; name it (prior=FOLDER): {e}", code=e.code) from e
    if not (place / "prior").is_dir():
        raise UnclipError(f"{str(place)!r} holds no prior/; name the folder of a prior of Kandinsky")
    return place, ""


def read_prior(folder: Path, prefix: str, dtype: torch.dtype = torch.float32) -> tuple[Tokenizer, CLIP, Prior]:
    def part(name: str) -> Path:
        return existing(folder / f"{prefix}{name}")

    text: Any = load.load(part("text_encoder"), dtype=dtype)
    image: Any = load.load(part("image_encoder"), dtype=dtype)
    file, config = load.open_source(part("prior")), part("scheduler") / CONFIG
    file = file._replace(schema=Schema(file.schema, file.schema.about | {"scheduler": read_json(config)}))
    net = fill(file, diffusers.PRIOR, part("prior"), dtype)
    return clip_tokenizer(part("tokenizer")), towers(text, image), net


def read_decoder(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[EncodedDecoder, VQGAN, Scheduler]:
    unet = existing(folder / "unet")
    decoder = fill(load.open_source(unet), diffusers.KANDINSKY, unet, dtype)
    movq: Any = load.load(existing(folder / "movq"), dtype=dtype)
    config = existing(folder / "scheduler") / CONFIG
    scheduler = Scheduler.of(read_json(config), repr(str(config)))
    told = scheduler.process
    process = replace(decoder.config.diffusion, schedule=told.schedule, predicts=told.predicts, betas=told.betas)
    decoder.config = replace(decoder.config, diffusion=process)
    return decoder, movq, scheduler


def existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UnclipError(f"{str(folder.parent)!r} lacks {folder.name}/; fetch it again, whole")
    return folder
