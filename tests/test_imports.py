"""The layers, what `import unclip` costs, and the linter: the contract in pyproject.toml, held by the suite."""

import ast
import pkgutil
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import unclip

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "numpy", "PIL", "tokenizers", "pyarrow", "scipy", "safetensors", "huggingface_hub", "ftfy", "tqdm"}


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, **options)


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    return run("-c", code, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": ""})


def test_imports_go_one_way():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [("nn/__init__.py", "def late():\n    from unclip.models import clip"), ("brand_new.py", "")],
    ids=["wrong way", "no place in the line"],
)
def test_the_contract_can_be_broken(tmp_path, module, line):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("__init__.py", "nn/__init__.py", "models/__init__.py", "models/clip.py", "files.py", "errors.py"):
        path = tmp_path / "unclip" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "unclip" / module).write_text(line + "\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert module.split(".")[0].split("/")[0] in done.stdout


def test_nothing_heavy_is_imported_early():
    """`unclip --help` must answer at once: neither the package nor any command imports what it may not need."""
    commands = pkgutil.iter_modules([str(ROOT / "unclip" / "cli")], "unclip.cli.")
    commands = [command.name for command in commands if not command.name.endswith("__main__")]  # which would run
    light = ["unclip", "unclip.errors", "unclip.files", *commands]
    code = f"import sys\nfor name in {light}: __import__(name)\nprint(*sorted({HEAVY} & set(sys.modules)))"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", unclip.HOME)
def test_every_exported_name_is_there(name):
    assert getattr(unclip, name) is getattr(import_module(unclip.HOME[name]), name)
    assert name in dir(unclip)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(unclip.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    lines = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.asname: node.module for node in lines for alias in node.names}
    assert typed == unclip.HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Unclip'; it offers UnCLIP, "):
        unclip.Unclip  # noqa: B018


def test_ruff_is_content():
    done = run("-m", "ruff", "check", "--no-cache", "--output-format=concise", str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
