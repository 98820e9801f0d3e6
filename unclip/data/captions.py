"""Captions: one is drawn for each visit of a picture, from its label, style, keywords and Chinese name."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (220, 38, 38),
    "orange": (245, 130, 32),
    "yellow": (250, 204, 21),
    "green": (34, 160, 70),
    "turquoise": (45, 200, 190),
    "blue": (37, 99, 235),
    "purple": (130, 60, 200),
    "pink": (245, 130, 180),
    "brown": (130, 80, 40),
}

CHINESE = {
    "white": "白色", "black": "黑色", "grey": "灰色", "red": "红色", "orange": "橙色", "yellow": "黄色",
    "green": "绿色", "turquoise": "青色", "blue": "蓝色", "purple": "紫色", "pink": "粉色", "brown": "棕色",
    "noto emoji": "Noto 表情", "flat twitter emoji": "推特扁平表情", "flat vector emoji": "扁平矢量表情",
    "glossy 3d emoji": "光泽三维表情", "emojione emoji": "EmojiOne 表情", "blob emoji": "圆团表情",
    "firefox emoji": "火狐表情", "duotone emoji": "双色调表情", "two-tone outline icon": "双色线条图标",
    "freehand doodle": "手绘涂鸦", "flat colour icon": "扁平彩色图标", "outline icon": "线条图标",
    "round flag": "圆形旗帜", "silhouette": "剪影", "clip art": "剪贴画",
}  # fmt: skip

TEMPLATES = {
    "label, style": 0.36,
    "label": 0.24,
    "style of label": 0.10,
    "label: keywords": 0.08,
    "keywords, style": 0.05,
    "keyword": 0.05,
    "chinese": 0.06,
    "chinese, style": 0.06,
}

# What a caption that names no style means: one that may mean a dozen looks is answered by a muddle of them.
HOUSE = {"noto emoji", "flat twitter emoji", "flat vector emoji", "glossy 3d emoji"}
NAMING = {"label": "label, style", "label: keywords": "keywords, style", "keyword": "keywords, style",
          "chinese": "chinese, style"}  # fmt: skip

INTRODUCED = 0.15  # how often a caption that is a label alone begins as people begin: "a picture of …"
INTRODUCTIONS = ("a picture of", "a drawing of", "an image of", "an illustration of")
MEASURES = tuple(f"a {much} of" for much in ("cup", "glass", "bowl", "slice", "piece", "pair", "bunch", "plate"))
OPENINGS = (*INTRODUCTIONS, *MEASURES, "a photo of", "an icon of", "the", "my")  # in place of "a": the like is meant
COUNTERS = ("一只", "一个", "一辆", "一朵", "一条", "一张", "一杯", "一幅")  # "a", whichever the noun asks for
COLOURED = 0.15  # how often a picture with one ruling colour is called by it: "a red car"


def canonical(meta: Mapping[str, Any]) -> str:
    """The caption stored beside the picture: "{label}, {style}"."""
    return f"{meta['label']}, {meta['style']}"


def draw(meta: Mapping[str, Any], rng: random.Random, background: str | None = None, ink: str | None = None) -> str:
    """One caption for one visit. `meta` is a sample's JSON; without a label (another corpus) its caption is kept.

    background: the name in COLOURS of the flat ground behind the picture; None says nothing about it.
    ink: the name in COLOURS a one-colour picture was painted with.
    A `colour` in `meta`, the one that rules in the picture, is named now and then.
    """
    if "label" not in meta:
        text = meta.get("caption", "")
        return f"{text} on {article(background)} background" if background and text else text
    template = rng.choices(list(TEMPLATES), list(TEMPLATES.values()))[0]
    if meta["style"] not in HOUSE and not ink:
        template = NAMING.get(template, template)
    keywords = [k for k in meta.get("keywords", ()) if k != meta["label"]]
    if ("keyword" in template and len(keywords) < 2) or ("chinese" in template and not meta.get("label_zh")):
        template = "label, style"
    ruling = meta.get("colour")
    if ruling and not ink and rng.random() < COLOURED and ruling not in meta["label"]:
        meta = {**meta, "label": f"{ruling} {meta['label']}"}
        if meta.get("label_zh"):
            meta["label_zh"] = f"{CHINESE[ruling]}的{meta['label_zh']}"
    if "chinese" in template:
        return _chinese(meta, template, background, ink)

    label, style = meta["label"], meta["style"]
    if rng.random() < 0.5:
        style = style.replace("colour", "color")
    some = ", ".join(rng.sample(keywords, min(len(keywords), rng.randint(2, 4)))) if "keywords" in template else ""
    if ink and template in ("style of label", "keywords, style"):
        style = f"{ink} {style}"
    elif ink:
        label = f"{ink} {label}"
    counted = article(label) if rng.random() < 0.5 else label  # people write "horse" and "a horse"
    if template == "label" and rng.random() < INTRODUCED:
        counted = f"{rng.choice(INTRODUCTIONS)} {counted}"
    text = {
        "label, style": f"{counted}, {style}",
        "label": counted,
        "style of label": f"{article(style)} of {label}",
        "label: keywords": f"{label}: {some}",
        "keywords, style": f"{some}, {style}",
        "keyword": article(" ".join(filter(None, [ink, rng.choice(keywords or [label])]))),
    }[template]
    return f"{text} on {article(background)} background" if background else text


def _chinese(meta: Mapping[str, Any], template: str, background: str | None, ink: str | None) -> str:
    parts = [f"{CHINESE[ink]}的{meta['label_zh']}" if ink else meta["label_zh"]]
    if template == "chinese, style":
        parts.append(CHINESE.get(meta["style"], meta["style"]))
    if background:
        parts.append(f"{CHINESE[background]}背景")
    return "，".join(parts)


def paraphrase(
    meta: Mapping[str, Any], names: Mapping[str, Sequence[str]], chinese: Sequence[str], rng: random.Random
) -> tuple[str, str]:
    """A caption in other words or in Chinese, and the plain English one that means the same.

    names: other names of labels and of colours, the most familiar first; chinese: of this label, its own first.
    """
    label, style, ruling = meta["label"], meta["style"], meta.get("colour", "")
    if ruling in label or rng.random() < 0.75:
        ruling = ""
    styled = style not in HOUSE or rng.random() < 0.4
    plain, tail = (f"{ruling} {label}".strip(), f", {style}" if styled else "")
    if chinese and rng.random() < 0.5:
        name = chinese[0] if rng.random() < 0.6 else rng.choice(chinese)
        counter = rng.choice(COUNTERS) if rng.random() < 0.4 else ""
        coloured = f"{CHINESE[ruling]}的{name}" if ruling else name
        return f"{counter}{coloured}{f'，{CHINESE[style]}' if styled else ''}", f"{article(plain)}{tail}"

    def other(name: str) -> str:
        known = names.get(name, ())
        return known[int(len(known) * rng.random() ** 2)] if known and rng.random() < 0.8 else name

    said, opening = f"{other(ruling) if ruling else ''} {other(label)}".strip(), rng.random()
    if opening < 0.3:
        return f"{said}{tail}", f"{plain}{tail}"
    if opening < 0.8:
        said = article(said)
    else:
        begun = rng.choice(OPENINGS)
        several = begun in MEASURES and said[-1:] not in "sxyh" and rng.random() < 0.5
        said = f"{begun} {said}{'s' if several else ''}"
    return f"{said}{tail}", f"{article(plain)}{tail}"


def article(noun: str) -> str:
    """The noun with "a" or "an"; "clip art" cannot be counted and takes none."""
    if noun.endswith("clip art"):
        return noun
    return f"{'an' if re.match(r'(?i)[aeio]|u(?!ni|s[ei]|ti)|hour', noun) else 'a'} {noun}"


def names_style(caption: str, style: str) -> bool:
    """Whether a drawn caption says the style, in English or Chinese."""
    return any(name in caption for name in (style, style.replace("colour", "color"), CHINESE.get(style, style)))


def every(metas: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """All that captions can be made of, for a tokenizer to learn from: styles and colours count as often as drawn."""
    for meta in metas:
        yield canonical(meta) if "label" in meta else meta.get("caption", "")
        yield from meta.get("keywords", ())
        if meta.get("label_zh"):
            yield f"{meta['label_zh']}，{CHINESE.get(meta['style'], meta['style'])}"
    yield from (f"{english} {chinese}" for english, chinese in CHINESE.items())
    yield from (f"on {article(colour)} background, {CHINESE[colour]}背景" for colour in COLOURS)
