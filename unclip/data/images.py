"""The corpus in memory: uint8 pictures on the device, composed and varied there as batches are drawn."""

import io
import random
from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.data import captions, shards
from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A function of its arguments alone: what step s draws depends on (seed, s), never on what was drawn before."""
    return torch.Generator(device).manual_seed(Draw.hash(seed, stream))


def decode(data: bytes) -> Tensor:
    """A stored picture → uint8 RGBA [4, H, W]."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGBA")).transpose(2, 0, 1).copy())


def detail(rgba: Tensor, side: int, rng: random.Random, tries: int = 4) -> Tensor:
    """Of some random squares of a picture [4, H, W] the one that varies most, [4, side, side]."""
    places = [[rng.randint(0, length - side) for length in rgba.shape[1:]] for _ in range(tries)]
    parts = [rgba[:, y : y + side, x : x + side] for y, x in places]
    return max(parts, key=lambda part: compose(part[None]).var().item()).clone()


def compose(rgba: Tensor, ground: Tensor | None = None) -> Tensor:
    """uint8 RGBA [B, 4, H, W] over colours `ground` [B, 3] in 0..255, by default white → [B, 3, H, W] in [−1, 1]."""
    rgba = rgba.float()
    ground = rgba.new_full((len(rgba), 3), 255.0) if ground is None else ground
    alpha = rgba[:, 3:] / 255
    return (rgba[:, :3] * alpha + ground[:, :, None, None] * (1 - alpha)) / 127.5 - 1


