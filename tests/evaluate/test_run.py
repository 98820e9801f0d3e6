import argparse
import json

import pytest
from PIL import Image

from unclip.cli import evaluate
from unclip.errors import UnclipError
from unclip.evaluate.gallery import Gallery
from unclip.evaluate.run import alignment
from unclip.pipeline import UnCLIP

QUICK = ["--steps", "1", "--prior-steps", "1", "--best-of", "1"]


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    args = parser.parse_args(["evaluate", "alignment", *words])
    return args.run(args)


def test_the_command_from_end_to_end(corpus, weights, tmp_path, capsys):
    where = ["--weights", str(weights), "--data", str(corpus), "--out", str(tmp_path / "out"), *QUICK]
    assert command(*where, "--limit", "64") == 0
    out, err = capsys.readouterr()
    assert "val, concept" in out
    assert "compose, frechet" in out
    assert "drawing" in err
    assert "drawing" not in out

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"] == {"size": 16, "steps": 1, "guidance": 3.0, "prior_steps": 1, "prior_guidance": 2.0,
                                   "best_of": 1, "sampler": "ddim"}  # fmt: skip
    assert set(results["weights"]["sha256"]) == {"clip", "prior", "decoder", "tokenizer"}
    assert results["judge"]["sha256"][:12] in results["judge"]["space"]
    for split in results["splits"].values():
        assert split["pictures"] == 64
        assert 0 <= split["recall"]["caption"]["generated"]["value"] <= 1
    assert len((tmp_path / "out" / "compose.txt").read_text().splitlines()) == 8
    with Image.open(tmp_path / "out" / "compose.png") as sheet:
        assert sheet.size == (8 * 18 + 2, 16 * 18 + 2)  # 64 real, 64 drawn
    assert len(list((tmp_path / "out" / "pictures" / "val").iterdir())) == 64

    assert command(*where, "--limit", "64", "--json") == 0
    assert json.loads(capsys.readouterr().out) == results


def test_a_broken_off_run_goes_on(corpus, weights, tmp_path, monkeypatch):
    settings = {"steps": 1, "prior_steps": 1, "best_of": 1}
    whole = alignment(weights, corpus, splits=["val"], limit=32, settings=settings)
    generate, calls = UnCLIP.generate, []

    def fragile(self, caption, **more):
        calls.append(caption)
        if len(calls) == 21:
            raise KeyboardInterrupt
        return generate(self, caption, **more)

    monkeypatch.setattr(UnCLIP, "generate", fragile)
    with pytest.raises(KeyboardInterrupt):
        alignment(weights, corpus, splits=["val"], limit=32, out=tmp_path, settings=settings)
    kept = sorted((tmp_path / "pictures" / "val").iterdir())
    assert len(kept) == 20
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # damaged since
    resumed = alignment(weights, corpus, splits=["val"], limit=32, out=tmp_path, settings=settings)
    assert resumed == whole
    assert len(calls) == 21 + 13


def test_pictures_of_other_settings_are_not_mixed(corpus, weights, tmp_path):
    settings = {"steps": 1, "prior_steps": 1, "best_of": 1}
    alignment(weights, corpus, splits=["val"], limit=32, out=tmp_path, settings=settings)
    with pytest.raises(UnclipError, match=r"seed 0, now 1; use another --out"):
        alignment(weights, corpus, splits=["val"], limit=32, out=tmp_path, settings=settings, seed=1)


def test_the_gallery_keeps_a_picture_for_its_caption_and_seed(tmp_path):
    gallery, picture = Gallery(tmp_path / "g", {}), Image.effect_noise((8, 8), 50).convert("RGB")
    assert gallery.find("val/a b", "a fox, 木版画", 7) is None
    gallery.keep("val/a b", "a fox, 木版画", 7, picture)
    found = Gallery(tmp_path / "g", {}).find("val/a b", "a fox, 木版画", 7)
    assert found is not None
    assert found.tobytes() == picture.tobytes()
    assert gallery.find("val/a b", "a fox", 7) is None
    assert gallery.find("val/a b", "a fox, 木版画", 8) is None


def test_settings_are_checked_before_anything_is_drawn(corpus, weights):
    with pytest.raises(UnclipError, match="steps is 0"):
        alignment(weights, corpus, settings={"steps": 0})
    with pytest.raises(UnclipError, match="did you mean 'guidance'"):
        alignment(weights, corpus, settings={"guidence": 2.0})
    with pytest.raises(UnclipError, match="no shards"):
        alignment(weights, corpus, splits=["test"])


@pytest.mark.parametrize("limit", ["31", "0", "-1", "many"])
def test_a_limit_below_a_group_is_refused_by_the_command(limit, capsys):
    with pytest.raises(SystemExit) as e:
        command("--data", "x", "--limit", limit)
    assert e.value.code == 2
    assert "groups of 32" in capsys.readouterr().err
