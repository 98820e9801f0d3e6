"""What tests of the command line share."""

import pytest


@pytest.fixture
def few(tiny_folder):
    """Options that draw with the tiny weights, in few steps."""
    return ["--weights", tiny_folder, "--steps", 3, "--prior-steps", 2, "--upsampler-steps", 2, "--quiet"]
