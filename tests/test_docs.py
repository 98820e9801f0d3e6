"""What the documentation says is so: its commands, links, names, tables and programs."""

import re
import shlex
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest

from unclip.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md",
                *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/lineage").glob("*.md")])  # fmt: skip
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def page(name: str) -> str:
    return TEXT[f"docs/{name}.md"]


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose first line begins with `head`, without backticks."""
    _, _, rest = text.partition(f"\n{head}")
    assert rest, f"no table {head!r}"
    lines = takewhile(lambda line: line.startswith("|"), rest.splitlines()[2:])
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


# ---- commands ------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every line in a block of code that calls unclip."""
    found = []
    for name, text in TEXT.items():
        blocks = [body for kind, body in FENCE.findall(text) if kind in ("sh", "bash")]
        blocks += re.findall(r"^    unclip .*$", FENCE.sub("", text), re.M)
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                found += [(name, part.strip()) for part in line.split("&&") if part.strip().startswith("unclip ")]
    return found


@pytest.mark.parametrize(("name", "line"), commands())
def test_every_command_line_is_understood(name, line, monkeypatch, capsys):
    words = shlex.split(re.sub(r"\s[<>]\s*\S+", "", line), comments=True)[1:]
    words = ["generate" if word == "COMMAND" else word for word in words]
    seen = []
    for command in COMMANDS:
        module = import_module(f"unclip.cli.{command}")
        monkeypatch.setattr(module, "run", lambda args: seen.append(args) or 0)
    assert main(words) == 0, capsys.readouterr().err
    if words[0] == "train":
        from unclip.cli.train import assignment, changed, find

        recipes = find(seen[0].name)
        for text in seen[0].set:
            assert changed(recipes, *assignment(text)) != recipes
    if words[0] == "evaluate":
        assert seen[0].measure in ("alignment", "prior", "words")


@pytest.mark.parametrize("name", TEXT)
def test_every_option_named_in_a_sentence_exists(name, capsys):
    known = set()
    measures = [["evaluate", measure] for measure in ("alignment", "prior", "words")]
    more = [*measures, ["data", "illustrations"], ["data", "folder"], ["data", "words"], ["lineage", "sample"],
            ["lineage", "redraw"]]
    for command in [[c] for c in COMMANDS] + more:
        assert main([*command, "--help"]) == 0
        known |= set(re.findall(r"--[a-z_-]+", capsys.readouterr().out))
    known |= {"--help", "--version", "--debug"}
    sentences = FENCE.sub("", TEXT[name])
    for code in re.findall(r"`([^`\n]+)`", sentences):
        words = code.split()
        if words[0] == "unclip" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in COMMANDS, code
        if words[0].startswith("--") or words[0] == "unclip":
            assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, code


# ---- links and names -----------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXT)
def test_every_link_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[name]):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        assert place.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(place.read_text(encoding="utf-8")), f"{target} has no such heading"


@pytest.mark.parametrize("name", TEXT)
def test_every_path_named_exists(name):
    text = re.sub(r"\]\([^)\s]*\)", "]", TEXT[name])
    for path in re.findall(r"(?<![\w/.])((?:unclip|tests|benchmarks|docs)/[\w./-]*\w)", text):
        assert (ROOT / path).exists() or "docs/_build" in path, path


def test_functions_stand_where_the_page_says():
    named = re.findall(r"`([A-Za-z_.]+)` in\s+\[`(unclip/[^`]+)`\]", "\n".join(TEXT.values()))
    assert len(named) > 8
    for function, path in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        for part in function.split("."):
            assert re.search(rf"\b(class|def) {part}\b", source), f"{function} is not in {path}"
    system = "".join((ROOT / f"unclip/{name}.py").read_text(encoding="utf-8") for name in ("pipeline", "stored"))
    for method in re.findall(r"`UnCLIP\.(\w+)", "\n".join(TEXT.values())):
        assert f"def {method}(" in system


# ---- tables --------------------------------------------------------------------------------------------------


def test_the_settings_and_their_defaults():
    from dataclasses import fields

    from unclip.settings import SAMPLERS, Settings

    said = {name: default for name, default, _ in rows(page("quickstart"), "| setting | default |")}
    true = {f.name: "none" if f.default is None else str(f.default) for f in fields(Settings)} | {"size": "256"}
    assert said == true
    assert all(f"`{sampler}`" in page("quickstart") for sampler in SAMPLERS)


def test_the_sizes_are_those_of_the_recipes():
    import torch

    from unclip.models.clip import CLIP
    from unclip.models.decoder import Decoder
    from unclip.models.prior import Prior
    from unclip.models.prior_ar import PriorAR
    from unclip.models.upsampler import Upsampler
    from unclip.weights.checkpoint import Unfilled

    builders = {"clip": CLIP, "judge": CLIP, "prior": Prior, "prior_ar": PriorAR, "decoder": Decoder,
                "upsampler": Upsampler, "upsampler_1024": Upsampler}  # fmt: skip
    table = rows(page("how-it-works"), "| | mini | small | paper |")
    stages = ["clip", "prior", "prior_ar", "decoder", "upsampler", "upsampler_1024", "judge"]
    for row, stage in zip(table, stages, strict=True):
        for family, said in zip(["mini", "small", "paper"], row[1:], strict=True):
            make = getattr(import_module(f"unclip.recipes.{family}"), stage, None)
            if make is None:
                assert said == "–", f"{family} has no {stage}"
                continue
            with torch.device("meta"), Unfilled():
                net = builders[stage](make().model)
            assert said == f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f}", f"{family}.{stage}"


def test_the_sources_and_their_licences():
    from unclip.data.sources import SOURCES

    said = [row[:4] for row in rows(page("data"), "| source | style")]
    assert said == [[s.name, s.style, s.licence, s.author] for s in SOURCES]


def test_how_often_each_template_is_drawn():
    from unclip.data.captions import TEMPLATES

    said = {row[0].lower().replace(" label", "").strip(): row[1] for row in rows(page("data"), "| template |")}
    true = {name.replace(" label", "").strip(): f"{share:.0%}" for name, share in TEMPLATES.items()}
    assert {k.replace("chinese label", "chinese"): v for k, v in said.items()} == true


def test_the_record_holds_the_keys_that_the_page_lists(tiny):
    from unclip.settings import Request

    listed = {key.strip() for row in rows(page("files"), "| key | value |") for key in row[0].split(",")}
    record = tiny.record(tiny.fit(Request.of("a red fox")), 0)
    assert listed == {*record, "version", "pixels", "grid", "edit"}
    assert all(f"`{name}`" in page("files") for name in record["settings"])


# ---- programs ------------------------------------------------------------------------------------------------


def programs() -> list[tuple[str, str]]:
    found = [(name, body) for name, text in TEXT.items() for kind, body in FENCE.findall(text) if kind == "python"]
    return [(name, body) for name, body in found if "import" in body]


@pytest.mark.parametrize(("name", "body"), programs())
def test_every_program_runs(name, body, tiny_folder, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for i in range(40):
        Image.new("RGB", (20, 10), (5 * i, 0, 0)).save(f"pictures/red-{i}.png")
    exec(compile(body.replace('"mini"', repr(str(tiny_folder))), name, "exec"), {"__name__": "__main__"})
    made = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.suffix in (".png", ".tar"))
    assert [p for p in made if not p.startswith("pictures/")]
