"""Lessons for pages without a kernel: stored outputs, and explorers that bring their pictures along."""

import nbformat
import pytest

from teachkit.course import notebooks, rendering

SCENE = """from teachkit import show
from teachkit.show import plots
def draw(n):
    return plots.lines([0, 1], {"f": [0, n]}, xlabel="t", ylabel="f", alt=f"A line of slope {n}, drawn here.")
print("new")"""


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A lesson whose stored outputs say "stored", with an explorer; what stands behind it raises."""
    monkeypatch.setattr(rendering, "FOLDER", tmp_path / "rendered")
    cells = [
        nbformat.v4.new_code_cell(s) for s in (SCENE, "show.explore(draw, n=(1, 3, 1))", "1/0")
    ]
    stored = {"text/html": "<p>still</p>", "text/plain": "an explorer"}
    cells[0].outputs = [nbformat.v4.new_output("stream", text="stored")]
    cells[1].outputs = [nbformat.v4.new_output("display_data", data=stored)]
    path = tmp_path / "99_made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_only_explorers_are_new_and_they_are_made_once(lesson, monkeypatch):
    before = lesson.read_bytes()
    first, second, third = rendering.rendered(lesson).cells
    assert first.outputs[0].text == "stored"
    assert second.outputs[0].data["text/plain"] == "an explorer"
    assert second.outputs[0].data["text/html"].count("data:image/png") > 3
    assert third.outputs == []
    assert lesson.read_bytes() == before
    monkeypatch.setattr(notebooks, "run", lambda *_, **__: pytest.fail("run again"))
    ((path, again),) = rendering.all_rendered([lesson])
    assert path == lesson
    assert again.cells[1].outputs == second.outputs
    nbformat.write(nbformat.v4.new_notebook(), lesson)
    assert rendering.rendered(lesson).cells == []


def test_what_was_made_of_an_older_lesson_goes(lesson, monkeypatch):
    moving = f"<div {rendering.MOVING}></div>"

    def run(path, part, **_):
        part.cells[1].outputs[0].data["text/html"] = moving
        return part

    monkeypatch.setattr(notebooks, "run", run)
    rendering.rendered(lesson)
    lesson.write_text(lesson.read_text("utf-8").replace("(1, 3, 1)", "(1, 2, 1)"), "utf-8")
    rendering.rendered(lesson)
    assert len(list(rendering.FOLDER.iterdir())) == 1


def test_a_cell_that_raises_before_the_explorer_is_named(lesson):
    lesson.write_text(lesson.read_text("utf-8").replace("[0, 1], {", "[0, 1, 2], {"), "utf-8")
    with pytest.raises(notebooks.NotebookError, match="99_made.*raised"):
        rendering.rendered(lesson)
    assert not rendering.FOLDER.exists()


def test_an_explorer_that_brings_no_pictures_is_named_and_other_data_are_another_lesson(
    lesson, monkeypatch, tmp_path
):
    monkeypatch.setattr(notebooks, "run", lambda path, part, **_: part)
    with pytest.raises(notebooks.NotebookError, match="99_made.*the explorer of .* does not move"):
        rendering.rendered(lesson)
    notebook = nbformat.read(lesson, as_version=4)
    monkeypatch.setattr(rendering, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    stamps = []
    for text in ("1", "2"):
        (tmp_path / "data" / "table.jsonl").write_text(text, "utf-8")
        stamps.append(rendering._stamp(notebook))
    assert stamps[0] != stamps[1]
