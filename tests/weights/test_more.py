"""Weights that few need may lie beside the others, in NAME_more."""

import shutil

import pytest

from unclip.errors import UnclipError
from unclip.pipeline import UnCLIP
from unclip.weights import hub


@pytest.fixture
def apart(tiny_folder, tmp_path):
    """The tiny system with its autoregressive prior in a folder of its own."""
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    (tmp_path / "tiny_more").mkdir()
    shutil.move(tmp_path / "tiny" / "prior_ar", tmp_path / "tiny_more" / "prior_ar")
    for folder in (tmp_path / "tiny", tmp_path / "tiny_more"):
        hub.write_index(folder, "tiny")
    return tmp_path / "tiny"


def test_they_draw_as_in_one_folder(apart, tiny_folder):
    systems = [UnCLIP.from_pretrained(folder) for folder in (tiny_folder, apart)]
    pictures = [s.generate("a red fox", prior="ar", steps=2, progress=False).images[0] for s in systems]
    assert pictures[0] == pictures[1]


def test_the_others_do_without(apart):
    shutil.rmtree(apart.with_name("tiny_more"))
    system = UnCLIP.from_pretrained(apart)
    assert system.prior_ar is None
    with pytest.raises(UnclipError, match="no autoregressive prior"):
        system.generate("a red fox", prior="ar", progress=False)


def test_damage_is_seen(apart):
    file = apart.with_name("tiny_more") / "prior_ar" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UnclipError, match=r"tiny_more/prior_ar/model.safetensors' is damaged"):
        UnCLIP.from_pretrained(apart)


def test_they_are_no_weights_of_their_own(monkeypatch, apart):
    monkeypatch.setattr(hub, "SHIPPED", apart.parent)
    assert hub.shipped() == ["tiny"]
