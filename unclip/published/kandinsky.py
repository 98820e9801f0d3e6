"""Kandinsky 2.1 and 2.2 (Razzhigaev et al. 2023, 2310.03502), put together from what they were published as.

A prior as Karlo's; a decoder that draws latents of MoVQ, which in 2.1 reads the caption through XLM-R and in 2.2 not at
all. An absent z_i is that of a grey picture, or what the prior draws for the negative prompt. Prior and decoder were
published apart, and are named together.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Threshold
from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.decoder import Condition
from unclip.models.encoded_decoder import EncodedDecoder
from unclip.models.multilingual import MultilingualCLIP, MultilingualTokenizer
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
from unclip.weights.sentencepiece import load_tokenizer

CONFIG = "scheduler_config.json"
DEFAULTS: dict[str, Any] = {"steps": 100, "guidance": 4.0, "prior_steps": 25, "prior_guidance": 4.0, "best_of": 1,
                            "prior_sampler": "ddpm"}  # fmt: skip
KINDS = tuple(f"Kandinsky{version}{form}Pipeline" for version in ("", "V22")
              for form in ("", "Combined", "Img2Img", "Img2ImgCombined"))  # fmt: skip
PRIORS = {"2.1": "kandinsky-community/kandinsky-2-1-prior", "2.2": "kandinsky-community/kandinsky-2-2-prior"}


class Words(NamedTuple):
    """How the decoder of 2.1 reads captions."""

    tokenizer: MultilingualTokenizer
    net: MultilingualCLIP

    def read(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Captions → encoded text [B, 77, width], padding with the rest, and what sums it up [B, D]."""
        return self.net(self.tokenizer.encode(texts).to(device))


class Kandinsky(Karlo):
    """`UnCLIP.from_pretrained("kandinsky-community/kandinsky-2-2-decoder")` gives one, or a folder."""

    system = None

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: EncodedDecoder, movq: VQGAN,
                 scheduler: Scheduler, words: Words | None = None, name: str = "kandinsky",
                 digest: str = ""):  # fmt: skip
        check_fit(clip, prior, decoder, movq, words)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.decoder = clip, prior, decoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.prior_ar, self.upsampler, self.upsampler_1024, self.students = None, None, None, {}
        self.words, self.movq, self.scheduler = words, movq, scheduler
        self.factor = 2 ** (len(movq.config.multiples) - 1)
        self.defaults = DEFAULTS | {"sampler": scheduler.sampler}  # pyright: ignore[reportAttributeAccessIssue]
        self.to("cpu", torch.float32)

    def condition(self, net: Any, z_i: Tensor, texts: Sequence[str], no_z_i: Tensor) -> Condition:
        """What the decoder is told: z_i [B, D], that of the text where `no_z_i` [B] is true, and B captions."""
        for text in dict.fromkeys(texts):
            here = no_z_i & torch.tensor([text == other for other in texts], device=self.device)
            z_i = torch.where(here[:, None], self.absent(text), z_i) if here.any() else z_i
        return net.condition(z_i, *(self.words.read(texts, self.device) if self.words else ()))

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
        return super().parts | {"movq": self.movq} | ({"words": self.words.net} if self.words else {})

    def cut(self, text: str) -> str:
        """The longer tail, of the prior's reading or the decoder's."""
        return max(super().cut(text), self.words.tokenizer.cut(text) if self.words else "", key=len)


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
    words = read_words(folder) if decoder.config.text else None
    spaces = {str(place): net.config.embed, str(folder): decoder.config.embed}
    if len(set(spaces.values())) > 1:
        told = " and ".join(f"{where!r} {embed}" for where, embed in spaces.items())
        raise UnclipError(f"prior and decoder have z_i of different spaces: {told} numbers; use two of one Kandinsky")
    return Kandinsky(tokenizer, clip, net, decoder, movq, scheduler, words, name)


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


def read_words(folder: Path, dtype: torch.dtype = torch.float32) -> Words:
    net: Any = load.load(existing(folder / "text_encoder"), dtype=dtype)
    return Words(load_tokenizer(existing(folder / "tokenizer")), net)


def existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UnclipError(f"{str(folder.parent)!r} lacks {folder.name}/; fetch it again, whole")
    return folder


def check_fit(clip: CLIP, prior: Prior, decoder: EncodedDecoder, movq: VQGAN, words: Words | None) -> None:
    """Parts that were not trained together would draw noise without a word."""
    c, p, d = clip.config, prior.config, decoder.config
    agree = {
        "embedding spaces": {"clip": c.embed, "prior": p.embed, "decoder": d.embed},
        "widths of encoded text": {"clip": c.text.width, "prior": p.text},
        "caption lengths": {"clip": c.context, "prior": p.context},
        "latents": {"decoder": d.channels, "movq": movq.config.embed},
    }
    if words:
        w = words.net.config
        agree["widths of what the decoder reads"] = {"decoder": (d.text, d.pooled), "words": (w.text.width, w.embed)}
        if words.tokenizer.vocab_size > w.vocab:
            raise UnclipError(f"the tokenizer has {words.tokenizer.vocab_size} entries, but the decoder's text encoder "
                              f"knows {w.vocab}; use its own")  # fmt: skip
    for what, values in agree.items():
        if len(set(values.values())) > 1:
            raise UnclipError(f"these parts have different {what}: {values}; use parts trained together")
