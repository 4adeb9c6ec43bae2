"""The code and the notebooks are linted, formatted and typed."""

import subprocess
import sys

import pytest

from teachkit.course.setup import ROOT


@pytest.mark.parametrize(
    "words",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=lambda w: "-".join(w[:2]),
)
def test_quality(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
