"""The text encoder of Kandinsky 2.1: XLM-R (Conneau et al. 2020, 1911.02116), taught by CLIP to sum captions up in its
space (Multilingual CLIP, Carlsson et al. 2022). Unlike CLIP's it is not causal, and normalises after each block.

Sentence encoders of BERT's kind (Reimers & Gurevych 2019, 1908.10084) are the same without the projection."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
import torch
from torch import Tensor, nn

from unclip.errors import UnclipError
from unclip.files import write_bytes
from unclip.models.tokenizer import valid
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class MultilingualConfig:
    embed: int | None = 768  # width of what sums the caption up; None: the mean itself
    vocab: int = 250_002
    context: int = 514  # positions, of which the first two are none of a token
    kinds: int = 1  # of sequence; all are of the first
    pad: int = 1  # id of padding, and the position before the first
    text: TransformerConfig = field(default_factory=lambda: TransformerConfig(1024, 24, 16, post_norm=True))


class MultilingualCLIP(nn.Module):
    """tokens [B, L] → (sequence [B, L, width], sum [B, embed]: the mean over tokens that are no padding, projected)."""

    def __init__(self, config: MultilingualConfig):
        super().__init__()
        self.config = c = config
        self.tokens, self.position = nn.Embedding(c.vocab, c.text.width), nn.Embedding(c.context, c.text.width)
        self.kind = nn.Embedding(c.kinds, c.text.width)
        self.norm = nn.LayerNorm(c.text.width, eps=c.text.eps)
        self.transformer = Transformer(c.text)
        self.project = nn.Identity() if c.embed is None else nn.Linear(c.text.width, c.embed)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        seen = tokens != self.config.pad
        place = seen.cumsum(1) * seen + self.config.pad
        x = self.norm(self.tokens(tokens) + self.position(place) + self.kind.weight[0])
        x, _ = self.transformer(x, seen[:, None, None])
        mean = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return x, self.project(mean)


class MultilingualTokenizer:
    """XLM-R's: start + pieces of words + end, filled up with padding."""

    def __init__(self, pieces: tokenizers.Tokenizer):
        ids = [pieces.token_to_id(name) for name in ("<s>", "<pad>", "</s>")]
        if None in ids:
            raise UnclipError("the vocabulary lacks '<s>', '<pad>' or '</s>'; it is not XLM-R's")
        self.start, self.pad, self.end = ids
        self.pieces = pieces
        pieces.no_truncation()
        pieces.no_padding()

    @property
    def vocab_size(self) -> int:
        return self.pieces.get_vocab_size()

    def encode(self, texts: Sequence[str], context: int = 77) -> Tensor:
        """Ids, int64 [B, context]. A text that is too long loses its tail (see `cut`), never its end token."""
        found = self.pieces.encode_batch([valid(text) for text in texts], add_special_tokens=False)
        rows = [[self.start, *e.ids[: context - 2], self.end] for e in found]
        return torch.tensor([row + [self.pad] * (context - len(row)) for row in rows])

    def save(self, path: Path) -> None:
        """Write everything to one JSON file, whole or not at all."""
        write_bytes(path, self.pieces.to_str().encode())

    def cut(self, text: str, context: int = 77) -> str:
        """The part of `text` that `encode` leaves out, '' if all fits."""
        text = valid(text)
        found = self.pieces.encode(text, add_special_tokens=False)
        return text[found.offsets[context - 2][0] :].strip() if len(found) > context - 2 else ""
