"""Explorers without a browser: controls, pictures of one size, errors, frames for plain pages."""

import asyncio
import html
import io
import json
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from teachkit import lab, masks, paradox, show, taylor
from teachkit.lab.evaluation import evaluate
from teachkit.show import frames, plots, stage
from teachkit.show.controls import control
from teachkit.show.lessons import hessian as hessian_scenes
from teachkit.show.lessons import masks as masks_scenes
from teachkit.show.lessons import paradox as paradox_scenes
from teachkit.show.lessons import taylor as taylor_scenes
from teachkit.show.prepared import Scene, prepared

T = np.linspace(0, 1, 20)


def curve(order, scale=1.0):
    """A curve whose labels grow with the scale; the order 3 is refused."""
    if order == 3:
        raise ValueError("order three\nis not for drawing")
    alt = f"A curve of order {order} and scale {scale:g}."
    values = scale * np.sin(order * T)
    return plots.lines(T, {"f": values}, xlabel="t", ylabel="f", alt=alt, says=f"order {order}")


def explorer():
    return show.explore(curve, order=(1, 8, 1, 2), scale=(1.0, 1001.0, 250.0))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def ask(thing, asked, **at):
    """What the browser sends."""
    thing._handle_custom_msg({"asked": asked, "at": at}, [])


def test_an_explorer_says_what_it_shows_before_the_first_run():
    bundle = explorer()._repr_mimebundle_()
    first = "Explorer: run this cell and move order or scale. At order = 2, scale = 1.0:\nA curve"
    assert bundle["text/plain"].startswith(first)
    assert bundle["text/html"].startswith("<p>Run this cell to move the sliders.</p>\n<img src=")
    assert 'width="614" height="345" style="max-width: 100%; height: auto"' in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_move_redraws_and_answers_in_one_message(monkeypatch):
    moved, sent = explorer(), []
    before = moved.png
    monkeypatch.setattr(moved, "send_state", lambda key=None: sent.append(key))
    ask(moved, "view 1", order=4)
    assert moved.png != before
    assert (moved.shown["alt"], moved.shown["title"]) == (
        "A curve of order 5 and scale 1.",
        "order 5",
    )
    assert (moved.answered, moved.at) == ("view 1", {"order": 4, "scale": 0})
    assert len(sent) == 1


def test_pictures_keep_their_size_and_are_sharp_at_200_percent():
    moved = explorer()
    sizes = set()
    for scale in (1.0, 1001.0, 251.0):
        moved.move(scale=scale)
        assert moved.shown["size"] == (614, 345)
        image = pixels(moved.png)
        sizes.add(image.shape)
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edge == 255).all(), f"scale {scale}: something is cut off"
    assert sizes == {(691, 1228, 3)}


def test_what_is_kept_between_pictures_does_not_show():
    """A picture after others is the one that is drawn first, but for the place of its axes."""
    used = stage.Stage()
    for order in (1, 2, 5, 2):
        last = used.draw(curve(order).figure)
    fresh = stage.Stage().draw(curve(2).figure)
    assert (np.abs(last.astype(int) - fresh) > 16).mean() < 0.002


def test_a_name_that_is_cut_in_a_gap_between_its_letters_gets_room():
    used = stage.Stage()
    used.draw(taylor_scenes.polynomial("exp x", 0.0, 2).figure)
    longer = taylor_scenes.polynomial("log(1 + x)", 0.0, 7).figure
    used.draw(longer)
    assert not stage._names_stick_out(longer)


def test_a_quick_png_holds_the_dots():
    dots = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    assert (pixels(stage.quick(dots)) == dots).all()
    assert pixels(stage.small(dots)).shape == dots.shape


def test_an_error_is_said_and_the_next_move_works():
    moved = explorer()
    good = moved.png
    ask(moved, "a", order=2)
    said = "This picture could not be drawn (ValueError: order three is not for drawing)."
    assert moved.problem.startswith(said)
    assert (moved.png, moved.answered) == (good, "a")
    ask(moved, "b", order=3)
    assert moved.problem == ""
    assert moved.shown["alt"].startswith("A curve of order 4")


