from collections import defaultdict
from itertools import product

import pytest

from unclip.data.names import Name
from unclip.data.pictures import Picture
from unclip.data.plan import SPLITS, describe, plan, split
from unclip.data.sources import SOURCES

COLOURED = [s for s in SOURCES if not s.mono]
MONO = next(s for s in SOURCES if s.mono)


def picture(concept: str, source=COLOURED[0], tone: bool = False, flag: bool = False, variant: str = "") -> Picture:
    key = f"{source.name}-{concept}{variant}{'-dark' if tone else ''}"
    return Picture(key, source, Name(f"{concept} label", concept, tone=tone, flag=flag), key.encode())


@pytest.fixture(scope="module")
def many() -> list[Picture]:
    """600 concepts in one to nine styles, some toned, some with variants, some drawn in one colour too."""
    pictures = []
    for i in range(600):
        for source in COLOURED[: i % 9 + 1]:
            pictures += [picture(f"thing-{i}", source), picture(f"thing-{i}", source, variant="-2")]
            if i % 5 == 0:
                pictures.append(picture(f"thing-{i}", source, tone=True))
        if i % 4 == 0:
            pictures.append(picture(f"thing-{i}", MONO))
    return pictures


def test_splits_never_leak(many):
    concepts, pairs = defaultdict(set), defaultdict(set)
    for p, where in zip(many, split(many), strict=True):
        concepts[where].add(p.name.concept)
        pairs[where].add((p.name.concept, p.source.style))
    assert set(concepts) == set(SPLITS)
    assert not concepts["val"] & (concepts["train"] | concepts["compose"])
    assert not pairs["train"] & pairs["compose"]
    assert concepts["compose"] <= concepts["train"]
    assert {style for _, style in pairs["compose"]} <= {style for _, style in pairs["train"]}


def test_compose_concepts_keep_two_styles_and_lose_at_most_two(many):
    styles = {where: defaultdict(set) for where in SPLITS}
    for p, where in zip(many, split(many), strict=True):
        if not p.source.mono:
            styles[where][p.name.concept].add(p.source.style)
    assert styles["compose"]
    for concept, held_out in styles["compose"].items():
        assert 1 <= len(held_out) <= 2
        assert len(styles["train"][concept]) >= 2


def test_shares(many):
    where = split(many)
    concepts = {p.name.concept: w for p, w in zip(many, where, strict=True) if w != "compose"}
    assert 0.02 < sum(w == "val" for w in concepts.values()) / len(concepts) < 0.07
    assert 0.03 < where.count("compose") / len(where) < 0.09


def test_a_split_depends_on_concept_and_style_alone(many):
    all_splits = dict(zip((p.key for p in many), split(many), strict=True))
    backwards = many[::-1]
    assert dict(zip((p.key for p in backwards), split(backwards), strict=True)) == all_splits
    assert all(  # a second drawing, in whatever skin tone, goes where the first goes
        all_splits[p.key] == all_splits[f"{p.source.name}-{p.name.concept}"] for p in many
    )


def test_core_is_three_colour_sets_without_tones_flags_and_one_colour():
    three, two = COLOURED[:3], COLOURED[:2]
    pictures = [picture("cat", s) for s in three] + [picture("cat", MONO), picture("cat", three[0], tone=True)]
    pictures += [picture("dog", s) for s in two] + [picture("dog", MONO)]
    pictures += [picture("flag-japan", s, flag=True) for s in three]
    core = {p.key for p, meta in zip(pictures, describe(pictures), strict=True) if meta["core"]}
    assert core == {p.key for p in pictures[:3]}


def test_weights():
    tone, plain = describe([picture("cat", tone=True), picture("cat")])
    assert 0.1 <= tone["weight"] <= 0.15
    assert plain["weight"] == 1
    low = describe([picture("cat", s) for s in SOURCES if s.name in ("icon-park", "circle-flags")])
    assert [meta["weight"] for meta in low] == [0.3, 0.3]


def test_meta():
    name = Name("cat", "cat", "猫", ("pet",))
    assert describe([Picture("noto-cat", SOURCES[0], name, b"")]) == [
        {
            "label": "cat", "label_zh": "猫", "keywords": ["pet"], "style": "noto emoji", "source": "noto",
            "licence": "Apache-2.0", "concept": "cat", "group": "", "tone": False, "flag": False, "mono": False,
            "core": False, "weight": 1.0, "caption": "cat, noto emoji",
        }
    ]  # fmt: skip


def test_shards_hold_every_picture_once_in_any_order_of_arrival(many):
    planned = plan(many, (16,), None, 100)
    assert sorted(p.key for shard in planned for p in shard.pictures) == sorted(p.key for p in many)
    assert all(len(shard.pictures) <= 100 for shard in planned)
    assert [(s.split, s.index) for s in planned] == sorted(
        ((s.split, s.index) for s in planned), key=lambda x: (SPLITS.index(x[0]), x[1])
    )
    assert [s.fingerprint for s in plan(many[::-1], (16,), None, 100)] == [s.fingerprint for s in planned]


def test_a_limited_corpus_is_a_part_of_the_whole_one(many):
    whole = {p.key: (shard.split, meta) for shard in plan(many, (16,), None, 100) for p, meta in _rows(shard)}
    part = {p.key: (shard.split, meta) for shard in plan(many, (16,), 150, 100) for p, meta in _rows(shard)}
    assert len(part) == 150
    assert part.items() <= whole.items()
    assert len({dict(meta)["source"] for _, meta in part.values()}) > 5


def _rows(shard):
    metas = (tuple(sorted((k, str(v)) for k, v in meta.items())) for meta in shard.metas)
    return list(zip(shard.pictures, metas, strict=True))


def test_a_fingerprint_knows_pictures_names_and_sizes(many):
    first = plan(many, (16,), None, 10_000)[0].fingerprint
    changed = [*many[:-1], Picture(many[-1].key, many[-1].source, many[-1].name, b"another drawing")]
    renamed = [*many[:-1], Picture(many[-1].key, many[-1].source, Name("x", many[-1].name.concept), many[-1].data)]
    others = [
        plan(p, sizes, None, 10_000)[0].fingerprint
        for p, sizes in [(changed, (16,)), (renamed, (16,)), (many, (16, 32))]
    ]
    assert len({first, *others}) == 4


def test_every_style_is_held_out_somewhere():
    concepts = [f"thing-{i}" for i in range(400)]
    pictures = [picture(c, s) for c, s in product(concepts, COLOURED[:8])]
    held_out = {p.source.style for p, where in zip(pictures, split(pictures), strict=True) if where == "compose"}
    assert held_out == {s.style for s in COLOURED[:8]}