def colours(rgba: Tensor, share: float = 0.4) -> list[str | None]:
    """The colour that `share` or more of each picture's own surface is nearest to, of COLOURS; uint8 [N, 4, S, S].

    White, grey and black are left out: outlines and paper are not what a thing is called by.
    """
    names = list(captions.COLOURS)
    palette, ruling = torch.tensor(list(captions.COLOURS.values()), dtype=torch.float32), []
    for part in rgba.cpu().split(256):
        small = F.avg_pool2d(part.float(), max(1, part.shape[-1] // 32)).flatten(2).mT  # [n, pixels, 4]
        nearest = torch.cdist(small[..., :3].contiguous(), palette).argmin(-1)
        seen = small[..., 3:] > 128
        shares = (F.one_hot(nearest, len(names)) * seen).sum(1) / seen.sum(1).clamp(min=1)
        most, which = shares[:, 3:].max(dim=1)
        ruling += [names[3 + i] if much >= share else None for much, i in zip(most, which.tolist(), strict=True)]
    return ruling


@dataclass
class Batch:
    index: Tensor  # [B], rows of the corpus
    pictures: Tensor  # [B, 3, S, S] in [−1, 1]
    captions: list[str]
    plain: Tensor  # boolean [B], true where the picture is as stored, on white


@dataclass
class Corpus:
    """images: uint8 RGBA [N, 4, S, S]; meta: what the shards say of each, with how often to draw it (`weight`)."""

    images: Tensor
    meta: list[dict]
    renamed: float = 0.0  # share of captions that are said in other words
    words: Mapping[str, dict[str, list[str]]] = field(default_factory=dict)  # these, as `thesaurus.load` gives them

    @classmethod
    def load(
        cls, folder: str | Path, size: int, split: str, core: bool = False, limit: int | None = None,
        crop: int | None = None,
    ) -> "Corpus":  # fmt: skip
        """Read DIR/size/split. core: only the pictures marked so. Samples keep the shards' order.

        crop: keep of each picture only a square of so many pixels a side, where there is something to see.
        """
        where = Path(folder) / str(size) / split
        if not where.is_dir():
            raise UnclipError(f"no shards in {str(where)!r}; make them with: unclip data illustrations {folder}")
        samples = list(islice((s for s in shards.read(where) if not core or s.meta.get("core")), limit))
        if not samples:
            raise UnclipError(f"{str(where)!r} holds no usable picture{' of the core part' if core else ''}")

        def picture(sample: shards.Sample) -> Tensor:
            image = decode(sample.image)
            if image.shape[1:] != (size, size):
                found = tuple(image.shape[1:])
                raise UnclipError(f"picture {sample.key!r} in {str(where)!r} is {found}, not {size}×{size}")
            return detail(image, crop, random.Random(sample.key)) if crop else image

        with ThreadPoolExecutor(2) as pool:
            images = list(pool.map(picture, samples))
        whole = torch.stack(images)
        ruling = colours(whole)
        return cls(whole, [s.meta | ({"colour": c} if c else {}) for s, c in zip(samples, ruling, strict=True)])

    def __len__(self) -> int:
        return len(self.meta)

    def to(self, device: torch.device | str) -> "Corpus":
        return replace(self, images=self.images.to(device))

    def keys(self, index: Sequence[int]) -> list[str]:
        return [self.meta[i]["key"] for i in index]

    def epoch(self, number: int, seed: int) -> Tensor:
        """Rows of one epoch, shuffled: systematic sampling, so a picture of weight 1 comes exactly once."""
        g = generator(seed, f"epoch {number}")
        weight = torch.tensor([m.get("weight", 1.0) for m in self.meta], dtype=torch.float64)
        edges = weight.cumsum(0)
        picks = round(edges[-1].item())
        points = (torch.arange(picks) + torch.rand(1, generator=g, dtype=torch.float64)) * edges[-1] / picks
        rows = torch.searchsorted(edges, points, right=True).clamp(max=len(self) - 1)
        return rows[torch.randperm(picks, generator=g)]

    def rows(self, step: int, batch: int, seed: int) -> Tensor:
        """Rows of batch number `step`: the epochs laid end to end, whatever was run before."""
        length = round(sum(m.get("weight", 1.0) for m in self.meta))
        first, last = step * batch // length, ((step + 1) * batch - 1) // length
        line = torch.cat([self.epoch(e, seed) for e in range(first, last + 1)])
        return line[step * batch - first * length :][:batch]

    def draw(self, step: int, batch: int, seed: int, coloured: float = 0.0, share: slice = slice(None)) -> Batch:
        """Batch `step`, or a share of it: pictures on white, or with chance `coloured` on a flat colour that the
        caption names. One-colour pictures are painted with a random ink half the time.
        """
        rng = random.Random(f"{seed} {step}" if share == slice(None) else f"{seed} {step} {share.start}")
        return self.view(self.rows(step, batch, seed)[share], rng, coloured)

    def view(self, rows: Tensor, rng: random.Random, coloured: float = 0.0) -> Batch:
        """Pictures of the given rows under drawn captions."""
        pictures = self.images[rows.to(self.images.device)]
        names, ground, lines, plain = list(captions.COLOURS), [], [], []
        for i, row in enumerate(rows.tolist()):
            meta = self.meta[row]
            ink = rng.choice(names[1:]) if meta.get("mono") and rng.random() < 0.5 else None
            behind = rng.choice([n for n in names if n != ink]) if rng.random() < coloured else None
            behind = None if meta.get("opaque") else behind  # nothing of a ground would be seen
            if ink:
                pictures[i, :3] = torch.tensor(captions.COLOURS[ink], dtype=torch.uint8)[:, None, None]
            ground.append(captions.COLOURS[behind or "white"])
            lines.append(self.caption(meta, rng, behind, ink))
            plain.append(not ink and not behind)
        colours = torch.tensor(ground, dtype=torch.float32, device=pictures.device)
        return Batch(rows, compose(pictures, colours), lines, torch.tensor(plain, device=pictures.device))

    def caption(self, meta: dict, rng: random.Random, behind: str | None, ink: str | None) -> str:
        if not self.renamed or behind or ink or "label" not in meta or rng.random() >= self.renamed:
            return captions.draw(meta, rng, behind, ink)
        english, near, chinese = (self.words.get(kind, {}) for kind in ("en", "near", "zh"))
        several = [names for names in (english.get(meta["label"]), near.get(meta["label"])) if names]
        names = ChainMap({meta["label"]: rng.choice(several)}, english) if several else english
        own = meta.get("label_zh")
        return captions.paraphrase(meta, names, [own, *chinese.get(meta["label"], ())] if own else [], rng)[0]


def jitter(pictures: Tensor, g: torch.Generator, scale: float = 0.15, turn: float = 0.1) -> Tensor:
    """Small random shifts, scalings (± `scale`) and turns (± `turn` radians); the border is carried outwards."""
    n = len(pictures)
    a, s, dx, dy = (2 * torch.rand(4, n, generator=g) - 1).to(pictures.device)
    s, a = 1 + scale * s, turn * a
    theta = torch.stack([a.cos() * s, -a.sin() * s, scale / 2 * dx, a.sin() * s, a.cos() * s, scale / 2 * dy], dim=1)
    grid = F.affine_grid(theta.view(n, 2, 3), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
