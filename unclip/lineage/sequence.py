"""Tokens drawn one by one from a causal Transformer, what came before kept as keys and values."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unclip.diffusion.draw import Draw
from unclip.lineage.system import choose
from unclip.nn.transformer import Transformer


@torch.no_grad()
def unroll(
    transformer: Transformer,
    masks: Sequence[Tensor],
    first: Tensor,
    embed: Callable[[Tensor, int], Tensor],
    head: Callable[[Tensor], Tensor],
    count: int,
    draw: Draw,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Tensor:
    """`count` tokens [B, count] after the embedded start `first` [B, L, width].

    masks: for each block what a position sees, [N, N] for the whole sequence. embed: token [B] and its number i → what
    the Transformer sees of it, [B, width]. head: [B, width] → logits of the next.
    """
    x, before, seen, drawn = first, None, 0, []
    for i in range(count):
        now = seen + x.shape[1]
        y, before = transformer(x, [mask[seen:now, :now] for mask in masks], before)
        drawn.append(choose(head(y[:, -1]), draw, temperature, top_k).to(x.device))
        x, seen = embed(drawn[-1], i)[:, None], now
    return torch.stack(drawn, dim=1)
