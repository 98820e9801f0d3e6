"""Priors side by side: numbers known beforehand, and what is stored with the weights."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from unclip.cli.main import main
from unclip.evaluate import prior as measured
from unclip.evaluate.alignment import Split
from unclip.evaluate.judge import tensor
from unclip.evaluate.prior import compare, store_variance, table
from unclip.models.prior_ar import PriorAR, PriorARConfig
from unclip.pipeline import UnCLIP
from unclip.settings import Settings
from unclip.weights import hub

FEW = Settings(prior_steps=2)


@pytest.fixture(scope="module")
def system(weights) -> UnCLIP:
    """The pipeline with an autoregressive prior beside the other."""
    system = UnCLIP.from_pretrained(weights)
    torch.manual_seed(0)
    c = system.prior.config
    config = PriorARConfig(c.embed, c.text, c.context, 4, 32, c.transformer)
    system.prior_ar = PriorAR(config).eval().requires_grad_(False)
    return system


def test_numbers_known_beforehand():
    g = torch.Generator().manual_seed(0)
    z_i = F.normalize(torch.randn(64, 16, generator=g), dim=1)
    assert compare(z_i, z_i, z_i, 32)["recall"] == {"value": 1.0, "error": 0.0}
    turned = F.normalize(z_i + 0.5 * F.normalize(torch.randn(64, 16, generator=g), dim=1), dim=1)
    numbers = compare(turned, z_i, -z_i, 32)
    cosine = (turned * z_i).sum(1)
    assert numbers["cos_z_i"]["mean"] == pytest.approx(cosine.mean().item(), abs=1e-6)
    assert numbers["cos_z_i"]["tenths"][1] == pytest.approx(cosine.quantile(0.5).item(), abs=1e-6)
    assert numbers["cos_z_t"] == pytest.approx(-numbers["cos_z_i"]["mean"], abs=1e-6)
    moved = z_i.roll(1, 0)
    moved[::32] = z_i[::32]  # of each group one is right, and one has its neighbour's from outside
    assert compare(moved, z_i, z_i, 32)["recall"]["value"] == pytest.approx(2 / 64)


def test_every_prior_beside_z_t(system, corpus):
    results = measured.prior(system, corpus, FEW, splits=("val",), limit=64)
    rows = results["splits"]["val"]["priors"]
    assert list(rows) == ["true", "diffusion", "ar", "none"]
    assert [row["steps"] for row in rows.values()] == [0, 2, 5, 0]
    assert rows["true"]["cos_z_i"]["mean"] == pytest.approx(1)
    assert rows["none"]["cos_z_t"] == pytest.approx(1)
    split = Split.load(corpus, 16, "val", limit=64)
    z_i, z_t = measured.true(system, split)
    assert rows["none"]["cos_z_i"]["mean"] == pytest.approx((z_i * z_t).sum(1).mean().item(), abs=1e-5)
    again = measured.prior(system, corpus, FEW, splits=("val",), limit=64)
    for name, row in again["splits"]["val"]["priors"].items():
        assert row["cos_z_i"] == rows[name]["cos_z_i"]
    text = table(results)
    assert all(f"val, {name}" in text for name in rows)


def test_the_judge_names_the_pictures(system, corpus, oracle, monkeypatch):
    """A decoder that draws what z_i says, read by a judge that is always right: the true z_i are all named."""
    drawn = Split.load(corpus, 16, "val", limit=64)
    z_i = measured.true(system, drawn)[0]
    pictures = tensor(drawn.pictures)
    monkeypatch.setattr(system, "decode", lambda z, *rest: pictures[(z @ z_i.T).argmax(1)])
    results = measured.prior(system, corpus, FEW, splits=("val",), limit=64, judge=oracle)
    rows = results["splits"]["val"]["priors"]
    assert rows["true"]["judge"]["value"] == 1
    assert rows["diffusion"]["judge"]["value"] < 0.5
    lines = table(results).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| prior"))
    assert len({line.count("|") for line in lines[head : head + 6]}) == 1 and "100.0%" in lines[head + 2]


def test_on_the_command_line_and_stored_with_the_weights(weights, corpus, tmp_path, capsys):
    folder = shutil.copytree(weights, tmp_path / "copy")
    words = ["evaluate", "prior", "--data", corpus, "--weights", folder, "--split", "val", "--limit", 32]
    words += ["--prior-steps", 2, "--prior-sampler", "analytic", "--best-of", 1, "--json"]
    assert main([str(w) for w in words]) == 2
    assert "no analytic variance was measured" in capsys.readouterr().err
    assert main([str(w) for w in [*words, "--store-variance"]]) == 0
    rows = json.loads(capsys.readouterr().out)["splits"]["val"]["priors"]
    assert list(rows) == ["true", "diffusion", "none"]
    before, after = UnCLIP.from_pretrained(weights), UnCLIP.from_pretrained(folder)
    assert after.prior.config == replace(before.prior.config, measured=measured.LEVELS)
    for key, value in before.prior.state_dict().items():
        assert torch.equal(value, after.prior.state_dict()[key])
    table = after.prior.variance()
    assert table.shape == (1000, 16)
    # Far from data the caption is all that is known; near it the estimate is as good as the network is.
    assert (table > 0).all()
    torch.testing.assert_close(table[[0, -1]].float(), after.prior.error[[0, -1]])


def test_the_package_is_not_written_to(system, corpus):
    with pytest.raises(Exception, match="part of the package; copy the folder"):
        store_variance(system, hub.SHIPPED / "mini", corpus)
