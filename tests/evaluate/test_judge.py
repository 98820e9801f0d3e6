import shutil

import pytest
import torch
from PIL import Image

from unclip.errors import UnclipError
from unclip.evaluate import judge as module
from unclip.evaluate.judge import Judge, locate, tensor
from unclip.files import sha256


@pytest.fixture(autouse=True)
def _none_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")


def pictures(n: int) -> list[Image.Image]:
    return [Image.new("RGB", (16, 16), (2 * i, 255 - i, 40)) for i in range(n)]


def test_it_sees_and_reads_as_the_clip_does(weights):
    judge = Judge.load(None, weights)
    features, z_i = judge.look(pictures(100))
    assert features.shape == (100, 16)
    torch.testing.assert_close(z_i, judge.clip.encode_image(tensor(pictures(100))))
    projected = judge.clip.image.project(features.float())
    torch.testing.assert_close(torch.nn.functional.normalize(projected, dim=-1), z_i)
    captions = ["thing 1, style 2", "a thing", "thing 19, style 11, of another length"] * 200
    ids, _ = judge.tokenizer.encode(captions, 32)
    torch.testing.assert_close(judge.read(captions), judge.clip.encode_text(ids)[1])


def test_a_tensor_of_pictures_is_exact():
    assert tensor([Image.new("RGB", (3, 2), (0, 255, 51))])[0, :, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])


def test_the_shipped_judge_is_preferred_to_the_one_of_the_run(weights, tmp_path):
    assert locate(None, weights) == (weights / "judge").resolve()
    shutil.copytree(weights / "judge", tmp_path / "shipped")
    assert locate(None, weights) == (tmp_path / "shipped").resolve()
    assert locate(weights, weights) == locate(weights / "judge", weights) == (weights / "judge").resolve()


def test_a_missing_judge_is_one_clear_line(tmp_path):
    with pytest.raises(UnclipError, match=r"no judge in .*shipped.*unclip train mini\.judge"):
        locate(None, tmp_path)
    with pytest.raises(UnclipError, match=r"no judge in .*elsewhere"):
        locate(tmp_path / "elsewhere", tmp_path)


def test_a_pipeline_is_not_judged_by_its_own_clip(weights):
    with pytest.raises(UnclipError, match="draw with"):
        Judge.load(weights / "clip", weights)


def test_a_tokenizer_of_other_weights_is_refused(weights):
    judge = Judge.load(None, weights)
    with pytest.raises(UnclipError, match="knows 300 tokens"):
        Judge(judge.clip, judge.tokenizer.clip(), "judge", "0" * 64)


def test_the_space_is_named_with_the_hash_of_the_weights(weights):
    judge = Judge.load(None, weights)
    assert judge.sha256 == sha256(weights / "judge" / "model.safetensors")
    assert "before projection, 16 numbers" in judge.space
    assert judge.sha256[:12] in judge.space
