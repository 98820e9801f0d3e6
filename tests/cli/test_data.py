import argparse
import json
import subprocess
import sys

import pytest

from unclip.cli import data
from unclip.errors import UnclipError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unclip")
    data.add_parser(parser.add_subparsers())
    return parser.parse_args(["data", "illustrations", *words])


@pytest.fixture
def packages(tmp_path):
    """emojibase and one icon set of two icons."""
    files = {
        "emojibase-data-17.0.0/en/data.json": [{"label": "cat", "hexcode": "1F431", "group": 3}],
        "emojibase-data-17.0.0/zh/data.json": [],
        "emojibase-data-17.0.0/meta/unicode-names.json": {},
        "iconify-json-flat-color-icons-1.2.3/icons.json": {
            "icons": {
                "cat": {"body": '<circle cx="8" cy="8" r="5" fill="#c33"/>'},
                "google-logo": {"body": "<g/>"},
            }
        },
    }
    for path, document in files.items():
        (tmp_path / "given" / path).parent.mkdir(parents=True)
        (tmp_path / "given" / path).write_text(json.dumps(document))
    return tmp_path / "given"


def run(packages, folder, *more: str) -> int:
    args = parse(str(folder), "--from", str(packages), "--sources", "flat-color-icons", "--sizes", "16", *more)
    return args.run(args)


def test_a_corpus_and_a_table(packages, tmp_path, capsys):
    assert run(packages, tmp_path / "corpus") == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["flat-color-icons", "1", "0", "0", "1"] in lines
    assert ["1", "brand", "logo"] in lines
    assert ["1", "MIT"] in lines
    assert "drawing" in err  # progress goes to stderr
    assert (tmp_path / "corpus" / "16" / "train" / "00000.tar").exists()


def test_json_alone_on_stdout(packages, tmp_path, capsys):
    assert run(packages, tmp_path / "corpus", "--json", "--workers", "1") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["splits"] == {"train": 1, "val": 0, "compose": 0}


def test_defaults():
    args = parse("DIR")
    assert (args.folder, args.sizes, args.limit, args.given, args.workers) == ("DIR", (64, 256), None, None, 2)
    assert parse("DIR", "--sizes", "256, 64,64").sizes == (64, 256)


@pytest.mark.parametrize(
    "words",
    [
        ["--sizes", "0"],
        ["--sizes", "64,x"],
        ["--sizes", "4096"],
        ["--sizes", ""],
        ["--limit", "0"],
        ["--workers", "-1"],
    ],
)
def test_bad_input_is_refused_by_name(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse("DIR", *words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_an_unknown_source_is_named(tmp_path):
    with pytest.raises(UnclipError, match="'openmoji'"):
        data.run(parse(str(tmp_path), "--sources", "openmoji"))


def test_the_parser_imports_nothing_heavy():
    script = """if 1:
        import argparse, sys
        from unclip.cli import data
        data.add_parser(argparse.ArgumentParser().add_subparsers())
        print([m for m in ("torch", "numpy", "PIL", "pyarrow", "resvg_py", "tqdm") if m in sys.modules])
    """
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
