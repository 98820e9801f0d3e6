"""Karlo v1 alpha: DALL·E 2 as Kakao Brain rebuilt it, put together from what it was published as.

It is the system of `unclip/pipeline.py` with other parts. Its decoder reads the caption through CLIP; an absent caption
is the empty one; z_i and z_t have the length that CLIP gives them; its upsampler ends in a network of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.diffusion.samplers import ddpm
from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig, ImageTower, ImageTowerConfig, TextTower, TextTowerConfig, centred
from unclip.models.decoder import Condition
from unclip.models.encoded_decoder import EncodedDecoder, EncodedDecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.pipeline import Tell, UnCLIP
from unclip.published import to_diffusers
from unclip.settings import Settings
from unclip.stored import TOKENIZER
from unclip.weights import diffusers, hub, karlo, load, openai_clip
from unclip.weights.config import read_json
from unclip.weights.container import File, open_file
from unclip.weights.family import Family, Schema
from unclip.weights.hf_tokenizer import clip_tokenizer
from unclip.weights.match import recognise
from unclip.weights.scheduler import Scheduler

# As Kakao Brain named its files, and the CLIP that OpenAI did.
NATIVE = {
    "prior": "prior-ckpt-step=01000000-of-01000000.ckpt",
    "decoder": "decoder-ckpt-step=01000000-of-01000000.ckpt",
    "upsampler": "improved-sr-ckpt-step=1.2M.ckpt",
    "space": "ViT-L-14_stats.th",
    "clip": "ViT-L-14.pt",
}


class Karlo(UnCLIP):
    """`UnCLIP.from_pretrained("kakaobrain/karlo-v1-alpha")`, or the folder of Kakao Brain's own files, gives one."""

    upsampler_step = staticmethod(ddpm)
    system = "karlo"
    defaults: ClassVar[dict[str, Any]] = {
        "steps": 25, "guidance": 8.0, "prior_steps": 25, "prior_guidance": 4.0, "upsampler_steps": 7, "best_of": 1,
        "sampler": "ddpm", "prior_sampler": "ddpm",
    }  # fmt: skip

    def __init__(self, tokenizer: Tokenizer, clip: CLIP, prior: Prior | None, decoder: EncodedDecoder,
                 upsampler: Upsampler, name: str = "karlo", digest: str = ""):  # fmt: skip
        """prior: None where pictures are only varied, as in the folder of Karlo's image variations."""
        check_fit(clip, prior, decoder, upsampler)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.clip, self.prior, self.decoder = clip, prior, decoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.prior_ar, self.upsampler, self.upsampler_1024, self.students = None, upsampler, None, {}
        self.to("cpu", torch.float32)

    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Captions → seen [B, 77] (true where a token is: CLIP's "!" is 0, as padding is), encoded text [B, 77, width]
        and z_t [B, D] as CLIP gives it."""
        tokens, seen = self.tokenizer.encode(list(prompts), self.clip.config.context)
        text, z_t = self.clip.text(tokens.to(self.device))
        return seen.to(self.device), text, z_t.float()

    def embed(self, x: Tensor) -> Tensor:
        """pictures [B, 3, S, S] in [−1, 1] → z_i [B, D] as CLIP gives it."""
        if self.clip.image is None:
            raise UnclipError(f"{self.name!r} lacks CLIP's picture tower, and sees no pictures: put the folder "
                              "image_encoder of kakaobrain/karlo-v1-alpha-image-variations beside the others"
                              )  # fmt: skip
        side = self.clip.config.image_size
        seen = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        return self.clip.image(centred(seen, self.clip.config)).float()

    def condition(self, net: Any, z_i: Tensor, texts: Sequence[str], no_z_i: Tensor) -> Condition:
        """What the decoder is told: z_i [B, D], the learned null where `no_z_i` [B] is true, and B captions."""
        seen, text, z_t = self.read(texts)
        return net.condition(z_i, text, z_t, seen, no_z_i)

    def cut(self, text: str) -> str:
        return self.tokenizer.cut(text, self.clip.config.context)

    def prior_of(self, s: Settings) -> Any:
        return super().prior_of(s) if self.prior is not None else None

    def sample_prior(self, prompt: str | Sequence[str], negative: str, draw: Draw, s: Settings, tell: Tell) -> Tensor:
        if self.prior is None and s.prior != "none":
            raise UnclipError(f"{self.name!r} holds no prior, so that it can vary pictures but reads no caption: put "
                              "the folder prior of kakaobrain/karlo-v1-alpha beside the others")  # fmt: skip
        return super().sample_prior(prompt, negative, draw, s, tell)

    # ---- weights -------------------------------------------------------------------------------------------------

    @classmethod
    def from_diffusers(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "Karlo":
        tokenizer, parts = clip_tokenizer(folder / "tokenizer"), sorted(p.name for p in folder.iterdir() if p.is_dir())
        text = caption_tower(folder / "text_encoder", tokenizer, dtype)
        image: Any = load.load(folder / "image_encoder", dtype=dtype) if "image_encoder" in parts else None
        prior = sampled_prior(folder / "prior", folder / "prior_scheduler", dtype) if "prior" in parts else None
        decoder = fill(load.together(folder, "decoder", "text_proj"), diffusers.KARLO_DECODER, folder / "decoder",
                       dtype)  # fmt: skip
        upsampler = fill(load.together(folder, "super_res_first", "super_res_last"), diffusers.KARLO_UPSAMPLER,
                         folder / "super_res_first", dtype)  # fmt: skip
        return cls(tokenizer, towers(text, image), prior, decoder, upsampler, folder.name,
                   hub.fingerprint(folder, parts))  # fmt: skip

    @classmethod
    def from_native(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "Karlo":
        def part(name: str, family: Family) -> Any:
            return fill(open_file(folder / NATIVE[name]), family, folder / NATIVE[name], dtype)

        prior = part("prior", karlo.KARLO_PRIOR)
        set_space(prior, folder / NATIVE["space"])
        return cls(Tokenizer.clip(), part("clip", openai_clip.OPENAI_CLIP), prior, part("decoder", karlo.KARLO_DECODER),
                   part("upsampler", karlo.KARLO_SR), folder.name,
                   hub.fingerprint(folder, NATIVE.values()))  # fmt: skip

    @classmethod
    def from_saved(cls, folder: Path) -> "Karlo":
        name, digest, parts, _ = load.saved(folder, PARTS, ("decoder", "upsampler_256"))
        return cls(Tokenizer.load(folder / TOKENIZER), whole_clip(parts), parts.get("prior"), parts["decoder"],
                   parts["upsampler_256"], name, digest)  # fmt: skip

    @property
    def parts(self) -> dict[str, Any]:
        return by_tower(super().parts)

    def save_diffusers(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        return to_diffusers.karlo(self, Path(folder), dtype)


SYSTEM = Karlo
CLIPS: load.Kinds = {"clip": (CLIPConfig, CLIP), "text_encoder": (TextTowerConfig, TextTower),
                     "image_encoder": (ImageTowerConfig, ImageTower), "prior": (PriorConfig, Prior)}  # fmt: skip
PARTS: load.Kinds = {**CLIPS, "decoder": (EncodedDecoderConfig, EncodedDecoder),
                     "upsampler_256": (UpsamplerConfig, Upsampler)}  # fmt: skip


def found_in(folder: Path) -> bool:
    """Whether a folder is Karlo's: as diffusers saves it, or as it was first published."""
    index = read_json(folder / hub.INDEX) if (folder / hub.INDEX).is_file() else {}
    theirs = index.get("_class_name") in ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")
    return theirs or (folder / NATIVE["prior"]).is_file()


def from_folder(folder: Path) -> Karlo:
    """Read a folder that diffusers saved, or that of Kakao Brain's own files."""
    return Karlo.from_native(folder) if (folder / NATIVE["prior"]).is_file() else Karlo.from_diffusers(folder)


def native(names: list[str]) -> list[str]:
    """Kakao Brain's own files, where a repository holds its prior's."""
    return [name for name in names if name in NATIVE.values()] if NATIVE["prior"] in names else []


def fill(file: File, family: Family, path: Path, dtype: torch.dtype) -> Any:
    return load.fill(recognise(file.schema, [family], str(path)), file.read, dtype, file.forget)


def sampled_prior(folder: Path, scheduler: Path, dtype: torch.dtype) -> Prior:
    """The prior of a folder of diffusers', whose scheduler says how far an estimate may lie from the mean."""
    file, said = load.open_source(folder), read_json(scheduler / "scheduler_config.json")
    file = file._replace(schema=Schema(file.schema, file.schema.about | {"scheduler": said}))
    return fill(file, diffusers.PRIOR, folder, dtype)


def saved_prior(folder: Path) -> tuple[Tokenizer, CLIP, Prior, Scheduler | None]:
    """Of a system that we saved, what draws z_i of a caption: to be led by it is all that another wants of it."""
    found = load.saved(folder, CLIPS, ("prior",))
    clip = whole_clip(found.parts)
    if clip.text is None:
        raise UnclipError(f"{str(folder)!r} holds no text tower that its prior reads; name another prior")
    return Tokenizer.load(folder / TOKENIZER), clip, found.parts["prior"], found.schedulers.get("prior")


def set_space(prior: Prior, path: Path) -> None:
    """Mean and deviation of z_i, which were published in a file of their own."""
    stats = open_file(path)
    if sorted(spec.shape for spec in stats.schema.values()) != [tuple(prior.space.mean.shape)] * 2:
        embed = prior.config.embed
        raise UnclipError(f"{str(path)!r} is no mean and deviation of z_i, {embed} values each; fetch it again")
    mean, deviation = (stats.read(key) for key in sorted(stats.schema))
    prior.space.mean, prior.space.deviation = mean.float().clone(), deviation.float().clone()


def caption_tower(folder: Path, tokenizer: Tokenizer, dtype: torch.dtype) -> Any:
    """A text tower of Hugging Face's, read at the end token: of old folders, that with the greatest id."""
    text: Any = load.load(folder, dtype=dtype)
    if read_json(folder / "config.json").get("eos_token_id") == 2:
        text.end = tokenizer.end
        text.config = TextTowerConfig(**vars(text.config) | {"end": text.end})
    return text


def by_tower(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts with CLIP as what there is of it: whole, or one tower."""
    clip = parts["clip"]
    if clip.text is not None and clip.image is not None:
        return parts
    one = {"text_encoder": clip.text} if clip.image is None else {"image_encoder": clip.image}
    return one | {name: net for name, net in parts.items() if name != "clip"}


def whole_clip(parts: dict[str, Any]) -> CLIP:
    """What `by_tower` took apart."""
    if "clip" in parts:
        return parts["clip"]
    if not parts.keys() & {"text_encoder", "image_encoder"}:
        raise UnclipError("there is neither clip, text_encoder nor image_encoder among the parts; convert it again")
    return towers(parts.get("text_encoder"), parts.get("image_encoder"))


def towers(text: Any, image: Any) -> CLIP:
    """CLIP out of one or two towers that were kept apart; None stands for one that is missing."""
    told = vars((text or image).config)
    if text is not None and image is not None:
        if image.config.embed != told["embed"]:
            raise UnclipError(f"CLIP's picture tower gives {image.config.embed} numbers, its text tower "
                              f"{told['embed']}; use two of one CLIP")  # fmt: skip
        of_pictures = ("image_size", "patch", "image", "pre_norm", "mean", "std")
        told = told | {name: getattr(image.config, name) for name in of_pictures}
    with torch.device("meta"):
        clip = CLIP(c := CLIPConfig(**told))
    clip.text = text  # pyright: ignore[reportAttributeAccessIssue]
    clip.image = image  # pyright: ignore[reportAttributeAccessIssue]
    if text is not None:
        text.config = TextTowerConfig(c.embed, text=c.text, vocab=c.vocab, context=c.context, end=c.end)
    clip.log_scale = nn.Parameter(torch.zeros(()))  # of the two kept apart, none says it; nothing here asks
    return clip.requires_grad_(False).eval()


def check_fit(clip: CLIP, prior: Prior | None, decoder: EncodedDecoder, upsampler: Upsampler) -> None:
    """Parts that were not trained together would draw noise without a word."""
    c, d = clip.config, decoder.config
    p = {"prior": prior.config} if prior is not None else {}
    agree = {
        "embedding spaces": {"clip": c.embed, "decoder": d.embed} | {name: p.embed for name, p in p.items()},
        "widths of encoded text": {"clip": c.text.width, "decoder": d.text} | {name: p.text for name, p in p.items()},
        "caption lengths": {"clip": c.context} | {name: p.context for name, p in p.items()},
        "small pictures": {"decoder": d.size, "upsampler": upsampler.config.low},
    }
    for what, values in agree.items():
        if len(set(values.values())) > 1:
            raise UnclipError(f"these parts have different {what}: {values}; use parts trained on one CLIP")
    if prior is not None and not bool(prior.space.deviation.any()):
        raise UnclipError(f"the prior lacks the mean and deviation of z_i: put {NATIVE['space']} beside it")
