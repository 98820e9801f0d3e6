"""The four stages of DALL·E 2 as the loop sees them. A recipe's dataclass stands above its stage."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unclip.data import captions
from unclip.data.degrade import gaussian_blur
from unclip.data.images import Batch, Corpus, compose, jitter
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import CFG, Clip
from unclip.diffusion.levels import spread
from unclip.diffusion.samplers import ddim, walk
from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.pictures import grid
from unclip.train.recipe import Recipe, Stage
from unclip.weights.checkpoint import load_module

TOKENIZER = Path("tokenizer") / "tokenizer.json"
MANY = 32  # captions that a picture is matched against


class Encoders:
    """What the later stages read captions and pictures with: the tokenizer, and CLIP, frozen."""

    def __init__(self, model: Path, device: torch.device):
        if not (model / "clip").is_dir():
            raise UnclipError(f"{str(model)!r} holds no trained CLIP; train it first: unclip train mini.clip --out …")
        self.tokenizer, self.device = Tokenizer.load(model / TOKENIZER), device
        net, self.config = load_module(model / "clip", CLIPConfig, CLIP)
        self.clip = net.to(device)
        self.table: Tensor | None = None

    @torch.no_grad()
    def z_i(self, batch: Batch, corpus: Corpus) -> Tensor:
        """Unit z_i of a batch. Those of plain pictures never change: they are made once, at the first batch."""
        if self.table is None:
            self.table = torch.cat([self.clip.encode_image(compose(part)) for part in corpus.images.split(256)])
        z_i, varied = self.table[batch.index.to(self.device)], ~batch.plain
        if varied.any():
            z_i[varied] = self.clip.encode_image(batch.pictures[varied])
        return z_i

    def tokens(self, lines: list[str]) -> Tensor:
        return tokens(self.tokenizer, lines, self.config.context).to(self.device)


def tokens(tokenizer: Tokenizer, lines: list[str], context: int) -> Tensor:
    """Token ids [B, L], L the longest caption's length rounded up to 8: shorter sequences, few shapes."""
    ids, seen = tokenizer.encode(lines, context)
    return ids[:, : min(context, -(-int(seen.sum(1).max()) // 8) * 8)]


def noise(shape: tuple[int, ...], g: torch.Generator, device: torch.device) -> Tensor:
    """Normal noise from `g`, made on the device itself when that is not the CPU."""
    if device.type != "cpu":
        g = torch.Generator(device).manual_seed(g.initial_seed())
    return torch.randn(shape, generator=g, device=device)


def chance(p: float, n: int, g: torch.Generator, device: torch.device) -> Tensor:
    """Boolean [n], true with probability p."""
    return (torch.rand(n, generator=g) < p).to(device)


def held_out(recipe: Recipe, data: Path, split: str, limit: int) -> tuple[Tensor, list[str], list[dict]]:
    """The first pictures of a split on white, [N, 3, S, S], their captions and metas; every run sees the same."""
    corpus = Corpus.load(data, recipe.data.size, split, recipe.data.core, limit)
    lines = [captions.canonical(m) if "label" in m else m["caption"] for m in corpus.meta]
    return compose(corpus.images), lines, corpus.meta


# ---- CLIP ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CLIPRecipe(Recipe):
    model: CLIPConfig = field(default_factory=CLIPConfig)
    keep: float = 0.5  # share of the patches that the image tower sees in training (FLIP, Li et al. 2212.00794)

    def stage(self, data: Path, model: Path, device: torch.device) -> "CLIPStage":
        return CLIPStage(self, data, model, device)


class CLIPStage(Stage):
    """Also makes the tokenizer when the run has none yet."""

    recipe: CLIPRecipe

    def __init__(self, recipe: CLIPRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, device)
        if not (model / TOKENIZER).exists():
            (model / TOKENIZER).parent.mkdir(parents=True, exist_ok=True)
            Tokenizer.train(captions.every(self.corpus.meta), recipe.model.vocab).save(model / TOKENIZER)
        self.tokenizer = Tokenizer.load(model / TOKENIZER)
        self.net = CLIP(recipe.model).to(device)
        self.splits = {s: held_out(recipe, data, s, 16 * MANY) for s in ("val", "compose")}

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = tokens(self.tokenizer, batch.captions, self.recipe.model.context).to(self.device)
        metas = [self.corpus.meta[i] for i in batch.index.tolist()]
        pairs = list(zip(metas, batch.captions, strict=True))
        same = torch.tensor([[describes(other, line, meta) for other, line in pairs] for meta in metas])
        pictures = jitter(batch.pictures, g)
        return self.net.loss(pictures, ids, same.to(self.device), self.recipe.keep, g)

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[None, dict[str, float]]:
        return None, {f"{name}_recall": recall(net, self.tokenizer, *split[:2]) for name, split in self.splits.items()}


def describes(other: dict, caption: str, meta: dict) -> bool:
    """Whether a caption drawn for picture `other` is true of picture `meta` too, as far as their labels tell."""
    if other.get("label", other["key"]) != meta.get("label", meta["key"]):
        return False
    style = other.get("style")
    return style == meta.get("style") or not captions.names_style(caption, style)


@torch.no_grad()
def recall(clip: CLIP, tokenizer: Tokenizer, pictures: Tensor, lines: list[str]) -> float:
    """recall@1: how often a picture's own caption is the nearest of MANY (its neighbours in the list)."""
    device = clip.log_scale.device
    z_i = torch.cat([clip.encode_image(p.to(device)) for p in pictures.split(MANY)])
    z_t = torch.cat([clip.encode_text(tokens(tokenizer, lines[i : i + MANY], clip.config.context).to(device))[1]
                     for i in range(0, len(lines), MANY)])  # fmt: skip
    right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=device)
             for a, b in zip(z_i.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
    return torch.cat(right).float().mean().item()


# ---- the diffusion models ------------------------------------------------------------------------------------


class DiffusionStage(Stage):
    """Gaussian diffusion of whatever `target` gives: L_simple or L_hybrid at level T · u^late, u uniform."""

    late = 1.0  # below 1, more often near pure noise

    def __init__(self, recipe: Recipe, data: Path, device: torch.device, net: nn.Module):
        super().__init__(recipe, data, device)
        layout = torch.channels_last if recipe.data.size and any(p.ndim == 4 for p in net.parameters()) else None
        self.net = net.to(device, memory_format=layout) if layout else net.to(device)
        self.process = recipe.model.diffusion
        self.levels, self.denoiser = self.process.levels(), self.process.denoiser(self.net)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        """x0 [B, ...] and what the network is given beside the noised x0."""
        raise TypeError(f"{type(self).__name__} defines no target")

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        x0, given = self.target(batch, g)
        i = 1 + ((len(self.levels) - 1) * torch.rand(len(x0), generator=g, dtype=torch.float64) ** self.late).long()
        eps = noise(tuple(x0.shape), g, self.device)
        return self.denoiser.loss(x0, self.levels[i], self.levels[i - 1], eps, given=given).mean()

    @torch.no_grad()
    def sample(self, net: nn.Module, x0: Tensor, steps: int, given: object, cfg: float = 0) -> Tensor:
        """DDIM samples of x0's shape, from the same noise at every preview."""
        denoise = self.process.denoiser(net)
        denoise = Clip(CFG(denoise, cfg) if cfg else denoise, *self.bounds)
        x = Draw(range(len(x0)), "preview").like(x0)
        for x, _ in walk(denoise, x, self.levels.spaced(spread(self.process.T, steps)).down(), ddim(), given=given):
            pass
        return x

    bounds = (-1.0, 1.0)


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    model: PriorConfig = field(default_factory=PriorConfig)
    drop: float = 0.1  # how often the condition is left out
    late: float = 0.4  # beyond t = 700 lies what the caption must tell; before, noised z_i tells most of it itself
    repeats: int = 8  # noised z_i for each caption: its prefix is most of the work, and they share it

    def stage(self, data: Path, model: Path, device: torch.device) -> "PriorStage":
        return PriorStage(self, data, model, device)


class PriorStage(DiffusionStage):
    recipe: PriorRecipe
    bounds = (-5.0, 5.0)

    def __init__(self, recipe: PriorRecipe, data: Path, model: Path, device: torch.device):
        self.encoders = Encoders(model, device)
        super().__init__(recipe, data, device, Prior(recipe.model))
        self.late = recipe.late
        self.splits = {s: held_out(recipe, data, s, 8 * MANY)[:2] for s in ("val", "compose")}

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        ids = self.encoders.tokens(batch.captions)
        z_i = self.encoders.z_i(batch, self.corpus)
        with torch.no_grad():
            text, z_t = self.encoders.clip.encode_text(ids)
        drop = chance(self.recipe.drop, len(ids), g, self.device)
        given = self.net.condition(text, z_t, ids != 0, drop)
        return (self.net.scale * z_i).repeat_interleave(self.recipe.repeats, 0), given.repeat(self.recipe.repeats)

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[None, dict[str, float]]:
        """Cosine of the sampled z_i to the true one and to z_t, and of z_t to the true z_i as the baseline."""
        measures = {}
        for name, (pictures, lines) in self.splits.items():
            ids = self.encoders.tokens(lines)
            text, z_t = self.encoders.clip.encode_text(ids)
            given = net.condition(text, z_t, ids != 0, torch.zeros(len(ids), dtype=torch.bool, device=self.device))
            z_i = self.encoders.clip.encode_image(pictures.to(self.device))
            z = F.normalize(self.sample(net, z_i, 16, given), dim=-1)
            right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
                     for a, b in zip(z.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
            measures[f"{name}_cos_z_i"] = (z * z_i).sum(1).mean().item()
            measures[f"{name}_cos_z_t"] = (z * z_t).sum(1).mean().item()
            measures[f"{name}_recall"] = torch.cat(right).float().mean().item()
        return None, measures


@dataclass(frozen=True)
class DecoderRecipe(Recipe):
    model: DecoderConfig = field(default_factory=DecoderConfig)
    drop_z: float = 0.1  # how often z_i is the learned null
    drop_text: float = 0.5  # how often the caption is empty

    def stage(self, data: Path, model: Path, device: torch.device) -> "DecoderStage":
        return DecoderStage(self, data, model, device)


class DecoderStage(DiffusionStage):
    recipe: DecoderRecipe

    def __init__(self, recipe: DecoderRecipe, data: Path, model: Path, device: torch.device):
        self.encoders = Encoders(model, device)
        super().__init__(recipe, data, device, Decoder(recipe.model))
        pictures, self.lines, _ = held_out(recipe, data, "compose", 24)
        self.real = pictures.to(device)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        ids = self.encoders.tokens(batch.captions)
        z_i = self.encoders.z_i(batch, self.corpus)
        drop_z, drop_text = (chance(p, len(ids), g, self.device) for p in (self.recipe.drop_z, self.recipe.drop_text))
        return batch.pictures, self.net.condition(z_i, ids, drop_z, drop_text)

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[Image.Image, dict[str, float]]:
        """Rows of eight: unseen pictures, and beneath what the decoder makes of their z_i and caption."""
        n = len(self.real)
        ids = self.encoders.tokens(self.lines * 2)
        z_i = self.encoders.clip.encode_image(self.real).repeat(2, 1)
        absent = torch.arange(2 * n, device=self.device) < n
        made = self.sample(net, self.real, 12, net.condition(z_i, ids, absent, absent), cfg=2.0)
        rows = [part for pair in zip(self.real.split(8), made.split(8), strict=True) for part in pair]
        return grid(torch.cat(rows)), {"mse": (made - self.real).square().mean().item()}


@dataclass(frozen=True)
class UpsamplerRecipe(Recipe):
    model: UpsamplerConfig = field(default_factory=UpsamplerConfig)
    blur: float = 0.5  # how often the small picture is blurred

    def stage(self, data: Path, model: Path, device: torch.device) -> "UpsamplerStage":
        return UpsamplerStage(self, data, device)


class UpsamplerStage(DiffusionStage):
    """Learns on crops of a quarter of the side."""

    recipe: UpsamplerRecipe

    def __init__(self, recipe: UpsamplerRecipe, data: Path, device: torch.device):
        super().__init__(recipe, data, device, Upsampler(recipe.model))
        self.factor = recipe.model.size // recipe.model.low
        self.real = held_out(recipe, data, "val", 6)[0].to(device)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, Tensor]:
        low = F.avg_pool2d(batch.pictures, self.factor)
        blurred = chance(self.recipe.blur, len(low), g, self.device)
        low = torch.where(blurred[:, None, None, None], gaussian_blur(low), low)
        x0, high = crops(batch.pictures, self.net.condition(low), self.recipe.model.low, self.factor, g)
        return x0, high

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[Image.Image, dict[str, float]]:
        """Rows: the small picture enlarged, what the upsampler makes of it, the real one."""
        low = net.condition(F.avg_pool2d(self.real, self.factor))
        made = self.sample(net, self.real, 8, low)
        error = {name: (x - self.real).square().mean().item() for name, x in (("mse", made), ("mse_bicubic", low))}
        return grid(torch.cat([low, made, self.real]), columns=len(low)), error


def crops(a: Tensor, b: Tensor, size: int, multiple: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random crop [size, size] of each pair of pictures, its corner on a multiple of `multiple`."""
    corners = torch.randint(0, (a.shape[2] - size) // multiple + 1, (len(a), 2), generator=g) * multiple
    both = torch.cat([a, b], dim=1)
    cut = [p[:, y : y + size, x : x + size] for p, (y, x) in zip(both, corners.tolist(), strict=True)]
    first, second = torch.stack(cut).split([a.shape[1], b.shape[1]], dim=1)
    return first, second
