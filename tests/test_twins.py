"""One suite for every plain function of a lesson: on random input it gives what the fast one gives.

The pairs are found by name: ``keep_top_naive`` stands in a lesson beside ``keep_top``, or
``gradients_naive`` beside ``gradients``. TWINS says for each how its input is drawn, and, where the
two do not take the same, how they are called. A new lesson has a table TWINS in its own tests.
"""

import importlib
import re

import house
import numpy as np
import pytest
import sympy
import torch
from drawers import (
    KINDS,
    Twin,
    X,
    Y,
    at,
    chains,
    count,
    curved,
    cut_chains,
    functions,
    gradients,
    networks,
    normal,
    positions,
    removals,
    scores,
    seeds,
    sizes,
    smaller,
    sparsities,
    teams,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from teachkit import fisher, magnitude, masks, neurons, structured
from teachkit.engine.dense import dense

SUFFIX = re.compile(r"_naive$")


# The pairs -----------------------------------------------------------------------------------------


def one_linear(draw_k):
    """A Linear layer without bias, its weights in one block: what the Fisher matrix prunes at once."""
    return st.builds(
        lambda m, n, seed, k: (normal(n, seed=seed), normal(m, n, seed=seed + 1), round(k * n)),
        st.integers(2, 6),
        st.integers(2, 5),
        seeds,
        draw_k,
    )


def fisher_of(w, x):
    """The layer, its batch and its damped Fisher matrix under the mean squared error."""
    net = nn.Linear(len(w), 1, bias=False)
    net.weight.data = w[None].clone()
    batch = (x, normal(len(x), 1, seed=3))
    return net, batch, fisher.matrix(fisher.gradients(net, batch, mse_loss), 0.1)


def fisher_prune(w, x, k):
    net, batch, _ = fisher_of(w, x)
    n = len(w)
    pruned = fisher.prune(net, batch, k / n, loss=mse_loss, block=n, damping=0.1)[0]
    return pruned.weight.detach()[0]


def sparse_parts(matrix):
    sparse = structured.csr(matrix)
    parts = (sparse.values(), sparse.col_indices(), sparse.crow_indices())
    return tuple(part.tolist() for part in parts)


def whole_quotas(shapes, keep, rule):
    """The quotas of a network of layers with these shapes."""
    net = nn.Sequential(*(nn.Linear(i, o, bias=False) for o, i in shapes))
    total = sum(o * i for o, i in shapes)
    return list(magnitude.quotas(net, 1 - keep / total, rule).values())


shapes = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4)
TWINS = {
    "hessian.dense_naive": Twin(
        st.tuples(curved, st.builds(lambda n, seed: normal(n, seed=seed), sizes, seeds)), dense
    ),
    "taylor.polynomial_naive": Twin(
        st.tuples(functions, st.just((X, Y)), st.tuples(at, at), st.integers(0, 3)).filter(
            lambda it: not it[0].subs({X: it[2][0], Y: it[2][1]}).has(sympy.zoo)
        )
    ),
    "taylor.alone_naive": Twin(positions()),
    "masks.keep_top_naive": Twin(
        st.tuples(
            st.fixed_dictionaries({"b": scores((3, 4), (7,)), "a": scores((2, 2), (1, 5))}),
            sparsities,
        )
    ),
    "masks.keep_n_of_m_naive": Twin(
        st.tuples(scores((2, 4), (3, 8), (2, 4, 2, 1)), st.integers(0, 4), st.just(4)),
        fast=lambda s, n, m: masks.keep_n_of_m({"w": s}, n, m)["w"],
    ),
    "masks.operations_naive": Twin(
        st.tuples(scores((2, 3), (4, 1)).map(lambda s: s > 0), sizes, st.booleans()),
        fast=lambda mask, rows, bias: masks.operations(
            nn.Linear(mask.shape[1], len(mask), bias=bias),
            torch.ones(rows, mask.shape[1]),
            {"weight": mask},
        )[""],
    ),
    "masks.subset_losses_naive": Twin(smaller(), fast=lambda *a: masks.subset_losses(*a)[1]),
    "obd.diagonal_naive": Twin(networks),
    "obs.surgeon_naive": Twin(removals(), within=1e-7),  # the Hessian may be badly conditioned
    "fisher.gradients_naive": Twin(networks),
    "fisher.true_naive": Twin(
        networks,
        fast=lambda net, batch: fisher.blocks(net, batch, block=count(net), kind="true")[0],
    ),
    "fisher.prune_naive": Twin(
        one_linear(sparsities),
        fast=fisher_prune,
        plain=lambda w, x, k: fisher.prune_naive(w, fisher_of(w, x)[2], k),
    ),
    "fisher.recursion": Twin(gradients, fast=fisher.inverse_blocks),
    "fisher.inverse_diagonal": Twin(
        gradients.map(lambda it: (it[0], it[2])),
        fast=lambda G, damping: fisher.inverse(G, damping).diagonal(),
        within=1e-7,  # digits cancel, as it says
    ),
    "magnitude.lamp_naive": Twin(
        st.tuples(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=8)),
        fast=lambda w: magnitude.lamp_scores(linear(w))["weight"][0].tolist(),
    ),
    "magnitude.quotas_naive": Twin(
        shapes.flatmap(
            lambda s: st.tuples(
                st.just(s),
                st.integers(0, sum(o * i for o, i in s)),
                st.sampled_from(("uniform", "erk")),
            )
        ),
        fast=lambda *a: [
            min(1.0, abs(q - p) // 1) for q, p in both_quotas(*a)
        ],  # less than one off
        plain=lambda s, keep, rule: [0.0] * len(s),
    ),
    "structured.group_mask_naive": Twin(
        st.tuples(scores((3, 4, 2, 2), (4, 2, 1, 3)), sparsities, st.sampled_from(KINDS)),
        fast=lambda s, sparsity, kind: structured.group_masks(
            {"w": s}, sparsity, kind, on_empty="allow"
        )["w"],
    ),
    "structured.shrink_chain": Twin(
        cut_chains(),
        fast=lambda net, x, keep: dict(structured.shrink(net, keep).state_dict()),
        plain=lambda *a: dict(structured.shrink_chain(*a).state_dict()),
    ),
    "structured.csr_parts": Twin(st.tuples(scores((3, 4), (1, 6))), fast=sparse_parts),
    "neurons.leave_one_out_naive": Twin(chains()),
    "neurons.banzhaf_naive": Twin(
        st.tuples(teams(), sparsities),
        fast=lambda it, keep: neurons.banzhaf(it[0], keep=keep).tolist(),
        plain=lambda it, keep: neurons.banzhaf_naive(it[1], it[2], keep),
    ),
    "neurons.shapley_naive": Twin(
        teams(),
        fast=lambda worth, named, n: neurons.shapley(worth).tolist(),
        plain=lambda worth, named, n: neurons.shapley_naive(named, n),
    ),
}


