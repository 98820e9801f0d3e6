"""`unclip convert`: by schema, and whole, from a file of another project to a folder of ours."""

import json
from dataclasses import replace

import pytest
import torch

import unclip
from unclip.models.clip import CLIPConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.karlo import KARLO_PRIOR, PRIOR
from unclip.weights.match import prepare
from unclip.weights.openai_clip import OPENAI_CLIP


@pytest.fixture(scope="module")
def state():
    """A tiny CLIP's weights under OpenAI's names."""
    tower = TransformerConfig(64, 1, 1, activation="quick_gelu")
    m = prepare(OPENAI_CLIP, CLIPConfig(8, 16, 8, tower, tower, 50, 8, 49, True))
    g = torch.Generator().manual_seed(0)
    return {key: torch.randn(spec.shape, generator=g).half() for key, spec in m.wanted.items()}


def test_a_schema(cli, tmp_path, state):
    keys = {key: [list(v.shape), "float16"] for key, v in state.items()}
    (tmp_path / "s.json").write_text(json.dumps({"name": "anything", "keys": keys}))
    done = cli("convert", "--schema", tmp_path / "s.json")
    assert (done.code, done.out) == (0, f"OpenAI CLIP: used {len(keys)} of {len(keys)} keys\n")
    del keys["logit_scale"]
    (tmp_path / "s.json").write_text(json.dumps(keys))
    done = cli("convert", "--schema", tmp_path / "s.json")
    assert "looks like OpenAI CLIP, but 'logit_scale' is missing" in done.error


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before zip"])
def test_a_file(cli, tmp_path, state, old):
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.jpg", _use_new_zipfile_serialization=not old)
    done = cli("convert", tmp_path / "x.jpg", tmp_path / "clip", "--as", "open_clip")
    assert (done.code, done.out) == (0, f"{tmp_path / 'clip'}\n")
    assert f"used {len(state)} of {len(state)} keys" in done.err
    net, direct = unclip.load(tmp_path / "clip"), unclip.load(tmp_path / "x.jpg", family="open_clip")
    assert net.config == direct.config
    assert net.config.text.activation == "gelu"  # as it was named
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), direct.parameters(), strict=True))
    assert torch.equal(net.image.project.weight, state["visual.proj"].float().T)
    line = cli("inspect", tmp_path / "x.jpg").out.splitlines()[2]
    assert line == "  OpenAI CLIP (of unpublished size), stage clip; licence MIT; unclip convert reads it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name what to read and where to write"),
        (["a"], "name what to read and where to write"),
        (["a", "--schema", "b"], "unexpected argument 'a'"),
        (["none.pt", "b"], "cannot read 'none.pt'"),
        (["--schema", "none.json"], "cannot read 'none.json'"),
    ],
)
def test_mistakes(cli, words, message):
    done = cli("convert", *words)
    assert done.code == 2
    assert message in done.error


def test_a_family_that_is_not_known(cli, tmp_path, state):
    torch.save(state, tmp_path / "x")
    assert "unknown family 'open-clip'; did you mean 'open_clip'?" in cli(
        "convert", tmp_path / "x", tmp_path / "y", "--as", "open-clip"
    ).error


def test_one_network_is_no_system(cli, tmp_path, state):
    torch.save(state, tmp_path / "x.safetensors")  # whatever it is called
    done = cli("generate", "a fox", "--weights", tmp_path / "x.safetensors", "-o", tmp_path / "fox.png")
    assert "is OpenAI CLIP, one network (clip) and no whole system; load it with unclip.load(" in done.error


def test_a_system(cli, tiny_folder, tmp_path):
    done = cli("convert", tiny_folder, tmp_path / "t", "--dtype", "float16")
    assert (done.code, done.out) == (0, f"{tmp_path / 't'}\n")
    assert "tiny, 5 networks, " in done.err
    for part in ("clip", "prior", "decoder"):
        file = f"{part}/model.safetensors"
        assert (tmp_path / "t" / file).read_bytes() == (tiny_folder / file).read_bytes()
    done = cli("convert", tiny_folder, tmp_path / "d", "--to", "diffusers")
    assert "'tiny' cannot be written for diffusers: it has no network of the decoder's kind" in done.error
    assert not (tmp_path / "d").exists()
    assert "is there already, and not empty; name another" in cli("convert", tiny_folder, tmp_path / "t").error
    assert "'x' is" not in cli("convert", tiny_folder, tmp_path / "x", "--prior", "y").error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t"]  # nothing half done is left
    assert "a whole system, which is known without --as" in cli("convert", tiny_folder, "x", "--as", "open_clip").error


def test_of_single_networks_only_clip_goes_back(cli, tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    assert cli("convert", tmp_path / "x.pt", tmp_path / "hf", "--to", "diffusers").code == 0
    again = unclip.load(tmp_path / "hf")
    direct = unclip.load(tmp_path / "x.pt")
    assert again.config == direct.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), direct.parameters(), strict=True))
    m = prepare(KARLO_PRIOR, replace(PRIOR, transformer=TransformerConfig(64, 1, 1)))
    torch.save({key: torch.zeros(spec.shape) for key, spec in m.wanted.items()}, tmp_path / "p")
    done = cli("convert", tmp_path / "p", tmp_path / "q", "--to", "diffusers")
    assert "of single networks only a CLIP can be written for others" in done.error
