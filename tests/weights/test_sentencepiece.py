"""XLM-R's tokenizer out of a model of sentencepiece, written here by hand."""

import struct

import pytest
import tokenizers

from unclip.errors import UnclipError
from unclip.models.multilingual import MultilingualTokenizer
from unclip.weights.sentencepiece import load_tokenizer, pieces


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def model(*words: str) -> bytes:
    """Likelier the earlier; as there, its own three specials come first."""
    names = enumerate(["<unk>", "<s>", "</s>", *words])
    return b"".join(field(1, field(1, w.encode()) + b"\x15" + struct.pack("<f", -float(i))) for i, w in names)


def test_pieces_have_the_ids_of_xlm_r(tmp_path):
    """Theirs plus one: <s> 0, <pad> 1, </s> 2, <unk> 3; spaces of any number begin a word."""
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model("▁red", "▁fox", "▁", "e", "s"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 10
    assert tokenizer.encode(["red  foxes", "", "z red"], 8).tolist() == [
        [0, 4, 5, 7, 8, 2, 1, 1], [0, 2, 1, 1, 1, 1, 1, 1], [0, 6, 3, 4, 2, 1, 1, 1],
    ]  # fmt: skip
    assert tokenizer.encode(["red fox red fox"], 4).tolist() == [[0, 4, 5, 2]]
    assert tokenizer.cut("red fox red fox", 4) == "red fox" and tokenizer.cut("red fox", 4) == ""


def test_tokenizer_json_is_read_before_it(tmp_path):
    found = pieces(model("▁red"))
    found.enable_truncation(3)
    found.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    assert load_tokenizer(tmp_path).encode(["red red red"], 5).tolist() == [[0, 4, 4, 4, 2]]


@pytest.mark.parametrize("data", [b"", b"\xff" * 30, model("a")[:-3], b"\x0a\x02\x15\x00"])
def test_damage_is_told_in_a_line(tmp_path, data):
    with pytest.raises(UnclipError, match=r"holds neither tokenizer.json nor sentencepiece.bpe.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(data)
    with pytest.raises(UnclipError, match="is no tokenizer of XLM-R"):
        load_tokenizer(tmp_path)


def test_another_tokenizer_is_refused():
    with pytest.raises(UnclipError, match="it is not XLM-R's"):
        MultilingualTokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()))
