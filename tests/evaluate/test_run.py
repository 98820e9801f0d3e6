import json
from dataclasses import replace

import pytest
from PIL import Image

from unclip.cli.main import main
from unclip.errors import UnclipError
from unclip.evaluate import run
from unclip.evaluate.gallery import Gallery
from unclip.evaluate.judge import Judge
from unclip.evaluate.run import BATCH, alignment
from unclip.pipeline import UnCLIP
from unclip.settings import Settings

QUICK = Settings(steps=1, prior_steps=1, best_of=1)


@pytest.fixture(scope="module")
def system(weights) -> UnCLIP:
    return UnCLIP.from_pretrained(weights)


@pytest.fixture(scope="module")
def judge(weights) -> Judge:
    return Judge.load(None, weights)


def test_the_command_from_end_to_end(corpus, weights, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["evaluate", "alignment", "--weights", str(weights), "--data", str(corpus), "--out", str(out),
               "--limit", "64", "--steps", "1", "--prior-steps", "1", "--best-of", "1"]  # fmt: skip
    assert main(command) == 0
    printed, progress = capsys.readouterr()
    assert "val, concept" in printed
    assert "compose, frechet" in printed
    assert "drawing" in progress
    assert "drawing" not in printed

    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["size"] == 16
    assert results["settings"]["steps"] == 1
    assert results["settings"]["guidance"] == Settings.guidance
    assert results["weights"]["name"] == "tiny"
    assert results["judge"]["sha256"][:12] in results["judge"]["space"]
    for split in results["splits"].values():
        assert split["pictures"] == 64
        assert 0 <= split["recall"]["caption"]["generated"]["value"] <= 1
    assert len((out / "compose.txt").read_text().splitlines()) == 8
    with Image.open(out / "compose.png") as sheet:
        assert sheet.size == (8 * 18 + 2, 16 * 18 + 2)  # 64 real, 64 drawn
    assert len(list((out / "pictures" / "val").iterdir())) == 64

    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == results


def test_a_batch_holds_what_generate_draws(system, val):
    settings = replace(QUICK, size=16, steps=3, best_of=2)
    captions, seeds = val.captions[:4], val.seeds(0)[:4]
    for picture, caption, seed in zip(run.draw(system, settings, captions, seeds), captions, seeds, strict=True):
        alone = system.generate(caption, seed=seed, size=16, steps=3, prior_steps=1, progress=False).images[0]
        assert max(abs(a - b) for a, b in zip(picture.tobytes(), alone.tobytes(), strict=True)) <= 1


def test_a_broken_off_run_goes_on(corpus, system, judge, tmp_path, monkeypatch):
    whole = alignment(system, judge, corpus, QUICK, splits=["val"], limit=96)
    draw, calls = run.draw, []

    def fragile(*args):
        calls.append(args[2])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(run, "draw", fragile)
    with pytest.raises(KeyboardInterrupt):
        alignment(system, judge, corpus, QUICK, splits=["val"], limit=96, out=tmp_path)
    kept = sorted((tmp_path / "pictures" / "val").iterdir())
    assert len(kept) == 3 * BATCH
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # damaged since
    assert alignment(system, judge, corpus, QUICK, splits=["val"], limit=96, out=tmp_path) == whole
    assert len(calls) == 4 + 1 + 3  # the damaged batch again, and the three that were never drawn


def test_pictures_of_other_settings_are_not_mixed(corpus, system, judge, tmp_path):
    alignment(system, judge, corpus, QUICK, splits=["val"], limit=32, out=tmp_path)
    with pytest.raises(UnclipError, match=r"seed 0, now 1; use another --out"):
        alignment(system, judge, corpus, QUICK, splits=["val"], limit=32, out=tmp_path, seed=1)


def test_the_gallery_keeps_a_picture_for_its_caption_and_seed(tmp_path):
    gallery, picture = Gallery(tmp_path / "g", {}), Image.effect_noise((8, 8), 50).convert("RGB")
    assert gallery.find("val/a b", "a fox, 木版画", 7) is None
    gallery.keep("val/a b", "a fox, 木版画", 7, picture)
    found = Gallery(tmp_path / "g", {}).find("val/a b", "a fox, 木版画", 7)
    assert found is not None
    assert found.tobytes() == picture.tobytes()
    assert gallery.find("val/a b", "a fox", 7) is None
    assert gallery.find("val/a b", "a fox, 木版画", 8) is None


def test_a_judge_of_another_size_is_refused(corpus, system, judge, monkeypatch):
    monkeypatch.setattr(judge, "size", 32)
    with pytest.raises(UnclipError, match="looks at 32 px, the decoder draws 16 px"):
        alignment(system, judge, corpus, QUICK)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(["--steps", "0"], "steps is 0"), (["--limit", "31"], "groups of 32"), (["--limit", "many"], "groups of 32"),
     (["--split", "test"], "no shards"), (["--judge", "nowhere"], "no judge in 'nowhere'"),
     (["--size", "64"], "unknown option")],
)  # fmt: skip
def test_mistakes_are_one_clear_line(corpus, weights, wrong, told, capsys):
    assert main(["evaluate", "alignment", "--weights", str(weights), "--data", str(corpus), *wrong]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert told in error[0]
