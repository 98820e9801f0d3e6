"""The lineage's measures against cases with a known answer, and the page that shows them."""

import sys

import pytest
import torch

from unclip.data.images import Corpus
from unclip.evaluate import page
from unclip.evaluate.distances import precision_recall, spread
from unclip.evaluate.lineage import Held, measure, real
from unclip.evaluate.probes import kinds, probe
from unclip.lineage.system import System


def test_precision_is_fidelity_and_recall_diversity():
    """Two clusters: drawn from both, from one alone, from neither."""
    g = torch.Generator().manual_seed(0)
    clusters = [torch.randn(400, 2, generator=g) + 20 * i for i in range(3)]
    real = torch.cat([c[:200] for c in clusters[:2]])
    both, one = torch.cat([c[200:] for c in clusters[:2]]), clusters[0][200:]
    precision, recall = precision_recall(both, real)
    assert precision > 0.9 and recall > 0.9
    precision, recall = precision_recall(one, real)
    assert precision > 0.9 and 0.4 < recall < 0.55  # one mode of two
    assert precision_recall(clusters[2], real) == (0, 0)
    assert precision_recall(real, real) == (1, 1)


def test_spread_is_the_share_of_the_variance_that_a_caption_leaves():
    g = torch.Generator().manual_seed(0)
    said, a, b = (torch.randn(2000, 4, generator=g) for _ in range(3))
    assert spread(said, said) == 0  # one picture a caption
    assert spread(a, b) == pytest.approx(1, abs=0.05)  # as if there were no caption
    assert spread(said + a, said + b) == pytest.approx(0.5, abs=0.05)


def test_a_probe_reads_what_is_there_and_no_more():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(600, 8, generator=g), torch.randint(3, (600,), generator=g)
    assert probe(x[:400], y[:400], x[400:], y[400:]) < 0.45  # nothing to read: a third by chance
    x += 3 * torch.eye(8)[y]
    assert probe(x[:400], y[:400], x[400:], y[400:]) > 0.9


def test_kinds_are_those_of_the_pictures_that_a_probe_is_fitted_to():
    known = [{"group": "food"}, {"group": "animals"}, {"group": ""}, {"group": "food"}, {}]
    a, b = kinds("group", known, [{"group": "food"}, {"group": "flags"}])
    assert a.tolist() == [1, 0, -1, 1, -1] and b.tolist() == [1, -1]


class Copyist(System):
    """Draws exactly what the caption says, or always the same."""

    title, models, text, calls = "copyist", "p(x)", True, 3

    def __init__(self, held, right: bool):
        self.known = dict(zip(held.split.captions, held.pictures, strict=True))
        self.right, self.size, self.net = right, 16, torch.nn.Linear(3, 5)

    def nets(self):
        return [self.net]

    def sample(self, captions, seeds):
        first = next(iter(self.known.values()))
        return torch.stack([self.known.get(c, first) if self.right else first for c in captions])

    def features(self, pictures):
        return pictures.mean((2, 3))


@pytest.fixture(scope="module")
def held(val, oracle, corpus):
    known = Corpus.load(corpus, 16, "compose")
    for meta in known.meta:  # what its red tells
        meta["group"] = "bright" if int(meta["label"].split()[1]) >= 10 else "dark"
    return Held(val, known, known, oracle)


def test_a_row_tells_right_from_wrong(held):
    good, sheet = measure(Copyist(held, True), held, 60.0)
    bad, _ = measure(Copyist(held, False), held, 60.0)
    assert sheet.shape == (8, 3, 64, 64)
    assert good["alignment"] == 1 and bad["alignment"] < 0.1
    assert good["recall"] == 1 and bad["recall"] < 0.1  # all of one kind: no diversity
    assert good["frechet"] < 1e-3 < bad["frechet"]
    assert good["spread"] == pytest.approx(0, abs=1e-9) and bad["spread"] < 1e-3  # it has one picture of each caption
    assert good["parameters"] == 20 and good["calls"] == 3 and good["bits"] is None
    assert "error" not in good and good["probe_style"] > 0.15


def test_the_first_row_is_of_the_pictures_themselves(held):
    row, sheet = real(held)
    assert row["alignment"] == 1  # of an oracle
    assert torch.equal(sheet, held.pictures[:8])
    assert row["probe_group"] > 0.9 and "recall" not in row  # pixels told again to the very probe that learnt them


def test_the_page(held, tmp_path):
    row, sheet = measure(Copyist(held, True), held, 61.0)
    row["models"] = "p(x | z) < 1"
    curve = [{"scale": 1.0, "precision": 0.25, "recall": 0.5}, {"scale": 10.0, "precision": 0.75, "recall": 0.125}]
    about = {"space": "here", "pictures": 64, "guidance": curve}
    page.write([row, {**row, "bits": 1.5}], [sheet, sheet], about, tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[4:] == ["|scale|precision|recall|", "|---|---|---|", "|1|0.25|0.5|", "|10|0.75|0.125|"]
    table = table[:4]
    assert len(table) == 4 and len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert "|61|" in table[2] and "|–|" in table[2] and "|1.50|" in table[3]
    html = (tmp_path / "index.html").read_text()
    assert html.count("<tr>") == 6 and "p(x | z) &lt; 1" in html and "lineage.png" in html
    assert (tmp_path / "lineage.png").stat().st_size > 500


def test_without_matplotlib_the_page_says_less(held, tmp_path, monkeypatch):
    row, sheet = measure(Copyist(held, True), held, 61.0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert page.write([row], [sheet], {"space": "here", "pictures": 64}, tmp_path) == []
    assert "systems.png" not in (tmp_path / "report.md").read_text()
