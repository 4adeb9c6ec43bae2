"""Groups of weights, their scores, and masks of whole groups."""

import pytest
import torch
from coupled_networks import dice
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import masks, structured
from teachkit.engine import groups

KINDS = ["connection", "row", "filter", "column", "channel", "block"]


IMAGE_KINDS = [*KINDS, "kernel", "position"]


SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(SHAPES, st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))
def test_group_scores_are_those_of_a_walk_through_all_weights(shape, seed, height, width):
    score = torch.rand(shape, generator=dice(seed), dtype=torch.float64)
    for kind in IMAGE_KINDS if len(shape) > 2 else KINDS:
        found = structured.groups(tuple(score.shape), kind, (height, width))
        lists = [[float(score[index]) for index in members] for members in found.values()]
        got = groups.group_scores({"w": score}, kind, block=(height, width))
        want = torch.tensor([sum(v) / len(v) for v in lists], dtype=torch.float64)
        torch.testing.assert_close(got["w"], want)
        ids = groups.group_ids(tuple(shape), kind, (height, width))
        for number, members in enumerate(found.values()):
            assert all(int(ids[index]) == number for index in members)


@given(st.integers(0, 99), st.sampled_from(IMAGE_KINDS), st.floats(0, 0.8))
def test_group_masks_remove_whole_groups_and_exactly_as_many(seed, kind, sparsity):
    score = torch.rand(4, 3, 2, 3, generator=dice(seed), dtype=torch.float64)
    kept = groups.group_masks({"w": score}, sparsity, kind, block=(2, 4))["w"]
    found = structured.groups(tuple(score.shape), kind, (2, 4))
    alive = [all(kept[index] for index in members) for members in found.values()]
    dead = [not any(kept[index] for index in members) for members in found.values()]
    assert sum(dead) == masks.removed(len(found), sparsity)
    assert sum(alive) + sum(dead) == len(found)
    means = [sum(float(score[i]) for i in members) / len(members) for members in found.values()]
    stay = [m for m, a in zip(means, alive, strict=True) if a]
    go = [m for m, d in zip(means, dead, strict=True) if d]
    assert not stay or not go or min(stay) >= max(go)


def test_rows_are_what_torch_reads_into_a_unit_and_columns_what_it_sends():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    kept = groups.group_masks({"0.weight": torch.tensor([[1.0] * 3, [2.0] * 3])}, 0.5, "row")
    assert masks.apply(net, kept)[0](torch.ones(1, 3))[0, 0] == 0
    score = {"1.weight": torch.tensor([[1.0, 2.0], [1.0, 2.0]])}
    kept = groups.group_masks(score, 0.5, "column")["1.weight"]
    assert kept.tolist() == [[False, True], [False, True]]


def test_two_of_four_is_the_pattern_of_masks():
    score = {"w": torch.rand(3, 8, generator=dice())}
    assert torch.equal(
        groups.group_masks(score, 0.5, "2:4")["w"], masks.keep_n_of_m(score, 2, 4)["w"]
    )
    with pytest.raises(ValueError, match="sparsity must be 0.5, got 0.9"):
        groups.group_masks(score, 0.9, "2:4")


@given(st.integers(0, 99), st.floats(0.05, 0.8))
def test_no_layer_is_emptied_unless_one_allows_it(seed, sparsity):
    g = dice(seed)
    scores = {n: torch.rand(k, generator=g) * k for n, k in {"a": 4, "b": 7, "c": 20}.items()}
    free = groups.keep_groups(scores, sparsity, "global", "allow")
    kept = groups.keep_groups(scores, sparsity, "global", "keep")
    assert all(bool(m.any()) for m in kept.values())
    assert masks.sparsity(kept) == masks.sparsity(free)
    assert all(bool(kept[n][s.argmax()]) for n, s in scores.items())
    empty = [n for n, m in free.items() if not m.any()]
    if empty:
        with pytest.raises(ValueError, match=f"nothing is left of {', '.join(map(repr, empty))};"):
            groups.keep_groups(scores, sparsity, "global")
        worst = min(float(scores[n][kept[n]].min()) for n in scores if int(kept[n].sum()) > 1)
        gone = torch.cat([s[~kept[n]] for n, s in scores.items()])
        assert worst >= gone.max()
    else:
        assert all(torch.equal(kept[n], m) for n, m in free.items())


def test_too_much_is_refused_and_says_which_layer():
    scores = {"a": torch.rand(4), "b": torch.rand(40)}
    with pytest.raises(
        ValueError, match="at sparsity 0.95, scope 'layer', nothing is left of 'a';"
    ):
        groups.keep_groups(scores, 0.95)
    for sparsity, scope in ((1.0, "global"), (0.95, "layer")):
        with pytest.raises(ValueError, match="nothing is left"):
            groups.keep_groups(scores, sparsity, scope, "keep")
    kept = groups.keep_groups({"a": torch.rand(1), "b": torch.rand(1)}, 0.0, "global", "keep")
    assert masks.sparsity(kept) == 0
    lone = {"a": torch.ones(1), "b": torch.tensor([2.0, 3.0])}
    kept = groups.keep_groups(lone, 1 / 3, "global", "keep")
    assert {name: m.tolist() for name, m in kept.items()} == {"a": [True], "b": [False, True]}
    one_each = groups.keep_groups(scores, 42 / 44, "global", "keep")
    assert [int(m.sum()) for m in one_each.values()] == [1, 1]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: groups.group_scores(s, "atom"), "granularity must be one of .* got 'atom'"),
        (lambda s: groups.group_scores(s, "2:4"), "got '2:4'"),
        (lambda s: groups.group_scores(s, "kernel"), r"needs a convolution, got .* \(2, 3\)"),
        (lambda s: groups.group_masks(s, 0.5, "row", on_empty="x"), "on_empty must be one of"),
        (lambda s: groups.group_masks(s, 1.5, "row"), r"sparsity must lie in \[0, 1\]"),
        (
            lambda s: groups.group_ids((3,), "row"),
            r"shape \(outputs, inputs, ...\), got \(3,\)",
        ),
        (lambda s: groups.group_scores({"w": s["w"] / 0}, "row"), "NaN or infinite"),
        (lambda s: groups.group_scores(s, "block", block=(0, 1)), "each side of block must"),
        (lambda s: groups.group_masks(s, 0.5, "2:4", "global"), "scope must be 'layer'"),
    ],
)
def test_bad_groups_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call({"w": torch.ones(2, 3)})
    with pytest.raises(TypeError, match=r"block must be \(rows, columns\), got 4"):
        groups.group_scores({"w": torch.ones(2, 3)}, "block", block=4)