def linear(w):
    net = nn.Linear(len(w), 1, bias=False)
    net.weight.data = torch.tensor([w])
    return net


def both_quotas(shapes, keep, rule):
    plain = magnitude.quotas_naive(shapes, keep, rule)
    return zip(whole_quotas(shapes, keep, rule), plain, strict=True)


TWINS |= house.tables("TWINS")


# The suite -----------------------------------------------------------------------------------------


def lessons():
    """The modules of the lessons that are there."""
    for name in house.LESSONS:
        if (house.ROOT / "teachkit" / f"{name}.py").is_file():
            yield name, importlib.import_module(f"teachkit.{name}")


def plain_functions():
    """The functions of the lessons that by their names are the plain ones of a pair."""
    return [
        f"{lesson}.{name}"
        for lesson, module in lessons()
        for name in vars(module)
        if SUFFIX.search(name) and getattr(module, name).__module__ == module.__name__
    ]


def same(found, want, within):
    """Whether two results say the same: exactly what is not a number, numbers up to rounding."""
    if isinstance(want, dict):
        assert list(found) == list(want)
        for name in want:
            same(found[name], want[name], within)
    elif isinstance(want, torch.Tensor):
        found, want = found.detach(), want.detach()
        exact = not want.is_floating_point()
        scale = float(want.abs().max()) if want.numel() and not exact else 0.0
        torch.testing.assert_close(found, want, rtol=0, atol=0 if exact else within * (1 + scale))
    elif isinstance(want, sympy.Basic):
        assert sympy.simplify(found - want) == 0
    elif isinstance(want, (tuple, list)):
        if not any(isinstance(part, (torch.Tensor, tuple, list)) for part in want):
            np.testing.assert_allclose(found, want, rtol=within, atol=within)
            return
        for a, b in zip(found, want, strict=True):
            same(a, b, within)
    else:
        assert found == pytest.approx(want, rel=within, abs=within)


def called(name):
    """A function of a lesson by its dotted name."""
    lesson, _, function = name.partition(".")
    return getattr(importlib.import_module(f"teachkit.{lesson}"), function)


@pytest.mark.parametrize("name", TWINS)
def test_a_plain_function_gives_what_the_fast_one_gives(name):
    twin = TWINS[name]
    plain = twin.plain or called(name)
    fast = twin.fast or called(SUFFIX.sub("", name))
    assert plain is not fast

    @settings(max_examples=25)
    @given(twin.draw)
    def compare(arguments):
        same(fast(*arguments), plain(*arguments), twin.within)

    compare()


def test_every_plain_function_of_a_lesson_has_a_twin():
    assert set(plain_functions()) <= set(TWINS)


@pytest.mark.parametrize(
    ("found", "want"),
    [
        (torch.ones(2), torch.tensor([1.0, 1.0 + 1e-6])),
        (torch.tensor([True]), torch.tensor([False])),
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}),
        ((torch.ones(1), torch.zeros(1)), (torch.ones(1), torch.ones(1))),
        ([1, 2], [1, 3]),
        (X + Y, X),
        (1.0, 1.001),
    ],
)
def test_the_comparison_can_fail(found, want):
    with pytest.raises(AssertionError):
        same(found, want, 1e-9)
    same(want, want, 1e-9)
