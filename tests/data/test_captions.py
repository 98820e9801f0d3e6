import random
from collections import Counter

import pytest

from unclip.data.captions import CHINESE, COLOURS, article, canonical, draw
from unclip.data.sources import SOURCES

CAT = {
    "label": "cat",
    "label_zh": "猫",
    "keywords": ["animal", "pet", "kitten"],
    "style": "outline icon",
    "mono": False,
}


def captions(meta, n=2000, **more):
    rng = random.Random(0)
    return Counter(draw(meta, rng, **more) for _ in range(n))


def test_canonical():
    assert canonical(CAT) == "cat, outline icon"


def test_every_template_occurs_and_label_with_style_most_often():
    seen = captions(CAT)
    assert {c for c, _ in seen.most_common(2)} == {"cat, outline icon", "a cat, outline icon"}
    assert seen["an outline icon of cat"] and seen["猫，线条图标"]
    house = captions(CAT | {"style": "noto emoji"})
    assert any(c.startswith("cat: ") and c.count(",") == 1 for c in house)  # two keywords
    assert any(c.endswith(", outline icon") and "cat" not in c for c in seen)  # keywords, style


def test_only_house_styles_go_unnamed():
    seen = captions(CAT | {"style": "noto emoji"})
    assert all(seen[caption] for caption in ("cat", "a cat", "猫", "a kitten"))
    assert all("outline icon" in caption or "线条图标" in caption for caption in captions(CAT))


def test_a_draw_is_a_function_of_its_generator():
    assert captions(CAT, 50) == captions(CAT, 50)


def test_without_keywords_or_chinese_only_plain_templates():
    assert set(captions(CAT | {"label_zh": None, "keywords": ["pet"]})) == {
        "cat, outline icon", "a cat, outline icon", "an outline icon of cat"
    }  # fmt: skip


def test_background_is_said_in_the_language_of_the_caption():
    for caption in captions(CAT, background="orange"):
        assert caption.endswith((" on an orange background", "，橙色背景"))


def test_ink_is_said_once():
    for caption in captions(CAT | {"style": "silhouette"}, ink="red"):
        assert caption.count("red") + caption.count("红色的猫") == 1
    assert "a red cat" in captions(CAT, ink="red")
    assert "a red outline icon of cat" in captions(CAT, ink="red")


def test_both_spellings_of_colour():
    seen = captions(CAT | {"style": "flat colour icon"})
    assert seen["cat, flat colour icon"]
    assert seen["cat, flat color icon"]


def test_a_caption_without_label_is_kept():
    assert draw({"caption": "two dogs"}, random.Random(0)) == "two dogs"
    assert draw({"caption": "two dogs"}, random.Random(0), background="red") == "two dogs on a red background"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("outline icon", "an outline icon"),
        ("emojione emoji", "an emojione emoji"),
        ("blob emoji", "a blob emoji"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("clip art", "clip art"),
        ("red clip art", "red clip art"),
    ],
)
def test_article(noun, expected):
    assert article(noun) == expected


def test_every_style_and_colour_has_a_chinese_name():
    assert {s.style for s in SOURCES} | set(COLOURS) == set(CHINESE)
    assert all(len(rgb) == 3 and all(0 <= c <= 255 for c in rgb) for rgb in COLOURS.values())
