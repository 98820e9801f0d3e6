"""A run that is stopped and repeated ends as if it had never stopped."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unclip.errors import UnclipError
from unclip.train import loop
from unclip.train.loop import train
from unclip.train.state import checkpoints

CPU = torch.device("cpu")


def final(out: Path, name: str) -> dict[str, torch.Tensor]:
    state = load_file(checkpoints(out / name)[0] / "state.safetensors")
    return {k: v.clone() for k, v in state.items()}  # the file is mapped, and some tests damage it


def losses(out: Path, name: str) -> list[tuple[int, float]]:
    lines = map(json.loads, (out / name / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.fixture
def clip_run(data, recipes, tmp_path) -> Path:
    """A run folder with a trained CLIP, which the prior and the decoder need."""
    train(recipes["clip"], data, tmp_path / "run", CPU)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["clip", "prior", "prior_ar", "decoder", "muon", "upsampler", "crops"])
def test_resuming_is_exact(name, data, recipes, clip_run, tmp_path, power_cut):
    recipe, whole, broken = recipes[name], clip_run, tmp_path / "broken"
    train(recipe, data, whole, CPU)
    (broken / "model").mkdir(parents=True)
    for part in ("clip", "tokenizer"):
        (broken / "model" / part).symlink_to(whole / "model" / part)
    with power_cut(5):  # after the checkpoint of step 3
        train(recipe, data, broken, CPU)
    assert checkpoints(broken / recipe.name)[0].name == "step-00000003"
    assert train(recipe, data, broken, CPU)
    assert same(final(whole, recipe.name), final(broken, recipe.name))
    assert losses(whole, recipe.name) == losses(broken, recipe.name)


def test_saving_changes_nothing(data, recipes, tmp_path):
    often = replace(recipes["clip"], train=replace(recipes["clip"].train, save_every=1, sample_every=1))
    train(recipes["clip"], data, tmp_path / "a", CPU)
    train(often, data, tmp_path / "b", CPU)
    assert same(final(tmp_path / "a", "clip"), final(tmp_path / "b", "clip"))


def test_a_longer_run_continues_a_shorter_one_on_the_plateau(data, recipes, tmp_path):
    recipe = replace(recipes["clip"], train=replace(recipes["clip"].train, decay=0.0))
    train(replace(recipe, train=replace(recipe.train, steps=4)), data, tmp_path / "a", CPU)
    train(recipe, data, tmp_path / "a", CPU)
    train(recipe, data, tmp_path / "b", CPU)
    assert same(final(tmp_path / "a", "clip"), final(tmp_path / "b", "clip"))


@pytest.mark.parametrize("name", ["decoder", "muon"])
def test_it_learns(name, data, recipes, clip_run):
    """The tiny decoder's loss falls by half, and a sheet of samples is there to look at."""
    longer = replace(recipes[name].train, steps=150, batch=12, sample_every=75, log_every=15)
    train(replace(recipes[name], train=longer), data, clip_run, CPU)
    curve = [loss for _, loss in losses(clip_run, "decoder")]
    assert curve[-1] < curve[0] / 2
    assert (clip_run / "decoder" / "samples" / "00000150.png").stat().st_size > 500


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(data, recipes, tmp_path, monkeypatch):
    real = loop.Stage.batch

    def batch(self, step, share):
        made = real(self, step, share)
        if step == 5:
            made.pictures[0] = torch.nan
        return made

    monkeypatch.setattr(loop.Stage, "batch", batch)
    one = replace(recipes["clip"], keep=1.0)
    with pytest.raises(UnclipError) as error:
        train(one, data, tmp_path, CPU)
    line = str(error.value)
    assert error.value.code == 1
    assert "step 5" in line and "step-00000003" in line and "\n" not in line
    keys = line.split("batch: ")[1].split(";")[0].split(", ")
    assert len(keys) == 4 and all(len(k) == 5 for k in keys)
    assert [c.name for c in checkpoints(tmp_path / "clip")] == ["step-00000003"]
    assert all(v.isfinite().all() for v in final(tmp_path, "clip").values())


