"""`unclip train`: which recipes a command line stands for, and how the loop's end is told."""

import math

import pytest
import yaml

from unclip.recipes import mini, small
from unclip.weights import hub
from unclip.weights.config import to_dict


@pytest.fixture
def runs(monkeypatch):
    """What the loop was called with; it returns or raises what is put into `runs.ends`, and else is done at once."""

    class Runs(list):
        ends = ()

    calls = Runs()

    def train(*arguments):
        calls.append(arguments)
        end = calls.ends[len(calls) - 1] if len(calls) <= len(calls.ends) else True
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr("unclip.train.loop.train", train)
    return calls


def printed(cli, *words) -> dict:
    done = cli("train", *words, "--print_config")
    assert (done.code, done.err) == (0, "")
    return yaml.safe_load(done.out)


def test_a_recipe_is_all_its_stages_in_order(cli, runs, tmp_path):
    done = cli("train", "mini", "--data", tmp_path, "--out", tmp_path / "run")
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'run' / 'model'}\n", "")
    assert [call[0] for call in runs] == [make() for make in mini.stages]
    assert {call[1:3] for call in runs} == {(tmp_path, tmp_path / "run")}


def test_one_stage(cli, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("train", "small.decoder", "--data", ".", "--device", "cpu", "--threads", 1)
    assert (done.code, done.out) == (0, "runs/small/model\n")
    ((recipe, _, _, device, minutes, start),) = runs
    assert recipe == small.decoder()
    assert (device.type, minutes, start) == ("cpu", math.inf, None)


def test_from_is_a_name_or_a_folder(cli, runs, tmp_path):
    assert cli("train", "mini.decoder", "--from", "mini", "--data", tmp_path, "--out", tmp_path / "run").code == 0
    assert runs[0][-1] == hub.locate("mini")
    done = cli("train", "mini.decoder", "--from", "maxi", "--data", tmp_path, "--out", tmp_path / "run")
    assert done.code == 2 and "weights 'maxi'" in done.err and len(runs) == 1


def test_a_recipe_apart_from_the_stages(cli):
    assert printed(cli, "mini.judge")["name"] == "judge"


def test_settings_are_printed_and_read_again(cli, tmp_path):
    before = printed(cli, "mini.decoder", "--set", "train.lr=1e-5", "--set", "model.unet.channels=[8, 16]", "--set",
                     "train.precision=fp32", "--set", "data.core=false")  # fmt: skip
    assert before["train"]["lr"] == 1e-5
    assert before["model"]["unet"]["channels"] == [8, 16]
    assert (before["train"]["precision"], before["data"]["core"]) == ("fp32", False)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(before))
    assert printed(cli, "mini.decoder", "--config", tmp_path / "x.yaml") == before
    assert printed(cli, "mini.decoder")["train"] == to_dict(mini.decoder())["train"]


def test_settings_of_all_stages_and_of_one(cli, tmp_path):
    (tmp_path / "x.yaml").write_text("train: {lr: 1e-3, seed: 4}\ndecoder: {train: {batch: 7}, drop_z: 0.05}\n")
    found = printed(cli, "mini", "--config", tmp_path / "x.yaml", "--set", "clip.train.seed=5")
    assert list(found) == [make.__name__ for make in mini.stages]
    assert {recipe["train"]["lr"] for recipe in found.values()} == {1e-3}
    assert [recipe["train"]["seed"] for recipe in found.values()] == [5, 4, 4, 4]
    assert (found["decoder"]["train"]["batch"], found["decoder"]["drop_z"]) == (7, 0.05)
    assert found["prior"]["train"]["batch"] == mini.prior().train.batch


def test_what_the_command_line_says_wins(cli, runs, tmp_path):
    (tmp_path / "x.json").write_text('{"train": {"batch": 7, "steps": 8}}')
    cli("train", "mini.clip", "--config", tmp_path / "x.json", "--set", "train.batch=9", "--data", tmp_path)
    assert (runs[0][0].train.batch, runs[0][0].train.steps) == (9, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mini"], "training needs pictures: --data DIR; get them with: unclip data illustrations DIR"),
        (["mimi", "--data", "."], "unknown recipe 'mimi'; did you mean 'mini'?"),
        (["mini.decodr", "--data", "."], "unknown stage of mini 'decodr'; did you mean 'decoder'?"),
        (["mini.CLIPConfig", "--data", "."], "unknown stage of mini 'CLIPConfig'"),
        (["mini.stages", "--data", "."], "unknown stage of mini 'stages'"),
        (["mini.clip", "--set", "train.bach=3"], "unknown setting 'bach'; did you mean 'batch'?"),
        (["mini.clip", "--set", "train.batch"], "--set 'train.batch' has no '='"),
        (["mini.clip", "--set", "train.batch=many"], "train.batch is 'many'; it must be int"),
        (["mini.clip", "--set", "train=3"], "train must be an object, not 3"),
        (["mini.clip", "--config", "none.yaml"], "cannot read 'none.yaml': No such file"),
        (["mini.clip", "--config", "bad.yaml"], "'bad.yaml' is neither YAML nor JSON"),
        (["mini.clip", "--config", "binary.yaml"], "'binary.yaml' is neither YAML nor JSON"),
        (["mini.clip", "--config", "list.yaml"], "'list.yaml' holds no settings"),
        (["mini.clip", "--config", "code.yaml"], "'code.yaml' is neither YAML nor JSON"),
        (["mini", "--data", ".", "--minutes", "0"], "--minutes is 0.0; it must be above 0"),
        (["mini", "--data", ".", "--minutes", "nan"], "--minutes is nan"),
        (["mini", "--data", ".", "--threads", "-1"], "--threads is -1"),
        (["mini", "--data", ".", "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
    ],
)
def test_what_cannot_be_trained(cli, runs, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system ['touch ran']")
    done = cli("train", *words)
    assert (done.code, done.out, runs) == (2, "", [])
    assert done.error.startswith(message)
    assert not (tmp_path / "ran").exists()


def test_a_real_corpus_is_missed_in_one_line(cli, tmp_path):
    done = cli("train", "mini.clip", "--data", tmp_path / "none", "--out", tmp_path / "run")
    assert done.code == 2
    assert "make them with: unclip data illustrations" in done.error


def test_when_the_minutes_are_over(cli, runs, tmp_path):
    runs.ends = (True, False)
    done = cli("train", "mini", "--data", tmp_path, "--minutes", 9)
    assert (done.code, done.out) == (0, "")
    assert done.err == "unclip: prior: the 9 minutes are over, all is saved; repeat the command to go on\n"
    assert len(runs) == 2
    assert 8.9 < runs[1][4] <= runs[0][4] <= 9


def test_when_it_is_interrupted(cli, runs, tmp_path):
    runs.ends = (KeyboardInterrupt(),)
    done = cli("train", "mini", "--data", tmp_path)
    assert (done.code, done.out, done.err) == (130, "", "unclip: interrupted\n")
    assert len(runs) == 1
