"""Image-GPT (Chen et al. 2020): pixels as a sentence of colours, told one after the other by a Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.lineage.palette import Palette, shrink
from unclip.lineage.sequence import unroll
from unclip.lineage.system import System
from unclip.lineage.vae import per_dimension
from unclip.models.image_gpt import ImageGPT, ImageGPTConfig
from unclip.nn.attention import causal
from unclip.nn.transformer import TransformerConfig


@dataclass(frozen=True)
class PixelGPTConfig:
    size: int = 32
    colours: int = 512  # 9 bits (section 3.2)
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(128, 4, 4))


class PixelGPT(nn.Module):
    """p(x) = Π p(x_i | x_1 … x_{i−1}) in raster order (eq. 1): the published network and its palette."""

    def __init__(self, config: PixelGPTConfig):
        super().__init__()
        self.config, self.palette = config, Palette(config.colours)
        self.net = ImageGPT(ImageGPTConfig(config.colours, config.size**2, config.transformer))

    def nll(self, codes: Tensor) -> Tensor:
        """−ln p of each pixel, [B, N] (eq. 2)."""
        return F.cross_entropy(self.net(codes[:, :-1]).mT, codes, reduction="none")

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """Nats a pixel."""
        return self.nll(self.palette.nearest(x).flatten(1)).mean()

    def embed(self, codes: Tensor, first: int = 0) -> Tensor:
        """What the Transformer sees of codes [B, n] at the places `first` and on: each stands before the next."""
        return self.net.tokens(codes) + self.net.position[:, first : first + codes.shape[1]]

    def begin(self, codes: Tensor) -> Tensor:
        """The start token and codes [B, n] → [B, 1 + n, width]."""
        return self.embed(F.pad(codes, (1, 0), value=self.config.colours))

    def sample(self, draw: Draw, start: Tensor | None = None, temperature: float = 1.0, top_k: int = 0) -> Tensor:
        """Codes [B, N]; `start` [B, n] are kept and the rest is drawn."""
        places, device = self.config.size**2, self.palette.colours.device
        known = torch.zeros(len(draw.generators), 0, dtype=torch.long, device=device) if start is None else start
        n = known.shape[1]
        masks = [causal(places, device=device)] * self.config.transformer.depth

        def embed(code: Tensor, i: int) -> Tensor:  # after the last none is asked: its place does not matter
            return self.embed(code[:, None], min(n + i + 1, places - 1))[:, 0]

        drawn = unroll(self.net.transformer, masks, self.begin(known), embed, self.net.out, places - n, draw,
                       temperature, top_k)  # fmt: skip
        return torch.cat([known, drawn], dim=1)

    def features(self, x: Tensor) -> Tensor:
        """The middle block's tokens, averaged (section 4.1: the best features are not the last)."""
        h = self.begin(self.palette.nearest(x).flatten(1)[:, :-1])
        mask, blocks = causal(h.shape[1], device=h.device), self.net.transformer.blocks
        for block in blocks[: max(1, len(blocks) // 2)]:
            h, _ = block(h, None, mask)
        return h.mean(1)


class ImageGPTSystem(System):
    title, models = "Image-GPT", "Π p(pixel | pixels before)"
    parts: ClassVar = {"image_gpt": (PixelGPTConfig, PixelGPT)}
    image_gpt: PixelGPT
    temperature, top_k = 1.0, 0

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size, self.calls = self.image_gpt.config.size, self.image_gpt.config.size**2

    def unrolled(self, seeds: Sequence[int], start: Tensor | None = None) -> Tensor:
        codes = self.image_gpt.sample(Draw(seeds, "image_gpt"), start, self.temperature, self.top_k)
        return self.image_gpt.palette(codes.unflatten(1, (self.size, self.size)))

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.unrolled(seeds)

    def complete(self, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """The lower half drawn anew (figure 1)."""
        codes = self.image_gpt.palette.nearest(shrink(pictures, self.size)).flatten(1)
        return self.unrolled(seeds, codes[:, : codes.shape[1] // 2])

    def redraw(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.complete(pictures, seeds)

    def bits(self, pictures: Tensor) -> Tensor:
        codes = self.image_gpt.palette.nearest(pictures).flatten(1)
        return per_dimension(self.image_gpt.nll(codes).sum(1), pictures)

    def features(self, pictures: Tensor) -> Tensor:
        return self.image_gpt.features(shrink(pictures, self.size))