def test_a_loss_that_stays_far_above_its_beginning_ends_the_run(data, recipes, clip_run, monkeypatch):
    real = loop.Stage.batch

    def batch(self, step, share):
        made = real(self, step, share)
        made.pictures *= 1e3 if step >= 4 else 1.0
        return made

    monkeypatch.setattr(loop.Stage, "batch", batch)
    with pytest.raises(UnclipError, match=r"the loss is \S+ at step 7; .*a rate below 0\.003 may hold") as error:
        train(recipes["decoder"], data, clip_run, CPU)
    assert 100 < float(str(error.value).split("is ")[1].split()[0]) < float("inf")


def test_a_spike_may_pass(data, recipes, tmp_path):
    recipe = recipes["clip"]
    kept = loop.Losses(recipe.stage(data, tmp_path / "model", CPU), recipe.train, tmp_path)
    for step, loss in enumerate([0.5, 400.0, 0.4, 90.0, 80.0, 300.0]):
        kept.pending.append((step, torch.tensor(loss)))
        assert kept.settle() == pytest.approx(loss)
    kept.pending.append((6, torch.tensor(101.0)))
    with pytest.raises(UnclipError, match="the loss is 101 at step 6"):
        kept.settle()


def test_a_damaged_checkpoint_is_passed_over(data, recipes, tmp_path, capsys):
    train(recipes["clip"], data, tmp_path / "a", CPU)
    good = final(tmp_path / "a", "clip")
    state = checkpoints(tmp_path / "a" / "clip")[0] / "state.safetensors"
    raw = bytearray(state.read_bytes())
    raw[len(raw) // 2] ^= 4
    state.write_bytes(raw)
    train(recipes["clip"], data, tmp_path / "a", CPU)
    assert "damaged" in capsys.readouterr().err
    assert same(final(tmp_path / "a", "clip"), good)


def test_other_settings_are_refused(data, recipes, tmp_path):
    train(recipes["clip"], data, tmp_path, CPU)
    other = replace(recipes["clip"], train=replace(recipes["clip"].train, lr=0.5))
    with pytest.raises(UnclipError, match=r"train\.lr.*0\.003.*0\.5.*--out"):
        train(other, data, tmp_path, CPU)


def test_a_save_that_dies_leaves_the_one_before(data, recipes, tmp_path, monkeypatch):
    real = os.replace

    def refuse(source, target):
        if "step-00000006" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UnclipError, match="disk is full") as error:
        train(recipes["clip"], data, tmp_path, CPU)
    assert error.value.code == 1
    assert [p.name for p in (tmp_path / "clip").glob("*step*")] == ["step-00000003"]


def test_stages_need_a_clip(data, recipes, tmp_path):
    with pytest.raises(UnclipError, match="no trained CLIP"):
        train(recipes["prior"], data, tmp_path, CPU)


def test_time_runs_out(data, recipes, tmp_path):
    assert train(recipes["clip"], data, tmp_path, CPU, minutes=0) is False
    assert [c.name for c in checkpoints(tmp_path / "clip")] == ["step-00000000"]
    assert train(recipes["clip"], data, tmp_path, CPU) is True


PROGRAM = """
import pickle, sys, torch
from pathlib import Path
from unclip.train.loop import train
recipe, data, out = pickle.loads(Path(sys.argv[1]).read_bytes())
train(recipe, data, out, torch.device("cpu"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals(number, data, recipes, tmp_path):
    """SIGTERM saves and leaves; kill -9 loses the steps since the last save; either way the end is the same."""
    # every step is logged: a mean over steps would leave out those before a stop that comes between two lines
    often = replace(recipes["clip"].train, steps=120, save_every=20, sample_every=200, log_every=1)
    recipe = replace(recipes["clip"], train=often)
    job, out = tmp_path / "job", tmp_path / "a"
    job.write_bytes(pickle.dumps((recipe, data, out)))
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, str(job)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not checkpoints(out / "clip") and time.monotonic() < until:
        time.sleep(0.01)
    run.send_signal(number)
    assert run.wait(60) != 0
    reached = int(checkpoints(out / "clip")[0].name.removeprefix("step-"))
    assert 20 <= reached < 120
    assert number == signal.SIGTERM or reached % 20 == 0
    train(recipe, data, out, CPU)
    train(recipe, data, tmp_path / "b", CPU)
    assert same(final(out, "clip"), final(tmp_path / "b", "clip"))
    assert losses(out, "clip") == losses(tmp_path / "b", "clip")
