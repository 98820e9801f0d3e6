"""The one attention: self-attention whose keys may be joined by those of a context or of a cached prefix."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KV = tuple[Tensor, Tensor]  # keys and values, each [B, heads, length, head width]


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v over the sequence itself and whatever came before it.

    x: [B, L, width]; `before`: keys and values placed ahead of the sequence's own (a cached causal prefix, or the
    context of `keys`); mask: boolean [..., L, before + L], true where a query may look. Returns [B, L, width].
    own=False: the sequence has no keys of its own, and looks at what came before alone.
    """

    def __init__(self, width: int, heads: int, context: int | None = None, own: bool = True):
        super().__init__()
        self.heads, self.parts = heads, 3 if own else 1
        self.qkv = nn.Linear(width, self.parts * width)
        self.context = nn.Linear(context, 2 * width) if context else None
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, L, parts · width] → parts of [B, heads, L, head width]."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def keys(self, context: Tensor) -> KV:
        """Keys and values of a context [B, M, context width]; constant while sampling, so made once."""
        assert self.context is not None, "this attention was built without a context"
        k, v = self.split(self.context(context), 2)
        return k, v

    def forward(self, x: Tensor, before: KV | None = None, mask: Tensor | None = None) -> tuple[Tensor, KV]:
        q, *own = self.split(self.qkv(x), self.parts)
        given = [v.to(q) for v in before] if before is not None else []
        k, v = (torch.cat(both, dim=2) for both in zip(given, own, strict=True)) if given and own else given or own
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q kᵀ / √d) v. The fused kernel rounds by the number of CPU threads when queries are few (measured at
    less than 32): those are written out, which costs no more."""
    if q.device.type != "cpu" or q.shape[2] >= 32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v


def causal(length: int, before: int = 0, device: torch.device | None = None) -> Tensor:
    """Mask [length, before + length]: each position sees everything before the sequence, itself, and its past."""
    return torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
