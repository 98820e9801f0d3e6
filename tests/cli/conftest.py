"""Run a command line in this process, as a user would see it."""

from typing import NamedTuple

import pytest

from unclip.cli.main import main


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that an error must be."""
        (line,) = self.err.splitlines()
        assert line.startswith("unclip: error: ")
        return line.removeprefix("unclip: error: ")


@pytest.fixture
def cli(capsys):
    def run(*words: object) -> Done:
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def few(tiny_folder):
    """Options that draw with the tiny weights, in few steps."""
    return ["--weights", tiny_folder, "--steps", 3, "--prior-steps", 2, "--upsampler-steps", 2, "--quiet"]
