"""The diffusion prior P(z_i | y): a causal Transformer that denoises z_i given a caption (DALL·E 2, section 2.2)."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unclip.diffusion.process import Process
from unclip.nn.attention import KV, causal
from unclip.nn.embed import TimeEmbedding
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class PriorConfig:
    embed: int = 256  # width of z_i and z_t
    text: int = 256  # width of the encoded text
    context: int = 32
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=320, depth=6, heads=5))
    diffusion: Process = field(default_factory=lambda: Process(predicts="x0"))


class Prefix(NamedTuple):
    """What a caption contributes: constant while z_i is denoised, so computed once."""

    keys: list[KV]
    seen: Tensor  # [B, 1, 1, M ≤ context + 1], false where the caption is padding

    def repeat(self, times: int) -> "Prefix":
        """Each caption's several times over, side by side."""
        keys = [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.keys]
        return Prefix(keys, self.seen.repeat_interleave(times, 0))


class Prior(nn.Module):
    """Sequence: encoded text, z_t, t, noised z_i, final; the last output is the estimate of the clean z_i.

    z_i and z_t enter scaled to unit variance a component (the paper's 17.2 for its CLIP): `scale` · unit vector.
    """

    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.scale = config.embed**0.5
        self.text, self.z_t, self.z_i = (nn.Linear(n, width) for n in (config.text, config.embed, config.embed))
        self.time = TimeEmbedding(width, width)
        self.final = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, config.context + 4, width) * 0.02)
        self.null_text = nn.Parameter(torch.randn(config.context, config.text) * 0.02)
        self.null_z_t = nn.Parameter(torch.randn(config.embed) * 0.02)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.embed)

    def condition(self, text: Tensor, z_t: Tensor, seen: Tensor, drop: Tensor) -> Prefix:
        """text [B, L ≤ context, text width], unit z_t [B, embed], seen [B, L] (true where a token is), drop [B]
        (true where the condition is replaced by the learned null)."""
        given = self.prefix(text, self.scale * z_t, seen)
        if not drop.any():
            return given
        null = self.prefix(self.null_text[None], self.null_z_t[None], seen.new_ones(1, self.config.context))
        missing = self.config.context - text.shape[1]

        def choose(one: Tensor, other: Tensor) -> Tensor:
            return torch.where(drop[:, None, None, None], other, nn.functional.pad(one, (0, 0, 0, missing)))

        pairs = zip(given.keys, null.keys, strict=True)
        keys = [(choose(k, null_k), choose(v, null_v)) for (k, v), (null_k, null_v) in pairs]
        return Prefix(keys, choose(given.seen.mT, null.seen.mT).mT)

    def prefix(self, text: Tensor, z_t: Tensor, seen: Tensor) -> Prefix:
        """The Transformer over encoded text [B, L, text width] and scaled z_t [B, embed]."""
        length = text.shape[1]
        place = torch.cat([self.position[:, :length], self.position[:, -4:-3]], dim=1)
        x = torch.cat([self.text(text), self.z_t(z_t)[:, None]], dim=1) + place
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)[:, None, None]
        return Prefix(self.transformer(x, causal(length + 1, device=x.device) & seen)[1], seen)

    def forward(self, x: Tensor, t: Tensor, given: Prefix) -> Tensor:
        """x: noised scale · z_i [B, embed], t [B] → the estimate of scale · z_i [B, embed]."""
        tail = torch.cat([self.time(t)[:, None], self.z_i(x)[:, None], self.final.expand(len(x), -1, -1)], dim=1)
        before = given.seen.shape[-1]
        visible = torch.cat([given.seen, given.seen.new_ones(len(x), 1, 1, 3)], dim=-1)
        mask = causal(3, before, x.device) & visible
        y, _ = self.transformer(tail + self.position[:, -3:], mask, given.keys)
        return self.out(y[:, -1]).float()
