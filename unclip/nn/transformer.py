"""The one Transformer, used by CLIP's towers, the priors and the text encoders; its blocks normalise what they get."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from unclip.nn.attention import KV, Attention


@dataclass(frozen=True)
class TransformerConfig:
    width: int = 256
    depth: int = 6
    heads: int = 4
    dropout: float = 0.0
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    mlp: int | None = None  # width of the hidden layer; None: four times the width
    norm: Literal["layer", "rms"] = "layer"
    post_norm: bool = False  # blocks normalise the sum they end in (Vaswani et al. 2017), nothing follows the last
    eps: float = 1e-5


class QuickGELU(nn.Module):
    """x · σ(1.702 x), as OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


def normalise(config: TransformerConfig) -> nn.Module:
    return (nn.RMSNorm if config.norm == "rms" else nn.LayerNorm)(config.width, eps=config.eps)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, hidden, self.post_norm = config.width, config.mlp or 4 * config.width, config.post_norm
        activation = QuickGELU() if config.activation == "quick_gelu" else nn.GELU()
        self.norm_1, self.attention = normalise(config), Attention(width, config.heads)
        self.norm_2, self.mlp = normalise(config), nn.Sequential(
            nn.Linear(width, hidden), activation, nn.Linear(hidden, width), nn.Dropout(config.dropout)
        )

    def forward(self, x: Tensor, before: KV | None, mask: Tensor | None) -> tuple[Tensor, KV]:
        if self.post_norm:
            y, kv = self.attention(x, before, mask)
            x = self.norm_1(x + y)
            return self.norm_2(x + self.mlp(x)), kv
        y, kv = self.attention(self.norm_1(x), before, mask)
        x = x + y
        return x + self.mlp(self.norm_2(x)), kv


class Transformer(nn.Module):
    """x [B, L, width] → ([B, L, width], keys and values of each block, `before` included).

    The keys returned for a causal prefix are the cache: pass them as `before` and only the new tokens are computed.
    The mask is one for all blocks, or a sequence of one for each.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.Identity() if config.post_norm else normalise(config)
        self.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.7 / module.in_features**0.5)
            nn.init.zeros_(module.bias)
        if isinstance(module, Block):  # residual branches start small: their sum keeps unit scale at any depth
            for last in (module.attention.out, module.mlp[2]):
                assert isinstance(last, nn.Linear)
                nn.init.normal_(last.weight, std=0.7 / (last.in_features * 2 * self.config.depth) ** 0.5)

    def forward(
        self, x: Tensor, mask: Tensor | Sequence[Tensor] | None = None, before: list[KV] | None = None
    ) -> tuple[Tensor, list[KV]]:
        present = []
        for i, block in enumerate(self.blocks):
            own = mask if mask is None or isinstance(mask, Tensor) else mask[i]
            x, kv = block(x, before[i] if before else None, own)
            present.append(kv)
        return self.norm(x), present
