"""Kandinsky 2.1 and 2.2 (Razzhigaev et al. 2023, 2310.03502), put together from what they were published as.

A prior as Karlo's; a decoder that draws latents of MoVQ, which in 2.1 reads the caption through XLM-R and in 2.2 not at
all. An absent z_i is that of a grey picture, or what the prior draws for the negative prompt. Prior and decoder were
published apart, and are named together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import edit, pictures
from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Threshold
from unclip.diffusion.levels import mix
from unclip.diffusion.samplers import walk
from unclip.edit.fill import kept, put_back
from unclip.edit.session import Session
from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.decoder import Condition
from unclip.models.encoded_decoder import EncodedDecoder, EncodedDecoderConfig
from unclip.models.multilingual import MultilingualCLIP, MultilingualConfig, MultilingualTokenizer
from unclip.models.prior import Prior
from unclip.models.tokenizer import Tokenizer
from unclip.models.vqgan import VQGAN, VQGANConfig
from unclip.pipeline import STEPS, Tell
from unclip.published import to_diffusers
from unclip.published.karlo import (
    CLIPS,
    Karlo,
    clip_tokenizer,
    fill,
    sampled_prior,
    saved_prior,
    set_space,
    towers,
    whole_clip,
)
from unclip.settings import Generated, Request, Settings
from unclip.stored import TOKENIZER
from unclip.weights import diffusers, hub, kandinsky, karlo, load, openai_clip, vqgan
from unclip.weights.config import read_json
from unclip.weights.container import open_file
from unclip.weights.family import Family
from unclip.weights.scheduler import Scheduler
from unclip.weights.sentencepiece import load_tokenizer

CONFIG = "scheduler_config.json"
# As 2.1 was first published, and the CLIP that OpenAI did.
NATIVE = {"prior": "prior_fp16.ckpt", "decoder": "decoder_fp16.ckpt", "inpainting": "inpainting_fp16.ckpt",
          "movq": "movq_final.ckpt", "space": "ViT-L-14_stats.th", "clip": "ViT-L-14.pt"}  # fmt: skip
DEFAULTS: dict[str, Any] = {"steps": 100, "guidance": 4.0, "prior_steps": 25, "prior_guidance": 4.0, "best_of": 1,
                            "prior_sampler": "ddpm"}  # fmt: skip
PRIOR_APART = True
KINDS = tuple(f"Kandinsky{version}{form}Pipeline" for version in ("", "V22")
              for form in ("", "Combined", "Img2Img", "Img2ImgCombined", "Inpaint", "InpaintCombined", "Controlnet",
                           "ControlnetImg2Img"))  # fmt: skip
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

    system = "kandinsky"

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: EncodedDecoder, movq: VQGAN,
                 scheduler: Scheduler, words: Words | None = None, name: str = "kandinsky",
                 digest: str = ""):  # fmt: skip
        check_fit(clip, prior, decoder, movq, words)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.decoder = clip, prior, decoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.prior_ar, self.upsampler, self.upsampler_1024, self.students = None, None, None, {}
        self.words, self.movq, self.scheduler = words, movq, scheduler
        self.schedulers = {"decoder": scheduler}
        self.factor = 2 ** (len(movq.config.multiples) - 1)
        self.defaults = DEFAULTS | {"sampler": scheduler.sampler}  # pyright: ignore[reportAttributeAccessIssue]
        self.to("cpu", torch.float32)

    def guided(
        self, z_i: Tensor, prompt: str | Sequence[str], negative: str, s: Settings, blind: bool = False
    ) -> tuple[Denoise, Condition]:
        denoise, given = super().guided(z_i, prompt, negative, s, blind)
        if not self.decoder.config.unet.layout:
            return denoise, given
        return denoise, given._replace(layout=self.layout(s).expand(len(given.emb), -1, -1, -1))

    def layout(self, s: Settings) -> Tensor:
        """What is joined to x, [1, C, h, w]: what the decoder makes of the picture that leads it; or that nothing is
        known of the picture to fill in."""
        if self.decoder.hint is None:
            return torch.zeros(1, self.decoder.config.unet.layout, *self.shape(s)[1:], device=self.device)
        assert s.hint is not None, "the request is not fitted"
        side = self.factor * self.shape(s)[1]
        x = pictures.to_tensor(pictures.square(pictures.flat(pictures.read(s.hint)), side, "black"))
        return self.decoder.hint((x.to(self.device) + 1) / 2)

    def idle(self) -> dict[str, str]:
        return {name: why for name, why in super().idle().items() if name != "hint" or not self.decoder.config.hint}

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

    def fill_in(self, image: Image.Image, new: Image.Image, prompt: str, n: int, seed: int, rounds: int,
                **options: Any) -> Generated:  # fmt: skip
        """As `edit.fill_in`. A decoder tuned to inpaint does it as it was published, each level once: what is known is
        joined to x by channel, and put back after each step, noised to its level."""
        if not self.decoder.config.unet.layout or self.decoder.config.hint:
            return edit.fill_in(self, image, new, prompt, n, seed, rounds, **options)
        session = Session(self, [prompt] * n, seed, **dict[str, Any](guidance=self.defaults["guidance"]) | options)
        x0, known = (v.to(self.device) for v in kept(image, new, session.side))
        wanted = [at.z_i for at in session.imagine([prompt] * n)] if prompt else [self.embed(x0)] * n
        x0, known = self.enter(x0), standing(known[:, :1], self.factor)

        def paint(i: int, tell: Tell) -> tuple[Tensor, Tensor]:
            draw, steps = session.noise(i, "decoder"), session.s.steps
            return self.follow(self.filling(wanted[i], prompt, x0, known, draw, session), steps, tell), wanted[i]

        drawn = session.draw(paint, session.s.steps)
        drawn.images = [put_back(picture, image, new) for picture in drawn.images]
        return drawn

    def filling(self, z_i: Tensor, prompt: str, x0: Tensor, known: Tensor, draw: Draw, session: Session
                ) -> Iterator[tuple[Tensor, Estimate]]:  # fmt: skip
        """The walk to latents [1, 4, h, w] that are x0 where `known` [1, 1, h, w] is 1."""
        denoise, given = self.guided(z_i, prompt, session.request.negative, session.s)
        told = torch.cat([x0 * known, known], dim=1).expand(len(given.emb), -1, -1, -1)
        x = noise = draw(x0.shape[1:]).to(x0)
        for at, to in self.scheduler.levels(self.decoder.config.diffusion.T, session.s.steps).down():
            pair, step = [(at, to)], self.scheduler.step
            ((x, est),) = walk(denoise, x, pair, step, draw.like, given=given._replace(layout=told))
            x = torch.where(known == 1, mix((to.alpha, x0), (to.sigma, noise)), x)
            yield x, est
        yield torch.where(known == 1, x0, x), est

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
        if self.decoder.config.hint:
            if request.settings.hint is None:
                raise UnclipError(f"the decoder of {self.name!r} is led by a picture of depths; name its file as hint")
            pictures.read(request.settings.hint)  # says now what would fail once half is drawn
        fitted = super().fit(replace(request, settings=replace(request.settings, size=self.sizes[0])))
        return replace(fitted, settings=replace(fitted.settings, size=size))

    @property
    def sizes(self) -> list[int]:
        """That of the pictures it was trained on; `fit` knows what else can be drawn."""
        return [self.decoder.config.size * self.factor]

    @property
    def parts(self) -> dict[str, Any]:
        return super().parts | {"movq": self.movq} | ({"words": self.words.net} if self.words else {})

    @property
    def tokenizers(self) -> dict[str, Any]:
        return super().tokenizers | ({"words": self.words.tokenizer} if self.words else {})

    def save_diffusers(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        return to_diffusers.kandinsky(self, Path(folder), dtype)

    @classmethod
    def from_saved(cls, folder: Path, prior: str | Path | None = None) -> "Kandinsky":
        """prior: as in `from_folder`."""
        found = load.saved(folder, PARTS, ("prior", "decoder", "movq"))
        parts = found.parts
        words = Words(load_tokenizer(folder / TOKENIZER.parent, "words.json"), parts["words"]) \
            if "words" in parts else None  # fmt: skip
        led = Tokenizer.load(folder / TOKENIZER), whole_clip(parts), parts["prior"]
        if prior is not None:
            led = read_prior(*find_prior(folder, prior))
        return cls(*led, parts["decoder"], parts["movq"], found.scheduler("decoder"), words, found.name, found.digest)

    def cut(self, text: str) -> str:
        """The longer tail, of the prior's reading or the decoder's."""
        return max(super().cut(text), self.words.tokenizer.cut(text) if self.words else "", key=len)


# ---- weights -------------------------------------------------------------------------------------------------------

SYSTEM = Kandinsky
PARTS: load.Kinds = {**CLIPS, "decoder": (EncodedDecoderConfig, EncodedDecoder), "movq": (VQGANConfig, VQGAN),
                     "words": (MultilingualConfig, MultilingualCLIP)}  # fmt: skip


def native(names: list[str]) -> list[str]:
    """The files of 2.1 as it was first published, where a repository holds its prior's."""
    if NATIVE["prior"] not in names:
        return []
    return [name for name in names if name in NATIVE.values() or name.startswith("text_encoder/")]


