import random

import pytest
import torch
from PIL import Image

from unclip.errors import UnclipError
from unclip.evaluate.alignment import Split, deal, measure, ratio, share
from unclip.evaluate.judge import Judge

SIZE, CONCEPTS, STYLES = 16, 20, 16  # as in conftest


def values(measured, who="generated"):
    return {name: r[who]["value"] for name, r in measured["recall"].items()}


def test_a_perfect_generator(val, oracle, drawn):
    measured = measure(val, drawn(val, lambda concept, style: (concept, style)), oracle)
    assert measured["pictures"] == 320
    for r in measured["recall"].values():
        assert r["ratio"] == {"value": 1, "error": 0}
        assert r["generated"] == r["real"] == {"value": 1, "error": 0}
    d = measured["distance"]
    assert d["frechet"]["generated"] == pytest.approx(0, abs=1e-9)
    assert d["kernel"]["generated"] == pytest.approx(0, abs=1e-12)
    assert d["frechet"]["floor"] > 0
    assert d["frechet"]["halves"] == pytest.approx(d["frechet"]["floor"])
    assert d["kernel"]["halves"] == pytest.approx(d["kernel"]["floor"])


def test_a_generator_that_ignores_the_caption(val, oracle, drawn):
    rng = random.Random(0)
    measured = measure(val, drawn(val, lambda *_: (rng.randrange(CONCEPTS), rng.randrange(STYLES))), oracle)
    chances = {name: r["chance"] for name, r in measured["recall"].items()}
    assert chances == pytest.approx({"caption": 1 / 32, "concept": 1 / CONCEPTS, "style": 1 / STYLES})
    for name, r in measured["recall"].items():
        # By chance a picture hits its own caption in 1 of 320, the only way to be nearest of all without a tie here,
        # or shares its concept or style with it and with no other of the group.
        assert r["generated"]["value"] < chances[name] + 3 * (chances[name] / 320) ** 0.5
        assert r["real"]["value"] == 1


def test_a_judge_that_sees_one_picture_everywhere_finds_one_caption_in_each_group(val, weights):
    judge = Judge.load(None, weights)
    measured = measure(val, [Image.new("RGB", (SIZE, SIZE), "teal")] * 320, judge)
    assert values(measured)["caption"] == 1 / 32


@pytest.mark.parametrize(
    ("rule", "concept", "style"),
    [(lambda c, s: (c, (s + 1) % STYLES), 1, 0), (lambda c, s: ((c + 1) % CONCEPTS, s), 0, 1)],
)
def test_concept_and_style_are_told_apart(val, oracle, drawn, rule, concept, style):
    found = values(measure(val, drawn(val, rule), oracle))
    assert (found["concept"], found["style"]) == (concept, style)


def test_distances_grow_as_pictures_leave_the_real_ones(val, oracle, drawn):
    near = measure(val, drawn(val, lambda c, s: (c, min(s, 14))), oracle)["distance"]
    far = measure(val, drawn(val, lambda c, s: (c, s // 4)), oracle)["distance"]
    for kind in ("frechet", "kernel"):
        assert 0 < near[kind]["generated"] < far[kind]["generated"]
        assert far[kind]["halves"] > 2 * abs(far[kind]["floor"])


def test_groups_hold_distinct_captions_and_every_picture_at_most_once():
    lines = [f"caption {i % 70}" for i in range(100)]
    groups = deal(lines, 32, random.Random(3))
    assert len(groups) == 3
    assert all(len({lines[row] for row in group}) == 32 for group in groups)
    assert len({row for group in groups for row in group}) == 96


def test_captions_that_are_too_alike_fill_no_group():
    assert deal(["the same"] * 100, 32, random.Random(0)) == []


def test_groups_are_the_same_at_every_limit_and_change_with_the_seed(corpus, val):
    part = Split.load(corpus, SIZE, "val", limit=100)
    assert len(part.captions) == 96
    assert part.captions == val.captions[:96]
    assert part.seeds(5) == val.seeds(5)[:96]
    assert sorted(val.captions) != val.captions != Split.load(corpus, SIZE, "val", seed=1).captions


def test_every_question_offers_its_own_caption_first_and_no_other_twice(val):
    asked = val.questions()
    assert set(asked) == {"caption", "concept", "style"}
    for rows in asked.values():
        assert [row[0] for row in rows] == val.captions
        assert all(len(set(row)) == len(row) for row in rows)
    assert {len(row) for row in asked["caption"]} == {32}
    assert all(c.endswith(row[0].split(", ")[1]) for row in asked["concept"] for c in row)
    assert all(c.startswith(row[0].split(", ")[0] + ",") for row in asked["style"] for c in row)


def test_captions_without_label_and_style_are_asked_for_whole(corpus):
    split = Split.load(corpus, SIZE, "val", limit=32)
    split.metas = [{"key": m["key"], "caption": m["caption"]} for m in split.metas]
    assert set(split.questions()) == {"caption"}


@pytest.mark.parametrize("limit", [31, 0, -5])
def test_a_limit_that_fills_no_group_is_refused(corpus, limit):
    with pytest.raises(UnclipError, match=f"limit {limit}: no group of 32"):
        Split.load(corpus, SIZE, "val", limit=limit)


def test_a_share_has_the_binomial_error():
    found = share(torch.tensor([True] * 8 + [False] * 2))
    assert found == pytest.approx({"value": 0.8, "error": (0.8 * 0.2 / 10) ** 0.5})


def test_a_ratio_has_the_error_that_repeated_draws_show():
    g = torch.Generator().manual_seed(0)
    true = torch.rand(400, 1000, generator=g) < 0.9
    made = true & (torch.rand(400, 1000, generator=g) < 0.5)
    found = [ratio(made[:, i], true[:, i]) for i in range(1000)]
    shown = torch.tensor([r["value"] for r in found])
    assert shown.mean().item() == pytest.approx(0.5, abs=0.005)
    assert torch.tensor([r["error"] for r in found]).mean().item() == pytest.approx(shown.std().item(), rel=0.1)
    assert ratio(torch.ones(4), torch.zeros(4)) is None
