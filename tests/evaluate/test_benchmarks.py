"""The benchmarks measure what they say; how long it takes is not for a test."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from unclip.evaluate.alignment import Split
from unclip.evaluate.judge import tensor
from unclip.models.clip import CLIPConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pipeline import UnCLIP
from unclip.train.recipe import DataConfig, TrainConfig
from unclip.train.stages.clip import CLIPRecipe


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return import_module


def test_both_ways_of_each_comparison_give_the_same(script, weights):
    system = UnCLIP.from_pretrained(weights)
    seen = []
    with torch.inference_mode():
        for what, slow, fast, ways in script("sampling").comparisons(system, 3):
            a, b = ways[slow](), ways[fast]()
            torch.testing.assert_close(torch.cat(a) if isinstance(a, list) else a, b, rtol=1e-4, atol=1e-5)
            seen.append(what)
    assert len(seen) == len(set(seen)) == 4


def test_a_step_of_training_trains(script, corpus, tmp_path):
    tower = TransformerConfig(width=16, depth=1, heads=2)
    model = CLIPConfig(16, 16, 8, tower, tower, vocab=300)
    recipe = CLIPRecipe("clip", model, TrainConfig(batch=8), DataConfig(size=16))
    (corpus / "16" / "train").symlink_to(corpus / "16" / "val")
    stage = recipe.stage(corpus, tmp_path, torch.device("cpu"))
    before = stage.net.log_scale.item()
    script("training").step(stage, bfloat=False)()
    assert stage.net.log_scale.item() != before


SMALL = "data.size=16 data.core=True train.batch=8 train.steps=3 train.warmup=1"
TINY = {
    "decoder": "model.size=16 model.embed=16 model.vocab=300 model.text.width=16 model.text.depth=1 model.text.heads=2 "
    "model.unet.channels=[8] model.unet.attention=[0] model.unet.head=8 model.unet.context=16",
    "prior": "model.embed=16 model.text=16 model.transformer.width=16 model.transformer.depth=1 "
    "model.transformer.heads=2 measured=0",
    "clip": "model.embed=16 model.image_size=16 model.patch=8 model.vocab=300 model.sketch=2 model.image.width=16 "
    "model.image.depth=1 model.image.heads=2 model.text.width=16 model.text.depth=1 model.text.heads=2",
}


@pytest.mark.parametrize("stage", TINY)
def test_an_ablation_trains_from_nothing_and_measures(script, weights, corpus, stage):
    ablations, split = script("ablations"), Split.load(corpus, 16, "val", limit=32)
    if not (corpus / "16" / "train").exists():
        (corpus / "16" / "train").symlink_to(corpus / "16" / "val")
    rows = [ablations.ablate(stage, f"{SMALL} {TINY[stage]} {rate}".split(), corpus, weights, [split])
            for rate in ("train.lr=1e-3", "train.lr=1e-3", "train.lr=0")]  # fmt: skip
    for row in rows:
        del row["seconds"]
    assert rows[0]["views"] == 24
    assert rows[0] == rows[1] != rows[2]


def test_rows_are_kept_and_not_trained_again(script, weights, corpus, tmp_path, monkeypatch, capsys):
    ablations, trained = script("ablations"), []

    def ablate(stage, settings, *rest):
        trained.append(settings[-1])
        return {"views": 1}

    def run(pictures: int) -> list[str]:
        words = f"clip --data {corpus} --weights {weights} --results {tmp_path / 'new'} --pictures {pictures}"
        monkeypatch.setattr("sys.argv", ["ablations.py", *words.split(), "--only", "no sketch"])
        ablations.main()
        return trained

    monkeypatch.setattr(ablations, "ablate", ablate)
    monkeypatch.setattr(ablations.Split, "load", lambda *args, **options: None)
    assert run(64) == ["model.sketch=0"]
    assert len(run(64)) == 1
    assert len(run(32)) == 2  # measured on others, the row before is no match
    assert "| no sketch | model.sketch=0 | 1     |" in capsys.readouterr().out


def test_what_the_decoder_is_told_makes_its_error(script, tiny, corpus, monkeypatch):
    ablations, split = script("ablations"), Split.load(corpus, 16, "val", limit=32)
    x0, rows = tensor(split.pictures), ablations.separated(tiny, [split])
    assert len({tuple(row.values()) for row in rows.values()}) == len(rows) == 5

    class Told:  # draws what it is told in place of z_i
        config = tiny.decoder.config

        def __call__(self, x, t, given):
            return torch.cat([given, given], dim=1)

    monkeypatch.setattr(tiny, "condition", lambda net, z_i, lines, no_z_i: z_i)
    monkeypatch.setattr(tiny, "decoder", Told())
    error = ablations.errors(tiny, split, x0, split.captions, None)
    assert list(error) == [f"val {t}" for t in ablations.TIMES]
    assert max(error.values()) == 0
    off = ablations.errors(tiny, split, x0 - 0.25, split.captions, None)
    assert off["val 1000"] == pytest.approx((x0 - (x0 - 0.25).clamp(min=-1)).square().mean().item(), abs=2e-5)


def test_errors_by_scale(script, tiny, corpus):
    ablations, split = script("ablations"), Split.load(corpus, 16, "val", limit=32)
    flat, fine = torch.full((1, 3, 16, 16), 2.0), torch.ones(1, 3, 16, 16)
    fine[..., ::2] = -1
    assert list(ablations.bands(flat + 3 * fine).values()) == [4, 0, 0, 9]
    rows = ablations.scales(tiny, [split])
    x0 = tensor(split.pictures)
    assert rows["8 × 8"]["val variance"] == pytest.approx(x0.var(0, correction=0).mean().item(), abs=1e-4)
    assert rows["1 × 1"]["val variance"] == 0  # the pictures are flat
    assert rows["1 × 1"]["val error"] > 0


def test_every_ablation_is_a_setting_of_its_stage(script):
    from unclip.cli.train import assignment, changed, find

    ablations = script("ablations")
    for stage, changes in ablations.CHANGES.items():
        seen = []
        for change in changes.values():
            recipes = find(f"mini.{stage}")
            for text in f"{ablations.COMMON[stage]} {change}".split():
                recipes = changed(recipes, *assignment(text))
            seen.append(recipes[stage])
            assert recipes[stage].train.steps * recipes[stage].train.batch == seen[0].train.steps * seen[0].train.batch
        assert all(seen.count(recipe) == 1 for recipe in seen)


def test_the_time_of_a_picture_is_shared_among_its_stages(script, weights):
    ((size, time, shares),) = script("generate").warm(UnCLIP.from_pretrained(weights), 1)
    assert size == 16
    assert time > 0
    parts = [part.split() for part in shares.split(", ")]
    assert [stage for stage, _ in parts] == ["prior", "decoder"]
    assert sum(int(share.rstrip("%")) for _, share in parts) == pytest.approx(100, abs=1)


def test_the_few_step_table(script, weights, corpus):
    from unclip.evaluate.judge import Judge

    system = UnCLIP.from_pretrained(weights)
    system.students["decoder_fast"] = system.decoder
    judge = Judge.load(None, weights, torch.device("cpu"))
    rows = script("fewsteps").judged(system, judge, corpus, "compose", 32, [1, 2])
    drawn = [("teacher", 25), ("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)]
    assert [tuple(row[:2]) for row in rows] == drawn
    assert all(0 <= row[2] <= 1 and row[5] > 0 for row in rows)
    assert rows[0][3] in (1.0, "–")


def test_the_few_step_table_of_an_upsampler(script, tiny, monkeypatch):
    pictures = [Image.effect_mandelbrot((64, 64), (-2, -1.5 + k / 64, 1, 1.5), 10).convert("RGB") for k in range(32)]
    held = Split("compose", 32, [{"key": str(k)} for k in range(32)], pictures, [""] * 32)
    monkeypatch.setattr(Split, "load", lambda *args, **options: held)
    monkeypatch.setitem(tiny.students, "upsampler_256_fast", tiny.upsampler)
    monkeypatch.setattr(tiny, "hired", {})
    bicubic, *rows = script("fewsteps").enlarged(tiny, "", "compose", [1, 2])
    assert [tuple(row[:2]) for row in rows] == [("teacher", 25), ("teacher", 1), ("teacher", 2),
                                                ("student", 1), ("student", 2)]  # fmt: skip
    assert 0 < bicubic[2] < 1 and 0 < bicubic[3] < 1  # a blur


def test_which_samplers_are_drawn_in_the_most_steps(script):
    cells = script("samplers").cells(["ddim", "unipc/karras", "ddpm"], [2, 50])
    assert cells == [("ddim", 2), ("unipc/karras", 2), ("ddpm", 2), ("ddpm", 50)]


@pytest.mark.slow
def test_the_cascade_table(script, weights, tmp_path):
    folder = tmp_path / "w"
    system = UnCLIP.from_pretrained(weights)
    unet = UNetConfig(6, channels=(8,), depth=1, attention=(), patch=4, local=True)
    system.upsampler = Upsampler(UpsamplerConfig(16, 64, unet=unet))
    system.save_pretrained(folder)
    ((whole, *_, none), (tile, seconds, peak, own, differs)) = script("cascade").measured(str(folder), 256, [0, 128], 1)
    assert (whole, tile, none) == ("none", 128, 0)
    assert seconds > 0 and peak > own >= 0 and differs <= 1


def test_a_report_replaces_its_own_section_alone(script, tmp_path):
    measure = script("measure")
    for title, body in (("b", "old"), ("a", "first"), ("b", "new")):
        measure.report(tmp_path, title, body, measure.table(["x", "y"], [[1, 2.34567]]))
    (page,) = tmp_path.iterdir()
    text = page.read_text()
    assert text.startswith(f"# {measure.hardware()}\n\n## a\n\n`python ")
    assert text.count("## b\n") == 1
    assert "first" in text
    assert "new" in text
    assert "old" not in text
    assert "| 1 | 2.35 |" in text


def test_every_variant_takes_each_turn(script):
    calls = []
    times = script("measure").in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 20)
    assert calls[:2] == ["a", "b"]  # to warm up
    turns = [tuple(calls[i : i + 2]) for i in range(2, 42, 2)]
    assert set(turns) == {("a", "b"), ("b", "a")}
    assert [len(t) for t in times.values()] == [20, 20]
