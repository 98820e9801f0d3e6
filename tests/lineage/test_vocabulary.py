"""The search for invented words: it climbs, it uses no word, and it answers twice the same."""

import pytest
import torch

from unclip.errors import UnclipError
from unclip.lineage.vocabulary import phrase, pieces, search
from unclip.models.tokenizer import Tokenizer


def test_pieces_are_no_words():
    tokenizer = Tokenizer.train(["the red apple and the red ape ran"] * 3, 300)
    known = pieces(tokenizer, {"red"})
    assert known and all(p.isascii() and p.isalpha() and 2 <= len(p) <= 5 for p in known)
    assert "red" not in known
    assert phrase(["apo", "plo", "ve", "rre"]) == "apoplo verre"


def test_it_climbs_and_repeats_itself(tiny):
    tokenizer = Tokenizer.train(["apoploe vesrreaitais contarra ccetnxniams luryca tanniounons"] * 3, 300)
    pictures = torch.rand(4, 3, 16, 16) * 2 - 1
    few, more = (search(tiny.clip, tokenizer, "fox", pictures, {"red", "fox"}, rounds=r, length=2) for r in (0, 2))
    assert more.cosine > few.cosine
    assert more == search(tiny.clip, tokenizer, "fox", pictures, {"red", "fox"}, rounds=2, length=2)
    assert len(more.text.split()) == 2 and not {"red", "fox"} & set(more.text.split())
    with pytest.raises(UnclipError, match="no picture of 'fox'"):
        search(tiny.clip, tokenizer, "fox", pictures[:0], set())
