"""Networks that look as if units could go, and where a zero turns into something else on the way.

Each is cut to what the masked network computes, or refused by name, whatever the mask.
"""

import operator

import pytest
import torch
from shrink_networks import IMAGE, ROW, WORDS, Net, conv, draw
from test_shrink_networks import check, equal_or_refused, randomised
from torch import nn
from torch.nn import functional

from teachkit import structured


def row(way, width=5, **parts):
    return lambda: Net(way, a=nn.Linear(6, 5), out=nn.Linear(width, 2), **parts)


def summed(way, **parts):
    """A sum over units, of which those removed must be 0."""
    return row(lambda m, x: m.out(way(m, m.a(x)).sum(1, keepdim=True)), 1, **parts)


def written(layer):
    """A sum over what a layer has overwritten."""

    def way(m, y):
        m.act(y)
        return y

    return summed(way, act=layer)


def moved(into):
    """A sum over units that an operator has moved away from 0 under another name."""

    def way(m, y):
        into(y, 1.0)
        return y

    return summed(way)


def with_buffer(name):
    def make():
        net = summed(lambda m, y: y + getattr(m, name))()
        net.register_buffer(name, torch.ones(5))
        return net

    return make


def turned(part):
    """What reads an image whose rows are channels."""
    return lambda: Net(
        lambda m, x: m.out(m.part(m.a(x).transpose(1, 2)).flatten(1)),
        a=conv(2, 8),
        part=part,
        out=nn.Linear(512, 2),
    )


def transformer(activation):
    def make():
        layer = nn.TransformerEncoderLayer(6, 2, 9, activation=activation, batch_first=True)
        return Net(lambda m, x: m.out(m.t(x)), t=layer, out=nn.Linear(6, 2))

    return make


TRAPS = {
    "units as samples of a convolution with a bias": (
        lambda: Net(
            lambda m, x: m.out(m.c(m.a(x).t().unsqueeze(1)).sum(0)),
            a=nn.Linear(6, 5),
            c=nn.Conv1d(1, 4, 1),
            out=nn.Linear(3, 2),
        ),
        ROW,
    ),
    "units as samples of a normalisation by the batch": (
        row(
            lambda m, x: m.out(m.n(m.a(x).t()).t()),
            n=nn.BatchNorm1d(3, track_running_stats=False),
        ),
        ROW,
    ),
    "units as words": (
        lambda: Net(
            lambda m, x: m.out(m.e((m.a(x) * 0).to(torch.long)).sum(1)),
            a=nn.Linear(6, 5),
            e=nn.Embedding(4, 3),
            out=nn.Linear(3, 2),
        ),
        ROW,
    ),
    "mean over no dimensions, which is all": (
        row(lambda m, x: (lambda y: m.out(y - y.mean(())))(m.a(x))),
        ROW,
    ),
    "sum over no dimensions": (
        row(lambda m, x: (lambda y: m.out(y * y.sum([])))(m.a(x).sigmoid())),
        ROW,
    ),
    "std of all, unbiased by place": (
        row(lambda m, x: (lambda y: m.out(y - torch.std(y, True)))(m.a(x))),
        (5, 5, 6),
    ),
    "overwritten by Hardsigmoid": (written(nn.Hardsigmoid(inplace=True)), ROW),
    "overwritten by Hardtanh": (written(nn.Hardtanh(1.0, 2.0, inplace=True)), ROW),
    "lowered in place": (moved(operator.isub), ROW),
    "raised in place": (moved(operator.iadd), ROW),
    "a buffer called as statistics are": (with_buffer("running_shift"), ROW),
    "statistics read by hand": (
        summed(lambda m, y: m.n(y) - m.n.running_mean, n=nn.BatchNorm1d(5)),
        ROW,
    ),
    "transposed and shuffled": (turned(nn.PixelShuffle(2)), IMAGE),
    "transposed and unshuffled": (turned(nn.PixelUnshuffle(2)), IMAGE),
    "softmax between the layers of a transformer": (transformer(nn.Softmax(-1)), WORDS),
    "a norm between the layers of a transformer": (
        transformer(lambda x: functional.normalize(x.exp(), dim=-1)),
        WORDS,
    ),
}
CUT = {
    "a sum that stays, plus a number": (
        row(lambda m, x: (lambda y: m.out(y / ((y * y).sum(-1, keepdim=True) + 1)))(m.a(x))),
        ROW,
    ),
    "a matrix of units, summed, plus a number": (
        row(lambda m, x: (lambda y: m.out((y.t() @ y).sum(0, keepdim=True) + 1))(m.a(x))),
        ROW,
    ),
    "scaled by its spread over places": (
        lambda: Net(
            lambda m, x: (lambda y: m.out((y * (y.std((2, 3), keepdim=True) + 1)).mean((2, 3))))(
                m.a(x)
            ),
            a=conv(2, 8),
            out=nn.Linear(8, 2),
        ),
        IMAGE,
    ),
    "a function given to a transformer": (transformer(functional.silu), WORDS),
    "a layer given to a transformer": (transformer(nn.Hardswish()), WORDS),
}


@pytest.mark.parametrize("kind", TRAPS | CUT)
def test_no_trap_makes_a_wrong_network(kind):
    make, shape = (TRAPS | CUT)[kind]
    model, inputs = randomised(make()), draw(shape)
    for x in (None, inputs):
        for name in ("a", "t.linear1"):
            if name in dict(model.named_modules()):
                keep = {name: torch.arange(len(model.get_submodule(name).weight)) % 3 != 1}
                assert equal_or_refused(model, inputs, keep, x)


@pytest.mark.parametrize("kind", CUT)
def test_what_is_no_trap_is_cut(kind):
    make, shape = CUT[kind]
    model, inputs = randomised(make()), draw(shape)
    (names,) = structured.coupled(model, inputs)
    keep = {names[0]: torch.arange(len(model.get_submodule(names[0]).weight)) % 3 != 1}
    check(model, inputs, keep, inputs)