def found_in(folder: Path) -> bool:
    """Whether a folder is Kandinsky's: 2.1 as first published, a pipeline as diffusers saves it, or two of them."""
    if (folder / NATIVE["prior"]).is_file():
        return True
    index = folder / "decoder" / hub.INDEX if (folder / "decoder").is_dir() else folder / hub.INDEX
    return index.is_file() and str(read_json(index).get("_class_name")).startswith("Kandinsky")


def from_folder(folder: Path, prior: str | Path | None = None) -> Kandinsky:
    """Read the folder of a decoder, or of decoder and prior both, as diffusers saves them.

    prior: a folder or repository of its own. By default it is looked for in the folder and beside it, and else the one
    that was published with the decoder is taken from the hub. Raises UnclipError for two that do not fit.
    """
    name = folder.name
    if (folder / NATIVE["prior"]).is_file():
        return from_native(folder)
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
    marks = hub.fingerprint(folder, ("unet", "movq", "text_encoder"))
    marks += hub.fingerprint(place, [f"{prefix}{part}" for part in ("prior", "text_encoder", "image_encoder")])
    digest = sha256(marks.encode()).hexdigest()[:10]
    return Kandinsky(tokenizer, clip, net, decoder, movq, scheduler, words, name, digest)


def from_native(folder: Path, dtype: torch.dtype = torch.float32) -> Kandinsky:
    """2.1's own files; its decoder is the one tuned to inpaint where there is no other. Sampled by DDIM, as there."""

    def part(name: str, family: Family) -> Any:
        path = existing(folder / NATIVE[name])
        return fill(open_file(path), family, path, dtype)

    prior = part("prior", karlo.KARLO_PRIOR)
    set_space(prior, existing(folder / NATIVE["space"]))
    decoder = part("decoder" if (folder / NATIVE["decoder"]).is_file() else "inpainting", kandinsky.KANDINSKY_21)
    net: Any = load.load(existing(folder / "text_encoder"), dtype=dtype)
    return Kandinsky(Tokenizer.clip(), part("clip", openai_clip.OPENAI_CLIP), prior, decoder,
                     part("movq", vqgan.MOVQ_21), Scheduler(offset=1, to_data=False),
                     Words(load_tokenizer(folder / "text_encoder"), net), folder.name,
                     hub.fingerprint(folder, [p.name for p in folder.iterdir() if p.name in NATIVE.values()]
                                     + ["text_encoder"]))  # fmt: skip


def find_prior(folder: Path, prior: str | Path | None, kind: str = "") -> tuple[Path, str]:
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
    """Out of a folder of diffusers', or of ours."""
    if hub.system(folder):
        return saved_prior(folder)[:3]

    def part(name: str) -> Path:
        return existing(folder / f"{prefix}{name}")

    text: Any = load.load(part("text_encoder"), dtype=dtype)
    image: Any = load.load(part("image_encoder"), dtype=dtype)
    net = sampled_prior(part("prior"), part("scheduler"), dtype)
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


def existing(path: Path) -> Path:
    if not path.exists():
        raise UnclipError(f"{str(path.parent)!r} lacks {path.name}; put it there, or fetch the whole again")
    return path


def standing(known: Tensor, factor: int) -> Tensor:
    """Where latents are known, 1 or 0, of pixels [1, 1, H, W] that are: as published, each by the first of its pixels,
    and no neighbour of one that is not known, upwards and downwards to the right alone."""
    hole = 1 - known[..., ::factor, ::factor].float()
    near = hole.new_tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]])[None, None]
    return (F.conv2d(hole, near, padding=1) == 0).float()


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
