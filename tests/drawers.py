"""Random input for the tests of plain functions: networks, batches, scores, functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy
import torch
from hypothesis import strategies as st
from torch import nn

from teachkit import masks, neurons

X, Y = sympy.symbols("x y", real=True)
seeds = st.integers(0, 10**6)
sizes = st.integers(1, 4)
sparsities = st.floats(0, 1)


class Twin(NamedTuple):
    """Random arguments, and how each of the two is called with them where it is not by position."""

    draw: st.SearchStrategy[tuple[Any, ...]]
    fast: Callable[..., Any] | None = None
    plain: Callable[..., Any] | None = None
    within: float = 1e-9  # of the largest number


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def chains(draw, activations=(nn.ReLU, nn.Tanh, nn.Sigmoid)):
    """A chain of Linear layers, and a batch with class numbers; numbers without ties."""
    widths = draw(st.lists(sizes, min_size=1, max_size=3))
    activation, seed = draw(st.sampled_from(activations)), draw(seeds)
    classes, n = draw(st.integers(2, 3)), draw(st.integers(2, 6))
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip([*widths, classes][:-1], [*widths, classes][1:], strict=True)):
        layers += [nn.Linear(a, b), activation()] if i < len(widths) - 1 else [nn.Linear(a, b)]
    net = nn.Sequential(*layers)
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=seed + i)
    return net, (normal(n, widths[0], seed=seed + 50), torch.arange(n) % classes)


@st.composite
def images(draw):
    """A small convolutional network, and a batch of images with class numbers."""
    seed, n = draw(seeds), draw(st.integers(2, 4))
    outer = [nn.Conv2d(1, 2, 2), draw(st.sampled_from((nn.ReLU, nn.Tanh)))(), nn.Flatten()]
    net = nn.Sequential(*outer, nn.Linear(8, 3))
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=seed + i)
    return net, (normal(n, 1, 3, 3, seed=seed + 50), torch.arange(n) % 3)


networks = chains() | images()


@st.composite
def smaller(draw, most=8):
    """A network whose weights can be tried in all sets of k."""
    net, batch = draw(chains().filter(lambda it: count(it[0]) <= most))
    return net, batch, draw(st.integers(0, count(net)))


def count(net):
    return sum(w.numel() for w in masks.prunable(net).values())


@st.composite
def positions(draw):
    """A network, and some weights of one of its layers."""
    net, batch = draw(networks)
    name = draw(st.sampled_from(list(masks.prunable(net))))
    chosen = st.integers(0, net.get_parameter(name).numel() - 1)
    return net, batch, name, draw(st.lists(chosen, min_size=1, max_size=4))


@st.composite
def scores(draw, *shapes, tied=True):
    """Scores of one or two tensors, many of them equal."""
    shape, seed = draw(st.sampled_from(shapes)), draw(seeds)
    values = normal(*shape, seed=seed)
    return (values * 2).round() if tied else values


@st.composite
def removals(draw):
    """A positive definite matrix, weights, and how many of them go."""
    n, seed = draw(st.integers(1, 7)), draw(seeds)
    A = normal(n, 2 * n, seed=seed)
    return A @ A.T / n, normal(n, seed=seed + 1), draw(st.integers(0, n))


functions = st.sampled_from(
    [X**3 * Y + X * Y**2, sympy.exp(X) * sympy.cos(Y), 1 / (2 + X * Y), sympy.sin(X + 2 * Y)]
)
at = st.integers(-1, 1)
curved = st.sampled_from(
    [
        lambda v: (v**3).sum() * v.prod(),
        lambda v: torch.sin(v).sum() ** 2,
        lambda v: torch.exp(-(v @ v)) * v[0],
    ]
)
gradients = st.tuples(
    st.builds(lambda m, n, seed: normal(m, n, seed=seed), sizes, st.integers(1, 7), seeds),
    st.integers(1, 8),
    st.sampled_from((1e-3, 0.1, 2.0)),
)
KINDS = ("connection", "row", "column", "kernel", "position", "filter", "channel")


@st.composite
def teams(draw):
    """A worth for every team of n units."""
    n, seed = draw(sizes), draw(seeds)
    worth = normal(2**n, seed=seed)
    named = {
        frozenset(mask.nonzero()[:, 0].tolist()): float(v)
        for mask, v in zip(neurons.every_mask(n), worth, strict=True)
    }
    return worth, named, n


@st.composite
def cut_chains(draw):
    """A chain, what goes in, and which units of its first hidden layer stay."""
    net, (x, _) = draw(chains().filter(lambda it: len(it[0]) > 1))
    keep = draw(st.lists(st.booleans(), min_size=len(net[0].weight), max_size=len(net[0].weight)))
    keep[0] = True
    return net, x, {"0": torch.tensor(keep)}
