"""ADM from files that are known by their content: classes, guidance, chains, and parts that do not fit."""

import pytest

from unclip import metadata
from unclip.cli.main import main
from unclip.errors import UnclipError
from unclip.pipeline import UnCLIP
from unclip.published.adm import ADM

FEW = {"steps": 2, "progress": False}
LARGE = {**FEW, "upsampler_steps": 2}


def test_classes_by_number_and_by_the_seed(put):
    adm = UnCLIP.from_pretrained(put("diffusion"))
    assert isinstance(adm, ADM)
    drawn = adm.generate(label=3, n=2, **FEW)
    assert drawn.images == adm.generate("3", n=2, **FEW).images
    assert drawn.images != adm.generate(label=[4], n=2, **FEW).images
    every = adm.generate(n=8, **FEW)
    assert len(set(every.prompts)) > 2
    assert all(0 <= int(prompt) < 10 for prompt in every.prompts)
    assert adm.generate(every.prompts[5], seed=5, **FEW).images[0] == every.images[5]
    assert drawn.params["guidance"] == 0


def test_the_classifier_guides_by_its_published_scale(put):
    adm = UnCLIP.from_pretrained(put("diffusion", "classifier", "upsampler"))
    assert adm.sizes == [8, 32]
    guided = adm.generate(label=3, **LARGE)
    assert guided.images[0].size == (32, 32)
    assert guided.params["guidance"] == adm.decoder.config.guidance == 1.0
    small = {**LARGE, "size": 8}
    pictures = [adm.generate(label=3, guidance=scale, **small).images[0] for scale in (0, 1, 50)]
    assert pictures[0] != pictures[2]
    assert pictures[1] == adm.generate(label=3, **small).images[0]


def test_a_classifier_makes_classes_of_a_network_without(put):
    folder = put("uncond", "classifier")
    adm = UnCLIP.from_pretrained(folder)
    assert adm.generate(label=3, guidance=50, **FEW).images != adm.generate(label=4, guidance=50, **FEW).images
    (folder / "reifissalc.bin").unlink()
    adm = UnCLIP.from_pretrained(folder)
    assert adm.generate(**FEW).prompts == ["any"]
    with pytest.raises(UnclipError, match="these weights know no classes; the prompt must be any"):
        adm.generate(label=3, **FEW)


def test_ddim_takes_steps_equally_far_apart(put):
    adm = UnCLIP.from_pretrained(put("diffusion"))
    assert adm.generate(label=3, sampler="ddim", steps=25, progress=False).params["steps"] == 25
    with pytest.raises(UnclipError, match="300 steps cannot lie equally far apart in 1000; 250 would do"):
        adm.generate(label=3, sampler="ddim", steps=300, progress=False)


@pytest.mark.parametrize(
    ("names", "ask", "told"),
    [
        (("diffusion", "large_classifier"), {}, "judges pictures of 16 px, but the network draws 8; keep those"),
        (("uncond", "upsampler"), {}, "knows 10 classes, but the network 0"),
        (("diffusion",), {"guidance": 2}, "guidance does nothing .* no classifier is beside them"),
        (("diffusion",), {"guidance_start": 0.5}, "guidance_start does nothing .* is taken as it is; leave it out"),
        (("diffusion",), {"prior_steps": 2}, "prior_steps does nothing .* they have no prior; leave it out"),
        (("diffusion",), {"label": 10}, "is '10'; these weights draw one of 10 classes: give its number, 0 to 9"),
        (("diffusion",), {"prompt": "a fox"}, "the prompt is 'a fox'; these weights draw one of 10 classes"),
        (("diffusion",), {"negative_prompt": "a dog"}, "read no captions; leave out the negative prompt"),
        (("diffusion",), {"size": 32}, "there is no upsampler with them"),
        (("upsampler",), {}, "none of its networks draws from noise alone"),
        (("diffusion", "uncond"), {}, "2 networks draw there; name one of them"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(put, names, ask, told):
    with pytest.raises(UnclipError, match=told) as e:
        UnCLIP.from_pretrained(put(*names)).generate(**FEW | ask)
    assert "\n" not in str(e.value)


def test_of_many_the_file_that_is_named_draws(put):
    """A folder with all of OpenAI's files: what fits the network goes with it."""
    folder = put("diffusion", "uncond", "upsampler", "classifier", "large_classifier")
    adm = UnCLIP.from_pretrained(folder / "noisuffid.bin")
    assert isinstance(adm, ADM)
    assert adm.sizes == [8, 32]
    assert adm.classifier is not None
    assert adm.classifier.config.size == 8
    assert UnCLIP.from_pretrained(folder / "dnocnu.bin").sizes == [8]


def test_on_the_command_line(put, tmp_path, capsys):
    rest = ["--weights", str(put("diffusion", "classifier")), "--quiet", "--device", "cpu"]
    path = tmp_path / "3.png"
    assert main(["generate", "any", "--seed", "7", "--steps", "2", "-o", str(path), *rest]) == 0
    record = metadata.read(path).record
    assert record is not None
    assert record["prompt"].isdigit()
    assert main(["inspect", str(path), "--replay", *rest]) == 0
    assert "sha256 equal" in capsys.readouterr().out
    assert main(["generate", "a fox", "-o", str(path), *rest]) == 2
    assert "give its number, 0 to 9, or any" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("uncond",), ("diffusion", "upsampler", "classifier")])
def test_saved_in_a_folder_of_ours(put, kept, names):
    kept(UnCLIP.from_pretrained(put(*names)), lambda s: s.generate(**(LARGE if s.upsampler else FEW)))
