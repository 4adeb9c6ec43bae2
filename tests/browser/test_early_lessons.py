"""Every notebook in JupyterLab: the early lessons, in a file of their own for a process of their own."""

import pytest
from lesson import Lesson

from teachkit.course.setup import ROOT

STEMS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("stem", STEMS[: len(STEMS) // 2])
def test_a_lesson_from_first_sight_to_opened_again(stem, window):
    found = Lesson(window, stem).walk()
    assert not found, "\n".join(found)
