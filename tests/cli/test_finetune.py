"""Fine-tuning as the docs tell it, from a folder of pictures to a drawing, on the shipped weights."""

import pytest
from PIL import Image, ImageDraw

from unclip import metadata
from unclip.weights import hub

FEW = ["--size", 64, "--steps", 2, "--prior-steps", 2, "--quiet", "--device", "cpu"]


@pytest.mark.slow
@pytest.mark.skipif("mini" not in hub.shipped(), reason="no weights are shipped")
def test_from_a_folder_of_pictures_to_a_drawing_in_their_manner(cli, tmp_path):
    pictures, run = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    for i in range(6):
        image = Image.new("RGB", (80, 64), "white")
        ImageDraw.Draw(image).ellipse((8 + i, 8, 72, 40 + 4 * i), fill="black")
        image.save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"a stone of form {i}, silhouette")
    assert cli("data", "folder", pictures, tmp_path / "corpus", "--sizes", 64).out.startswith("5 pictures to train on")
    train = ["--from", "mini", "--data", tmp_path / "corpus", "--out", run, "--set", "lora=8", "--device", "cpu"]
    train += ["--set", "train.steps=3", "--set", "train.batch=2", "--set", "train.warmup=1"]
    adapters = []
    for stage in ("prior", "decoder"):
        assert cli("train", f"mini.{stage}", *train).code == 0
        adapters += ["--lora", f"{run / f'{stage}.lora.safetensors'}:0.8"]
        assert (run / f"{stage}.lora.safetensors").stat().st_size < 1.5e6
    drawn = {}
    for name, more in (("before", []), ("after", adapters), ("whole", ["--weights", run / "model"])):
        assert cli("generate", "an owl, silhouette", *FEW, "-o", tmp_path / f"{name}.png", *more).code == 0
        drawn[name] = metadata.read(tmp_path / f"{name}.png").pixels
    assert len(set(drawn.values())) == 3
    again = cli("inspect", tmp_path / "after.png", "--replay", "--quiet", *adapters)
    assert (again.code, again.out.partition(";")[0]) == (0, "the same picture")
    refused = cli("generate", "an owl", *FEW, "--weights", run / "model", "-o", tmp_path / "x.png", *adapters)
    assert "but this is" in refused.error