def test_an_interrupt_is_an_answer_too():
    def draw(n):
        if n:
            raise KeyboardInterrupt
        return curve(1)

    moved = show.explore(draw, n=(0, 3, 1))
    ask(moved, "a", n=1)
    assert (moved.answered, "(interrupted: no reason given)" in moved.problem) == ("a", True)


def test_an_error_at_the_start_is_raised():
    with pytest.raises(ValueError, match="order three"):
        show.explore(curve, order=(3, 8, 1))


def test_what_cannot_be_moved_is_refused():
    with pytest.raises(ValueError, match="there is no 'b' to move, only order, scale"):
        explorer().move(b=1)
    with pytest.raises(ValueError, match=r"order must be one of \[1, 2, .*got 9"):
        explorer().move(order=9)


@pytest.mark.parametrize(
    "bad", [(1, 2), (2, 1, 1), (0, 1, 0), [], [1, 2], 3, (0, float("inf"), 1), ("a", "b", "c")]
)
def test_other_controls_are_refused(bad):
    with pytest.raises(ValueError, match="a must be .low, high, step.*got"):
        show.explore(hessian_scenes.quadratic, a=bad)


def test_controls_have_names_and_values_in_words():
    slider = control("damping_exponent", (-10, 0, 1, -10)).describe()
    assert (slider["label"], slider["shown"][0], slider["start"]) == ("damping exponent", "−10", 0)
    fine = control("correlation", (-0.95, 0.95, 0.05, 0.9))
    assert fine.describe()["shown"][-3:] == ["0.85", "0.90", "0.95"]
    assert fine.options[19:21] == [0.0, 0.05]
    tiny = control("damping", (0.0, 5e-5, 1e-5)).describe()
    assert tiny["shown"][:2] == ["0.00000", "0.00001"]
    assert all(type(option) is float for option in control("c", (0.0, 2.0, 1.0)).options)
    words = control("layer", ["a", "b"])
    assert (words.describe()["slider"], words.find("b")) == (False, 1)


def test_moves_choose_among_words():
    draw = partial(masks_scenes.pruned, lab.models.mlp(), lab.data.digits().test)
    moved = show.explore(draw, sparsity=(0.0, 0.9, 0.1, 0.5), scope=["global", "per layer"])
    before = moved.png
    assert "per layer" in moved.move(scope="per layer").alt
    assert moved.png != before


def test_scenes_prepare_once():
    prepared_for = []

    @Scene
    def scene(name):
        """Curves by name."""
        prepared_for.append(name)
        return lambda order: curve(order)

    moved = show.explore(partial(scene, "a"), order=(4, 8, 1))
    moved.move(order=5)
    assert prepared_for == ["a"]
    assert scene("b", order=5).alt == scene("c", 5).alt == moved.picture.alt
    assert prepared(curve) is curve


def test_frames_are_drawn_while_the_kernel_is_idle(monkeypatch):
    monkeypatch.setattr(frames, "PAUSE", 0.0)
    monkeypatch.setattr(frames, "LATE", 60.0)

    async def kernel():
        alone = show.explore(lambda n: curve(n), n=(4, 8, 1, 5))
        both = explorer()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if alone.frames:
                return alone, both
        raise AssertionError("no frames")

    alone, both = asyncio.run(kernel())
    assert [frame["value"] for frame in alone.frames] == ["4", "5", "6", "7", "8"]
    assert [frame["position"] for frame in alone.frames] == list(range(5))
    assert both.frames == []


