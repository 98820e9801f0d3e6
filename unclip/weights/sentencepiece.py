"""XLM-R's tokenizer out of a folder: tokenizer.json, or the model of sentencepiece that it was made of."""

import struct
from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from unclip.errors import UnclipError
from unclip.models.multilingual import MultilingualTokenizer
from unclip.weights.tensorflow import fields

JSON, MODEL = "tokenizer.json", "sentencepiece.bpe.model"
LARGEST = 64 << 20  # bytes of either


def load_tokenizer(folder: Path, json: str = JSON) -> MultilingualTokenizer:
    """Raises UnclipError for a folder that holds none of the two, and for files of other kinds."""
    path = next((folder / name for name in (json, MODEL) if (folder / name).is_file()), None)
    if path is None:
        raise UnclipError(f"{str(folder)!r} holds neither {json} nor {MODEL}; fetch it again, whole")
    if path.stat().st_size > LARGEST:
        raise UnclipError(f"{str(path)!r} is larger than a tokenizer is; fetch it again")
    try:
        data = path.read_bytes()
        own = path.name == json
        return MultilingualTokenizer(tokenizers.Tokenizer.from_str(data.decode()) if own else pieces(data))
    except Exception as e:  # the Rust side raises bare Exception for anything that it cannot read
        raise UnclipError(f"{str(path)!r} is no tokenizer of XLM-R: {e}; fetch it again") from e


def pieces(data: bytes) -> tokenizers.Tokenizer:
    """sentencepiece's ModelProto → a tokenizer of the same pieces under XLM-R's ids: its four specials ahead of them, a
    mask behind. Field 1 is a piece (1 its text, 2 its score); field 3 the normaliser, whose field 2 is its table."""
    vocabulary: list[tuple[str, float]] = []
    table = b""
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = {n: v for n, v in fields(value) if isinstance(v, bytes)}
            vocabulary.append((piece[1].decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0]))
        elif number == 3 and isinstance(value, bytes):
            table = next((v for n, v in fields(value) if n == 2 and isinstance(v, bytes)), b"")
    if len(vocabulary) < 4:
        raise ValueError(f"it holds {len(vocabulary)} pieces")
    specials = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    found = tokenizers.Tokenizer(models.Unigram([*specials, *vocabulary[3:], ("<mask>", 0.0)], 3, False))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    found.normalizer = normalizers.Sequence([normalizers.Precompiled(table), spaces] if table else [spaces])
    found.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")
    ])  # fmt: skip
    return found
