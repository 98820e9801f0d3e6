"""`unclip doctor`: true of this machine, and of the shipped weights."""

import json
import platform
import shutil

import pytest
import torch

from unclip.weights import hub


@pytest.fixture
def shipped(tiny_folder, tmp_path, monkeypatch):
    """One set of shipped weights, called tiny."""
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    return shutil.copytree(tiny_folder, tmp_path / "tiny")


def test_what_it_says(cli, shipped):
    done = cli("doctor", "--json")
    facts = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert facts["unclip"]["python"] == platform.python_version()
    assert facts["unclip"]["torch"] == torch.__version__
    assert facts["used"]["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert facts["used"]["threads"] == str(torch.get_num_threads())
    assert facts["weights"] == {"tiny": "whole"}
    assert set(facts["clients"]) == {"npm", "apt"}


def test_it_says_the_same_in_words(cli, shipped):
    facts, words = json.loads(cli("doctor", "--json").out), cli("doctor").out.splitlines()
    for title, rows in facts.items():
        assert title in words
        for name in rows:
            assert any(line.startswith(f"  {name} ") for line in words)


def test_weights_that_are_not_whole(cli, shipped):
    with open(shipped / "clip" / "model.safetensors", "r+b") as f:
        f.truncate(500)
    done = cli("doctor", "--json")
    assert done.code == 1
    assert "clip/model.safetensors' is damaged" in json.loads(done.out)["weights"]["tiny"]


def test_without_weights(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    done = cli("doctor")
    assert done.code == 1
    assert "unclip train mini" in done.out


def test_what_is_missing_is_named_with_its_cure(cli, shipped, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    facts = json.loads(cli("doctor", "--json").out)
    assert facts["extras"]["data"] == "missing: pip install 'unclip[data]'"
    assert facts["clients"]["npm"].startswith("missing: ")
