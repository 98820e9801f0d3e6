"""A sentence encoder out of a package: read, not run; a line means the same among others as alone."""

import zipfile

import pytest
import torch

from unclip.data.sentences import SentenceEncoder
from unclip.errors import UnclipError


def test_a_line_is_read_alike_alone_and_among_longer_ones(wheel, monkeypatch):
    monkeypatch.setattr("unclip.data.sentences.native_bfloat16", lambda device: False)
    encode = SentenceEncoder.of(wheel)
    lines = ["a dog", "sealing wax: a resin for closing letters", "dog", "god"]
    together = encode(lines, batch=3)
    assert torch.allclose(together.norm(dim=1), torch.ones(4))
    for line, vector in zip(lines, together, strict=True):
        assert torch.allclose(encode([line])[0], vector, atol=1e-5)
    assert (together[2] - together[3]).abs().max() > 0.01  # positions count
    assert encode.pieces_of("dog") == 3


def test_what_is_no_encoder_is_refused(wheel, tmp_path):
    (broken := tmp_path / "broken.whl").write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(UnclipError, match="not a whole package"):
        SentenceEncoder.of(broken)
    with zipfile.ZipFile(empty := tmp_path / "empty.whl", "w") as archive:
        archive.writestr("model/readme.txt", "")
    with pytest.raises(UnclipError, match="holds no sentence encoder"):
        SentenceEncoder.of(empty)
