"""Few-step students as stages: exact to resume and taught by who should teach."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from unclip.errors import UnclipError
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.train.loop import train
from unclip.train.stages.fast import DecoderFastStage, Lesson
from unclip.train.state import checkpoints
from unclip.weights.adapter import Adapter, fingerprint
from unclip.weights.checkpoint import load_module

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A run folder's model, made once: CLIP, a decoder and an upsampler, hardly trained."""
    return tmp_path_factory.mktemp("school")


@pytest.fixture
def taught(school, data, recipes):
    for name in ("clip", "decoder", "upsampler"):
        if not (school / recipes[name].name).exists():
            train(recipes[name], data, school, CPU)
    return school


def state(out, name):
    return {k: v.clone() for k, v in load_file(checkpoints(out / name)[0] / "state.safetensors").items()}


@pytest.mark.parametrize("name", ["fast", "progressive", "adapter", "upsampler_fast"])
def test_resuming_is_exact(name, data, recipes, taught, tmp_path, power_cut):
    """Rounds of progressive distillation too: the checkpoint holds who teaches."""
    recipe, outs = recipes[name], [tmp_path / "whole", tmp_path / "broken"]
    for out in outs:
        out.mkdir()
        (out / "model").symlink_to(taught / "model")
    train(recipe, data, outs[0], CPU)
    with power_cut(5):  # the second round has begun, the last checkpoint is of step 3
        train(recipe, data, outs[1], CPU)
    train(recipe, data, outs[1], CPU)
    whole, broken = (state(out, recipe.name) for out in outs)
    assert whole.keys() == broken.keys()
    assert all(torch.equal(v, broken[k]) for k, v in whole.items())
    assert list((outs[0] / recipe.name / "samples").glob("*.png"))


def test_the_export_is_the_student_alone(data, recipes, taught):
    train(recipes["fast"], data, taught, CPU)
    student, config = load_module(taught / "model" / "decoder_fast", DecoderConfig, Decoder)
    teacher, _ = load_module(taught / "model" / "decoder", DecoderConfig, Decoder)
    assert config == recipes["decoder"].model
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_student_may_be_an_adapter_of_its_teacher(data, recipes, taught, tmp_path):
    """The two share their weights, in memory and in the checkpoint; factors alone are learnt and written."""
    recipe = replace(recipes["adapter"], train=replace(recipes["adapter"].train, lr=0.1))
    stage = DecoderFastStage(recipe, data, taught / "model", CPU)
    pair = stage.net
    assert pair.student.unet.conv_in.parametrizations.weight.original is \
        pair.teacher.unet.conv_in.parametrizations.weight.original  # fmt: skip
    assert {name.rpartition(".")[2] for name, p in pair.named_parameters() if p.requires_grad} == {"A", "B", "d"}
    (tmp_path / "model").mkdir()
    for part in ("clip", "decoder", "tokenizer"):
        (tmp_path / "model" / part).symlink_to(taught / "model" / part)
    train(recipe, data, tmp_path, CPU)
    whole = sum(v.numel() for v in load_module(taught / "model" / "decoder", DecoderConfig, Decoder)[0].parameters())
    held = state(tmp_path, "decoder_fast")
    frozen = sum(v.numel() for k, v in held.items() if not k.startswith("moment") and k[-2:] not in (".A", ".B", ".d"))
    assert frozen == whole  # once, for student, teacher and averages
    adapter = Adapter.load(tmp_path / "model" / "decoder_fast" / "model.safetensors")
    teacher, _ = load_module(taught / "model" / "decoder", DecoderConfig, Decoder)
    adapter.check(teacher, fingerprint(teacher))
    assert (adapter.config.part, adapter.config.rank) == ("decoder", 2)
    for name, value in adapter.tensors.items():
        path, key, factor = name.rsplit(".", 2)
        averaged = held[f"ema.student.{path}.parametrizations.{key}.0.{factor}"]
        torch.testing.assert_close(value, averaged, atol=1e-3, rtol=1e-3)
    assert any(value.any() for name, value in adapter.tensors.items() if name.endswith("B"))


def test_in_every_round_the_last_student_teaches(data, recipes, taught):
    stage = DecoderFastStage(recipes["progressive"], data, taught / "model", CPU)
    assert stage.lesson.rounds == 2
    first = stage.net.teacher.null_z.clone()
    strides = []
    for step in range(8):
        stage.net.student.null_z.data.fill_(step)
        stage.batch(step)
        at, mid, to = stage.path(16, torch.Generator().manual_seed(step))
        strides.append(sorted({(a - b).item() for a, b in zip(at.t, to.t, strict=True)})[0])
        assert torch.equal(stage.net.teacher.null_z, first if step < 4 else torch.full_like(first, 4.0))
        assert all(a > m > b for a, m, b in zip(at.t, mid.t, to.t, strict=True))
    assert strides == [250] * 4 + [500] * 4


def test_consistency_goes_one_step_and_to_the_end_of_the_segment(data, recipes, taught):
    stage = DecoderFastStage(recipes["fast"], data, taught / "model", CPU)
    at, mid, to = stage.path(200, torch.Generator().manual_seed(0))
    times = {(a, m, b) for a, m, b in zip((at.t + 1).tolist(), (mid.t + 1).tolist(), (to.t + 1).tolist(), strict=True)}
    assert times == {(125 * i, 125 * (i - 1), 500 * ((i - 1) // 4)) for i in range(1, 9)}


def test_what_cannot_be_taught(data, recipes, taught, tmp_path):
    with pytest.raises(UnclipError, match="lesson.steps is 12; it must be 2, 4, 8 … times lesson.calls, 4"):
        Lesson(calls=4, steps=12)
    with pytest.raises(UnclipError, match="lesson.steps is 4"):
        Lesson(calls=4, steps=4)
    other = replace(recipes["fast"], model=replace(recipes["decoder"].model, image_tokens=3))
    with pytest.raises(UnclipError, match="trained with other settings of the model than 'decoder_fast'"):
        train(other, data, taught, CPU)
    (tmp_path / "model").mkdir()
    for part in ("clip", "tokenizer"):
        (tmp_path / "model" / part).symlink_to(taught / "model" / part)
    with pytest.raises(UnclipError, match="a student needs a teacher; train decoder first"):
        train(recipes["fast"], data, tmp_path, CPU)
