"""Text to token ids: our own byte-level BPE, and CLIP's.

Both give `start + BPE + end`, padded to the context, and both treat every prompt as plain text: no spelling of a
special token in a prompt becomes that token. Both are byte-level, so any string at all can be encoded.
"""

import gzip
import html
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from unclip.errors import UnclipError
from unclip.files import write_bytes

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = Path(__file__).parent.parent / "assets" / "clip_bpe.txt.gz"

# A Chinese character is always a word of its own: captions are few, and tokens that span characters would tie each
# character to the phrases it was seen in. A digit is one too. Other words carry the space before them.
WORDS = r"'(?:s|t|re|ve|m|ll|d)\b|\p{Han}| ?(?:(?!\p{Han})[\p{L}\p{M}])+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s"

# CLIP's words are split by the `regex` package, as in the original: the engine inside `tokenizers` knows an older
# Unicode, and differs on some 17,000 characters. `regex` and `ftfy` are imported where CLIP's tokenizer needs them:
# ours does without, and starts a tenth of a second sooner.
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def valid(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates, which no encoding can hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clip_clean(text: str) -> str:
    """What CLIP was trained to see: mojibake and HTML entities undone, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(valid(text))))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Byte-level BPE. Make one with `Tokenizer.train`, `Tokenizer.load` or `Tokenizer.clip`.

    `start`, `end` and `pad` are ids. For CLIP `pad` is 0, which is also the token "!": tell padding from text by the
    mask that `encode` returns, never by the id.
    """

    def __init__(self, bpe: tokenizers.Tokenizer):
        names = (CLIP_START, CLIP_END) if bpe.token_to_id(CLIP_START) is not None else (START, END)
        start, end = map(bpe.token_to_id, names)
        if start is None or end is None:
            raise UnclipError(f"the vocabulary lacks {START!r} or {END!r}; it was not made by unclip")
        self.bpe = bpe
        self.start, self.end, self.pad = start, end, 0
        self.is_clip = names[0] == CLIP_START

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8192) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` entries (fewer if `texts` hold too few pairs seen twice)."""
        least = 3 + len(ByteLevel.alphabet())
        if vocab_size < least:
            raise UnclipError(f"vocab_size is {vocab_size}; it must be at least {least}: every byte and three specials")
        bpe = own_pipeline(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[PAD, START, END],
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(map(valid, texts), trainer)
        # The trainer registers its special tokens as matching in text; a fresh pipeline around the model does not.
        return cls(own_pipeline(bpe.model))

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a file that `save` wrote."""
        try:
            found = cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
            if found.bpe.padding is not None:
                found.pad = found.bpe.padding["pad_id"]
                found.bpe.no_padding()  # rows are filled up here
            return found
        except OSError as e:
            raise UnclipError(f"cannot read the tokenizer {str(path)!r}: {e.strerror}; give a tokenizer.json") from e
        except UnclipError as e:
            raise UnclipError(f"{str(path)!r} is not a tokenizer of ours: {e}") from e
        except Exception as e:  # the Rust side raises bare Exception for anything that it cannot parse
            raise UnclipError(f"{str(path)!r} is not a tokenizer.json: {e}") from e

    @classmethod
    def clip(cls) -> "Tokenizer":
        """OpenAI CLIP's 49,408 entries: 256 bytes, the same as last of a word, 48,894 merges, start, end."""
        lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode().splitlines()
        merges = [(left, right) for left, right in map(str.split, lines)]
        # Bytes that print stand for themselves and come first; the rest follow, renamed from U+0100 on.
        letters = sorted(ByteLevel.alphabet(), key=ord)
        names = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
        return cls.like_clip({name: i for i, name in enumerate([*names, CLIP_START, CLIP_END])}, merges)

    @classmethod
    def like_clip(
        cls, vocabulary: dict[str, int], merges: list[tuple[str, str]], unknown: str | None = None
    ) -> "Tokenizer":
        """CLIP's way with words, with other entries; `unknown` stands for letters that the vocabulary lacks."""
        model = models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=unknown)
        bpe = tokenizers.Tokenizer(model)
        bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
        bpe.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])  # Ġ names the space
        return cls(bpe)

    def save(self, path: str | Path) -> None:
        """Write everything to one JSON file, whole or not at all."""
        if self.pad:
            self.bpe.enable_padding(pad_id=self.pad, pad_token=self.bpe.id_to_token(self.pad))
        data = self.bpe.to_str(pretty=True).encode()
        self.bpe.no_padding()
        write_bytes(path, data)

    @cached_property
    def vocab_size(self) -> int:
        return self.bpe.get_vocab_size()

    def encode(self, texts: str | Sequence[str], context: int) -> tuple[Tensor, Tensor]:
        """Token ids, int64 [B, context], and a mask of the same shape, True on start, text and end, False on padding.

        A text that is too long loses its tail (see `cut`), never its end token.
        """
        texts = [texts] if isinstance(texts, str) else texts
        room = self.room(context)
        encodings = self.bpe.encode_batch([self.words(t)[2] for t in texts], is_pretokenized=True)
        rows = [[self.start, *e.ids[:room], self.end] for e in encodings]
        ids = [row + [self.pad] * (context - len(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        return torch.tensor(ids, dtype=torch.long).view(-1, context), torch.arange(context) < lengths[:, None]

    def cut(self, text: str, context: int) -> str:
        """The part of `text` that `encode` leaves out, '' if all fits (for CLIP, of the text as cleaned)."""
        room = self.room(context)
        text, starts, words = self.words(text)
        encoding = self.bpe.encode(words, is_pretokenized=True)
        if len(encoding) <= room:
            return ""
        word, (begin, _) = encoding.word_ids[room], encoding.offsets[room]
        return text[starts[word or 0] + begin :].strip()

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """The text of one row of ids, up to its end token; as normalised when it was encoded (lower case)."""
        row = [int(i) for i in ids]
        row = row[: row.index(self.end)] if self.end in row else row
        return self.bpe.decode([i for i in row if i != self.start]).strip()

    def room(self, context: int) -> int:
        if context < 2:
            raise UnclipError(f"context is {context}; it must be at least 2, for the start and end tokens")
        return context - 2

    def words(self, text: str) -> tuple[str, list[int], list[str]]:
        """The cleaned text, and the words in it with where each starts; our own BPE does its splitting itself."""
        if not self.is_clip:
            text = valid(text)
            return text, [0], [text]
        import regex

        text = clip_clean(text)
        found = list(regex.finditer(CLIP_WORDS, text, regex.IGNORECASE))
        return text, [m.start() for m in found], [m.group() for m in found]


def own_pipeline(model: models.Model) -> tokenizers.Tokenizer:
    """NFC, lower case, single spaces and one before the first word, which so is the word it is elsewhere."""
    bpe = tokenizers.Tokenizer(model)
    bpe.normalizer = normalizers.Sequence([
        normalizers.NFC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        normalizers.Prepend(" "),
    ])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    bpe.decoder = decoders.ByteLevel()
    return bpe
