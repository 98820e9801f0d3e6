"""In little memory: the same pictures, networks there only when they are used, a plan, and a refusal with numbers."""

import pytest
import torch

from unclip.errors import UnclipError
from unclip.machine import resident
from unclip.pipeline import UnCLIP
from unclip.weights.shelf import parse_memory


def here(system) -> set[str]:
    return {unit.name for unit in system.shelf.units if unit.here}


@pytest.mark.parametrize("saved", [False, True])
def test_the_same_pictures(native_karlo, tiny_karlo, tmp_path, few, capsys, saved):
    source = tiny_karlo.save_pretrained(tmp_path / "k") if saved else native_karlo
    plenty = UnCLIP.from_pretrained(source, memory="100GB")
    assert not here(plenty)
    few = few | {"size": 256, "upsampler_steps": 2}
    true = [image.tobytes() for image in tiny_karlo.generate("a fox", n=2, **few).images]
    assert [image.tobytes() for image in plenty.generate("a fox", n=2, **few).images] == true
    assert here(plenty) == {"clip.text", "prior", "decoder", "upsampler_256.unet", "upsampler_256.last"}
    told = capsys.readouterr().err
    assert told.startswith("memory 100.00 GB on cpu, float32; ")
    assert [line.split(":")[0].strip() for line in told.splitlines()[1:]] == [
        "clip.text", "prior", "decoder", "upsampler_256.unet", "upsampler_256.last"
    ]  # fmt: skip


def test_one_at_a_time(native_karlo, tiny_karlo, few, monkeypatch):
    ours = UnCLIP.from_pretrained(native_karlo, memory="100GB")
    shelf, seen = ours.shelf, []
    for unit in shelf.units:
        unit.work = 0
    shelf.memory = shelf.base + max(unit.size for unit in shelf.units)
    monkeypatch.setattr(shelf, "put_away", lambda unit, put=shelf.put_away: (seen.append(unit.name), put(unit)))
    drawn = ours.generate("a fox", n=2, **few)
    true = tiny_karlo.generate("a fox", n=2, **few)
    assert [i.tobytes() for i in drawn.images] == [i.tobytes() for i in true.images]
    assert {"clip.text", "prior"} <= set(seen)
    held = sum(u.size for u in shelf.units if u.here)
    assert held <= shelf.memory - shelf.base
    assert all(p.is_meta != u.here for u in shelf.units for p in u.net.parameters())


def test_too_little(native_karlo, few):
    with pytest.raises(UnclipError, match=r"memory of 0.05 GB is too little: clip.text alone needs"):
        UnCLIP.from_pretrained(native_karlo, memory="50MB")
    ours = UnCLIP.from_pretrained(native_karlo, memory="100GB")
    ours.shelf.memory = ours.shelf.base + 1
    with pytest.raises(UnclipError, match=r"clip.text alone needs .* of weights, .* to compute in and .* for Python"):
        ours.generate("a fox", **few)


def test_what_cannot_be_done_then(native_karlo, tiny_folder, tmp_path):
    ours = UnCLIP.from_pretrained(native_karlo, memory="100GB")
    with pytest.raises(UnclipError, match="load it without memory="):
        ours.save_pretrained(tmp_path)
    with pytest.raises(UnclipError, match=r"what runs in little memory stays on cpu"):
        ours.to("meta")
    with pytest.raises(UnclipError, match="leave out fast, or the limit of memory"):
        UnCLIP.from_pretrained(tiny_folder, memory="100GB").generate("a fox", fast=2)


def test_our_own_weights(tiny, tiny_folder, tmp_path, cli):
    few = {"steps": 2, "prior_steps": 2, "upsampler_steps": 2, "progress": False}
    plain = UnCLIP.from_pretrained(tiny_folder)
    ours = UnCLIP.from_pretrained(tiny_folder, memory="100GB")
    for more in ({}, {"prior": "ar"}, {"prior_sampler": "analytic"}):
        a, b = (system.generate("a fox", **few, **more).images[0].tobytes() for system in (plain, ours))
        assert a == b, more
    edit = [system.variations(plain.generate("a cat", **few).images[0], n=1, **few) for system in (plain, ours)]
    assert edit[0].images[0].tobytes() == edit[1].images[0].tobytes()
    done = cli("generate", "a fox", "--weights", tiny_folder, "--memory", "100GB", "--quiet", "-o", tmp_path / "x.png")
    assert done.code == 0
    assert done.err.startswith("memory 100.00 GB on cpu")
    assert "write it as 6GB or 800MB" in cli(
        "generate", "a fox", "--weights", tiny_folder, "--memory", "much", "--quiet", "-o", tmp_path / "x.png"
    ).error


def test_sizes_and_what_this_process_takes():
    assert [parse_memory(text) for text in ("6GB", "1.5 gib", "800MB", "123", 5)] == [
        6 * 10**9, 3 << 29, 8 * 10**8, 123, 5
    ]  # fmt: skip
    before = resident()
    kept = torch.ones(1 << 24)
    assert resident() - before > 0.9 * kept.nbytes or before == 0
