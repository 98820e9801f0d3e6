"""GLIDE's text to token ids: GPT-2's byte-level BPE of the text in lower case, with no start and no end."""

import bz2
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers import models
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from unclip.models.tokenizer import valid

# GPT-2's 50,000 merges in their order. Those with a capital letter are left empty: in lower case none can come about.
MERGES = Path(__file__).parent.parent / "assets" / "glide_bpe.txt.bz2"
PAD = 50256
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class GlideTokenizer:
    def __init__(self) -> None:
        import regex

        lines = bz2.decompress(MERGES.read_bytes()).decode().split("\n")
        letters = sorted(ByteLevel.alphabet(), key=ord)  # bytes that print, then the rest, renamed from U+0100 on
        vocabulary = {letter: i for i, letter in enumerate(letters)}
        merges = {256 + i: (line.split(" ")[0], line.split(" ")[1]) for i, line in enumerate(lines) if line}
        vocabulary |= {left + right: i for i, (left, right) in merges.items()}
        self.bpe = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges.values())))
        self.bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
        self.pattern = regex.compile(WORDS)

    def ids(self, text: str) -> list[int]:
        """As many as the text has."""
        return self.bpe.encode(self.words(text), is_pretokenized=True).ids

    def words(self, text: str) -> list[str]:
        return self.pattern.findall(valid(text).lower())

    def cut(self, text: str, context: int = 128) -> str:
        """The part of `text`, in lower case, that `encode` leaves out; '' if all fits."""
        words = self.words(text)
        encoding = self.bpe.encode(words, is_pretokenized=True)
        if len(encoding) <= context:
            return ""
        word, (begin, _) = encoding.word_ids[context] or 0, encoding.offsets[context]
        return "".join(words[word:])[begin:].strip()

    def encode(self, texts: str | Sequence[str], context: int = 128) -> tuple[Tensor, Tensor]:
        """Ids, int64 [B, context], and a mask, True where a token is. A text that is too long loses its tail."""
        rows = [self.ids(text)[:context] for text in ([texts] if isinstance(texts, str) else texts)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.tensor([row + [PAD] * (context - len(row)) for row in rows], dtype=torch.long)
        return ids.view(-1, context), torch.arange(context) < lengths[:, None]
