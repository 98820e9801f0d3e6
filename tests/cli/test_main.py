"""The command line around its commands: help, dispatch, and every error in one line."""

import errno
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unclip
from unclip.cli.console import clean
from unclip.cli.doctor import EXTRAS, extra_of
from unclip.cli.main import COMMANDS, explain, main
from unclip.errors import UnclipError

ROOT = Path(__file__).parents[2]
UNCLIP = [sys.executable, "-m", "unclip.cli"]


def python(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, **options)


def test_help_lists_every_command_in_a_line(cli):
    done = cli("--help")
    assert (done.code, done.err) == (0, "")
    for command, text in COMMANDS.items():
        assert re.search(rf"^ +{command} +{re.escape(text)}$", done.out, re.MULTILINE)
    assert cli() == done


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(cli, command):
    done = cli(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: unclip {command} ")


def test_help_imports_nothing_heavy():
    heavy = "torch numpy PIL yaml tokenizers safetensors huggingface_hub tqdm asyncio".split()
    for words in (["--help"], ["--version"], ["generate", "--help"], ["train", "--help"]):
        code = f"import sys; from unclip.cli.main import main; main({words}); print(*{{*{heavy}}} & {{*sys.modules}})"
        done = python("-c", code)
        assert done.stdout.splitlines()[-1] == "", words


def test_version(cli):
    assert cli("--version").out == f"unclip {unclip.__version__}\n"


def test_as_a_module():
    done = python("-m", "unclip.cli", "--version")
    assert (done.returncode, done.stdout) == (0, f"unclip {unclip.__version__}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generat"], "unknown command 'generat'; did you mean 'generate'?"),
        (["xyz"], "unknown command 'xyz'; known: generate, "),
        (["generate"], "the following arguments are required: PROMPT; see: unclip generate --help"),
        (["generate", "x", "--seeed", "3"], "unknown option '--seeed'; did you mean '--seed'?"),
        (["generate", "x", "--seeed=3"], "unknown option '--seeed'; did you mean '--seed'?"),
        (["generate", "x", "--guid", "3"], "unknown option '--guid'; did you mean '--guidance'?"),
        (["generate", "x", "--seed", "3", "y"], "unexpected argument 'y'"),
        (["generate", "x", "--seed"], "argument --seed: expected one argument"),
        (["generate", "x", "--seed", "3.5"], "argument --seed: invalid int value: '3.5'"),
        (["generate", "x", "--dtype", "float23"], "unknown --dtype 'float23'; did you mean 'float32'?"),
        (["data", "ilustrations", "x"], "unknown corpus 'ilustrations'; did you mean 'illustrations'?"),
        (["data", "illustrations", "x", "--size", "3"], "unknown option '--size'; did you mean '--sizes'?"),
        (["--nonsense"], "unknown option '--nonsense'"),
        (["--versio"], "unknown option '--versio'; did you mean '--version'?"),
    ],
)
def test_mistakes_on_the_command_line(cli, words, message):
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(message)


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UnclipError("no"), "no", 2),
        (UnclipError("no", code=1), "no", 1),
        (MemoryError(), "out of memory", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory", 1),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), "the disk is full: x.png", 1),
        (PermissionError(errno.EACCES, "Permission denied", "x.png"), "x.png: Permission denied", 2),
        (OSError(errno.EIO, "Input/output error"), "input or output: Input/output error", 1),
        (ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow"), "this needs the package 'pyarrow'; "
         "install it: pip install 'unclip[data]'", 2),
        (ModuleNotFoundError("No module named 'zzz'", name="zzz"), "this needs the package 'zzz'", 2),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero; --debug shows where", 1),
        (ValueError("two\nlines"), "ValueError: two lines; --debug", 1),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_of_a_command(cli, monkeypatch, error, line, code):
    def fail(args):
        raise error

    monkeypatch.setattr("unclip.cli.doctor.run", fail)
    done = cli("doctor")
    assert done.code == code
    assert done.error.startswith(line)
    assert explain(error)[1] == code


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_where(cli, monkeypatch, how):
    monkeypatch.setattr("unclip.cli.doctor.run", lambda args: 1 / 0)
    if how == "variable":
        monkeypatch.setenv("UNCLIP_DEBUG", "1")
    done = cli("doctor", *(["--debug"] if how == "option" else []))
    assert done.code == 1
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1].startswith("unclip: error: ZeroDivisionError")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(cli, monkeypatch, number):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("unclip.cli.doctor.run", lambda args: os.kill(os.getpid(), number))
    done = cli("doctor")
    assert (done.code, done.err) == (130, "unclip: interrupted\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*UNCLIP, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("unclip: error: the disk is full")


def test_a_reader_that_leaves():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*UNCLIP, "--help"], stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_console_cannot_be_steered():
    assert clean("a\x1b[2Jb\n\tc\x07\u202e") == "a\\x1b[2Jb c\\x07\\u202e"
    assert clean("狐狸 é") == "狐狸 é"
    assert len(clean("x" * 10**6)) == 601


def test_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"].items()
    known = {extra: {name.replace("-", "_") for name in names} for extra, names in listed}
    assert {extra: known[extra] for extra in EXTRAS} == {extra: set(modules) for extra, modules in EXTRAS.items()}
    assert set(known) - set(EXTRAS) <= {"test", "docs"}
    assert extra_of("pyarrow.parquet") == "unclip[data]"
    assert extra_of("zzz") is None
    assert project["scripts"]["unclip"] == f"{main.__module__}:{main.__name__}"
