"""What a caption tells a prior: encoded text and z_t, or the learned nulls, at the head of its sequence."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import KV, causal
from unclip.nn.transformer import Transformer


class Prefix(NamedTuple):
    """What a caption contributes: constant while z_i is drawn, so computed once."""

    keys: list[KV]
    seen: Tensor  # [B, 1, 1, M ≤ context + 1], false where the caption is padding


class Prefixed(nn.Module):
    """A causal Transformer whose sequence begins with `context` tokens of text and z_t: what the priors share."""

    config: Any  # embed, text and context: widths of z_t and of the encoded text, and its length
    space: Any  # scale: what z_t is multiplied by
    text: nn.Linear
    z_t: nn.Linear
    position: Tensor  # [1, context + 1 + what the prior adds, width]
    null_text: Tensor
    null_z_t: Tensor
    transformer: Transformer

    def condition(self, text: Tensor, z_t: Tensor, seen: Tensor, drop: Tensor) -> Prefix:
        """text [B, L ≤ context, text width], unit z_t [B, embed], seen [B, L] (true where a token is), drop [B]
        (true where the condition is replaced by the learned null)."""
        given = self.prefix(text, self.space.scale * z_t, seen)
        if not drop.any():
            return given
        null = self.prefix(self.null_text[None], self.null_z_t[None], seen.new_ones(1, self.config.context))
        missing = self.config.context - text.shape[1]

        def choose(one: Tensor, other: Tensor) -> Tensor:
            return torch.where(drop[:, None, None, None], other, F.pad(one, (0, 0, 0, missing)))

        pairs = zip(given.keys, null.keys, strict=True)
        keys = [(choose(k, null_k), choose(v, null_v)) for (k, v), (null_k, null_v) in pairs]
        return Prefix(keys, choose(given.seen.mT, null.seen.mT).mT)

    def prefix(self, text: Tensor, z_t: Tensor, seen: Tensor) -> Prefix:
        """The Transformer over encoded text [B, L, text width] and scaled z_t [B, embed]."""
        length, context = text.shape[1], self.config.context
        place = torch.cat([self.position[:, :length], self.position[:, context : context + 1]], dim=1)
        x = torch.cat([self.text(text), self.z_t(z_t)[:, None]], dim=1) + place
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)[:, None, None]
        return Prefix(self.transformer(x, causal(length + 1, device=x.device) & seen)[1], seen)