def test_a_page_without_a_kernel_has_a_picture_for_each_place_of_the_controls():
    moved = show.explore(curve, order=(2, 4, 1), scale=(1.0, 3.0, 1.0))
    text = frames.element(moved, "<p>still</p>", most=9)
    data, still = re.fullmatch(r'<div class="\S+" data-frames="([^"]*)">(.*)</div>', text).groups()
    assert still == "<p>still</p>"
    made = json.loads(html.unescape(data))
    order, scale = made["controls"]
    assert (order["shown"], scale["shown"]) == (["2", "3", "4"], ["1", "2", "3"])
    assert made["frames"].keys() == {f"{i} {j}" for i in range(3) for j in range(3)}
    moved.move(order=4, scale=3.0)
    assert made["frames"]["2 2"]["alt"] == moved.picture.alt
    refused = "order three is not for drawing"
    pngs = {each.get("png") for each in made["frames"].values()}
    assert len(pngs) == 6 + 1
    assert all(png.startswith("data:image/png;base64,") for png in pngs - {None})
    assert all(refused in made["frames"][f"1 {j}"]["problem"] for j in range(3))


@given(st.integers(3, 60), st.integers(0, 59), st.integers(3, 30))
def test_some_positions_of_a_slider_are_its_start_and_both_its_ends(options, start, most):
    start = start % options
    made = frames.positions(control("n", (0, options - 1, 1, start)), most)
    assert len(made) <= most
    assert {0, start, options - 1} <= set(made)
    assert made == sorted(set(made))


@given(st.lists(st.integers(2, 60), min_size=1, max_size=4), st.integers(16, 60))
def test_a_grid_of_pictures_is_as_fine_as_it_may_be(options, most):
    many = frames.counts(options, most)
    assert math.prod(many) <= most
    assert all(1 <= n <= full for n, full in zip(many, options, strict=True))
    cut = [n for n, full in zip(many, options, strict=True) if n < full]
    assert not cut or max(many) - min(cut) <= 1  # the longest gave way first
    assert not cut or math.prod(many) // min(cut) * (min(cut) + 1) > most


def test_explorers_bring_their_pictures_along_where_a_page_is_made(monkeypatch):
    monkeypatch.setenv(frames.VARIABLE, "1")
    assert 'class="teachkit-explorer" data-frames=' in explorer().static
    monkeypatch.setenv(frames.VARIABLE, "")
    assert "data-frames" not in explorer().static


def test_a_position_that_cannot_be_drawn_leaves_the_others(monkeypatch):
    monkeypatch.setattr(frames, "PAUSE", 0.0)
    monkeypatch.setattr(frames, "LATE", 60.0)

    def draw(n):
        if n == 6:
            raise ArithmeticError("six")
        return curve(n)

    async def kernel():
        alone = show.explore(draw, n=(4, 8, 1, 5))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if alone.frames:
                return alone
        raise AssertionError("no frames")

    assert [frame["value"] for frame in asyncio.run(kernel()).frames] == ["4", "5", "7", "8"]


def test_scenes_that_were_made_quick_say_what_the_library_says():
    net, data = lab.models.mlp(hidden=(8,)), lab.data.digits()
    x, grid = taylor_scenes.x, np.linspace(-0.9, 4, 200)
    said = taylor_scenes.polynomial("log(1 + x)", 0.5, 3).figure.axes[0].lines[1].get_ydata()
    p = taylor.polynomial(taylor_scenes.FUNCTIONS["log(1 + x)"], x, (0.5,), 3)
    assert np.allclose(said, [float(p.subs(x, value)) for value in grid])

    kept = masks.keep_top(paradox.first_order(net, data.train), 0.3)
    lines = paradox_scenes.along(net, data, kept, 0.4).figure.axes[0].lines
    t = lines[2].get_xdata()
    path = taylor.along(net, data.train, masks.change(net, kept), t.tolist())
    for line, curve_ in zip(lines, (path.first, path.second, path.actual), strict=False):
        assert np.allclose(line.get_ydata(), curve_, atol=1e-3 * float(curve_.abs().max()))

    end = paradox_scenes.along(net, data, kept, 1.0)
    reached = evaluate(masks.apply(net, kept), data.test).accuracy
    assert f"test accuracy {reached:.2f}" in end.alt
    assert torch.is_grad_enabled()
