"""Figures with words, quizzes, explorers, sources."""

import io
import json
import re

import matplotlib.image
import numpy as np
import pytest
import sympy
import torch
from matplotlib.figure import Figure

from teachkit import hessian, lab, masks, show, taylor
from teachkit.lab.curves import interval
from teachkit.show import pages, plots, status
from teachkit.show.lessons import hessian as hessian_scenes
from teachkit.show.lessons import masks as masks_scenes
from teachkit.show.lessons import start as start_scenes
from teachkit.show.lessons import taylor as taylor_scenes

x, y = sympy.symbols("x y")
ALT = "Five words say what it is."


def pixels(picture):
    return matplotlib.image.imread(io.BytesIO(picture.png))


def pictures():
    net, data = lab.models.mlp(), lab.data.digits()
    path = taylor.along(net, data.train, {"1.bias": torch.ones(64)}, [0.1, 1.0])
    points = hessian.classify(x**3 - 3 * x + y**2, (x, y))
    one = {"a": [1, 2, 3]}
    return {
        "lines": plots.lines([1, 2, 3], one, xlabel="x", ylabel="y", alt=ALT),
        "bands": plots.lines(
            [1, 2, 3],
            one | {"b": [2, 2, 2]},
            bands={"a": ([0, 1, 2], [2, 3, 4])},
            xlabel="x",
            ylabel="y",
            alt=ALT,
        ),
        "level": plots.lines([1, 2, 3], one, level=("dense", 2.0), xlabel="x", ylabel="y", alt=ALT),
        "differences": plots.differences(
            [0.5, 0.9],
            {"a": interval([[1, 2], [2, 4]]), "b": interval([[0, 1], [1, 1]])},
            xlabel="x",
            ylabel="y",
            alt=ALT,
        ),
        "contours": plots.contours(x**3 - 3 * x + y**2, (x, y), points, alt=ALT),
        "flat": plots.contours(sympy.Integer(1), (x, y), points, alt=ALT),
        "histogram": plots.histogram(
            [1, 2, 2, 3], marks={"m": 2.0}, xlabel="x", ylabel="y", alt=ALT
        ),
        "spectrum": plots.spectrum({"e": [1.0, 0.0, -1.0]}, alt=ALT),
        "scatter": plots.scatter([1, 2], [1, 3], xlabel="x", ylabel="y", alt=ALT),
        "matrices": plots.matrices({"W": np.eye(3), "M": np.eye(3) > 0}, alt=ALT),
        "digit": start_scenes.digit(net, data.test, 3),
        "quadratic": hessian_scenes.quadratic(1.0, 3.0, 1.0),
        "nothing": hessian_scenes.quadratic(0.0, 0.0, 0.0),
        "polynomial": taylor_scenes.polynomial("log(1 + x)", 0.5, 3),
        "pruned": masks_scenes.pruned(net, data.test, 0.9, "per layer"),
        "steps": taylor_scenes.steps(path),
    }


def test_every_plot_draws_and_says_so():
    for name, picture in pictures().items():
        image = pixels(picture)[..., :3]
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 5, name
        bundle = picture._repr_mimebundle_()
        assert f'alt="{picture.alt}"' in bundle["text/html"].replace("&#x27;", "'")
        assert bundle["text/plain"].startswith(picture.alt)
        assert re.search(r"\[\d+ × ", bundle["text/plain"])
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edge == 1).all(), f"{name}: something is cut off at the edge"


def test_a_picture_counts_what_is_drawn():
    first = plots.lines([1, 2], {"a": [1, 2], "b": [2, 1]}, xlabel="x", ylabel="y", alt=ALT)
    assert first.drawn == '2 × line of 2 points: "a", "b"'
    assert pictures()["scatter"].drawn == (
        '1 × line of 2 points, 1 × 2 marks: "prediction = truth"'
    )


def test_an_empty_axes_or_missing_words_are_refused():
    figure = Figure()
    figure.subplots(1, 2)[0].plot([1, 2])
    with pytest.raises(ValueError, match=r"axes 1 \(no title\) is empty"):
        show.figure(figure, ALT)
    figure.axes[1].bar([1], [2])
    assert show.figure(figure, ALT).alt == ALT
    with pytest.raises(ValueError, match="must say in words .*got 'a plot'"):
        show.figure(figure, "a plot")


def test_source_is_the_code_that_runs():
    shown = show.source(masks.apply)
    assert "masked_fill_(~mask, 0.0)" in repr(shown)
    assert '"""' not in repr(shown)
    assert '"""A new model' in repr(show.source(masks.apply, docstring=True))
    assert shown._repr_markdown_().startswith("```python\ndef apply(")
    compile(repr(shown), "shown", "exec")
    with pytest.raises(TypeError, match="has no Python source to show"):
        show.source(print)


def fences():
    return "````", "```python"  # and ``` here


def test_a_fence_is_longer_than_any_in_the_code():
    """Otherwise the page ends where the code first has three backticks, and the rest runs as Markdown."""
    markdown = show.source(fences)._repr_markdown_()
    assert markdown.startswith("`````python\ndef fences():")
    assert markdown.endswith("\n`````")
    assert markdown.count("`````") == 2


def notebook(folder, name, first):
    (folder / "notebooks").mkdir(exist_ok=True)
    path = folder / "notebooks" / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": [{"source": [first]}]}), "utf-8")


def test_the_map_lists_the_lessons_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "folder", lambda: tmp_path / "data")
    assert "are not installed with the package" in repr(show.course_map())
    notebook(tmp_path, "00_start", "# Start here\n\nTime: 15 minutes.")
    notebook(tmp_path, "03_masks", "# M\n\n**The question**: What | why?\n\nTime: 4 minutes, 5 s.")
    notebook(tmp_path, "03_masks-Copy1", "# a learner's copy")
    notebook(tmp_path, "05_tea", "no title")
    notebook(tmp_path, "Untitled", "x")
    shown = show.course_map()
    assert shown._repr_markdown_().splitlines()[2:] == [
        "| 00 start (this one) | Start here | 15 |  |",
        r"| [03 masks](03_masks.ipynb) | What \| why? | 4 | `masks` |",
        "| [05 tea](05_tea.ipynb) |  |  |  |",
        "",
        "Lessons 01, 02 and 04 are not part of this edition: go on with the next in the table.",
    ]
    assert "03 masks: What | why? (4 minutes) teachkit.masks\n" in repr(shown)
    assert "[00 start](00_start.ipynb)" in show.course_map("03")._repr_markdown_()


def test_a_long_name_on_the_map_has_a_place_to_break():
    shown = show.course_map()._repr_markdown_()
    for name in ("sparse_<wbr>training", "compres<wbr>sion"):
        assert f"| <code>{name}</code> |" in shown
    assert "| `magnitude` |" in shown


def test_environment_says_ok_and_what_to_do(capsys, monkeypatch):
    show.environment()
    assert set(re.findall(r"^\[.{4}\]", capsys.readouterr().out, re.MULTILINE)) == {"[ OK ]"}
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(lab.data, "DIGITS_SHA256", "0")
    monkeypatch.setattr(status.metadata, "version", lambda _: "0.1")
    show.environment()
    said = capsys.readouterr().out
    for line in (
        "one thread: run lab.setup()",
        "git checkout data",
        "torch 2.13 or newer: run python -m",
    ):
        assert line in said

    def missing(name):
        raise status.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(status.metadata, "version", missing)
    show.environment()
    assert "[FAIL] sympy" in capsys.readouterr().out
    with pytest.raises(ValueError, match="teachkit does not ask for 'tea'"):
        status.wanted("tea")
