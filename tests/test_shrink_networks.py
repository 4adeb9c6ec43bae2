"""Sixty and more kinds of networks: the smaller one computes what the masked one does, or is refused."""

import re

import pytest
import torch
from coupled_networks import dice
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shrink_networks import CUT, REFUSED, conv, draw
from torch import nn
from torch.nn import functional

from teachkit import structured
from teachkit.engine.channels import Channels

# What is cut only where an input is given: how many dimensions it has, or how large it is, matters.
NEED_X = {
    "two transposes",
    "units twice",
    "linear attention",
    "attention by hand: the width of heads is open",
    "attention by hand: the number of heads is open",
    "attention by hand: width from the size",
    "attention by torch's own function, number of heads open",
}


def randomised(model, seed=1):
    """All numbers random, in float64; statistics positive."""
    g = dice(seed)
    for p in model.double().eval().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=g, dtype=torch.float64) + 0.1)
    return model


def tensors(made):
    """All tensors of a nested output."""
    if isinstance(made, dict):
        made = list(made.values())
    return (
        [t for each in made for t in tensors(each)] if isinstance(made, (list, tuple)) else [made]
    )


def wishes(model, x, share, seed):
    """Masks by layer that agree where units are coupled, and leave something of every layer."""
    channels, g = Channels(model, x), dice(seed)
    classes, keep, stay = channels.ties.classes, {}, {}
    for names in channels.coupled():
        for each in classes[channels.outputs[names[0]]].tolist():
            stay.setdefault(each, bool(torch.rand(1, generator=g) >= share))
    for ids in channels.outputs.values():
        mine = [each for each in classes[ids].tolist() if each in stay]
        if len(mine) == len(ids) and sum(stay[each] for each in mine) < 2:  # a squeeze needs two
            stay[mine[0]] = stay[mine[-1]] = True
    for names in channels.coupled():
        keep[names[-1]] = torch.tensor(
            [stay[each] for each in classes[channels.outputs[names[0]]].tolist()]
        )
    return keep


def check(model, inputs, keep, x):
    """Equal to the masked network to the rounding of float64, and as small as predicted."""
    before = {name: t.clone() for name, t in model.state_dict().items()}
    small, masked = structured.shrink(model, keep, x), structured.silence(model, keep, x)
    with torch.no_grad():
        pairs = list(zip(tensors(small(*inputs)), tensors(masked(*inputs)), strict=True))
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * scale)
    assert structured.count(small) == structured.predict(model, keep, x)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    return small


def equal_or_refused(model, inputs, keep, x):
    """Check what is cut; of what is refused, that the message names a layer."""
    try:
        check(model, inputs, keep, x)
    except ValueError as error:
        return re.search("layers? '|keep two outputs", str(error)) is not None
    return True


def test_there_are_sixty_kinds():
    assert len(CUT) + len(REFUSED) >= 100


@pytest.mark.parametrize("kind", CUT)
def test_a_kind_is_cut_to_what_the_masked_network_computes(kind):
    make, shapes = CUT[kind]
    model, inputs = randomised(make()), draw(*shapes)
    for x in (None, inputs):
        groups = structured.coupled(model, x)
        assert bool(groups) == (x is not None or kind not in NEED_X)
        for seed, share in ((0, 0.3), (1, 0.6)):
            keep = wishes(model, x, share, seed)
            small = check(model, inputs, keep, x)
            gone = sum(int((~mask).sum()) for mask in keep.values())
            assert (structured.count(small).parameters < structured.count(model).parameters) == (
                gone > 0
            )


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_is_refused_by_name(kind):
    make, shapes, layer, says = REFUSED[kind]
    model, inputs = randomised(make()), draw(*shapes)
    keep = {layer: torch.arange(len(model.get_submodule(layer).weight)) > 0}
    for x in (None, inputs):
        assert not any(layer in names for names in structured.coupled(model, x))
        with pytest.raises(
            ValueError, match=f"outputs of layer '{layer}' cannot be removed"
        ) as error:
            structured.shrink(model, keep, x)
        assert x is None or re.search(says, str(error.value))


@pytest.mark.parametrize("kind", CUT)
def test_any_mask_is_obeyed_or_refused(kind):
    """Masks drawn layer by layer, which need not agree: equal, or a ValueError that names a layer."""
    make, shapes = CUT[kind]
    model, inputs = randomised(make()), draw(*shapes)
    outputs = Channels(model).outputs
    for seed in range(2):
        g = dice(seed)
        names = [n for n in outputs if torch.rand(1, generator=g) < 0.5]
        keep = {n: torch.rand(len(outputs[n]), generator=g) > 0.3 for n in names}
        assert equal_or_refused(model, inputs, keep, None)


# Random compositions ---------------------------------------------------------------------------


def _halves(y):
    a, b = y.chunk(2, 1)
    return a * b.sigmoid()


# By name: the parts for so many channels, what is done, and how many channels come out.
STEPS = {
    "conv": lambda c: ([conv(c, 6)], lambda y, p: p(y), 6),
    "narrow conv": lambda c: ([conv(c, 4, 1)], lambda y, p: p(y), 4),
    "depthwise": lambda c: ([conv(c, c, groups=c)], lambda y, p: p(y), c),
    "in groups": lambda c: ([conv(c, 6, groups=2)], lambda y, p: p(y), 6),
    "transposed": lambda c: ([nn.ConvTranspose2d(c, 4, 3, padding=1)], lambda y, p: p(y), 4),
    "batch norm": lambda c: ([nn.BatchNorm2d(c)], lambda y, p: p(y), c),
    "instance norm": lambda c: ([nn.InstanceNorm2d(c, affine=True)], lambda y, p: p(y), c),
    "group norm": lambda c: ([nn.GroupNorm(2, c)], lambda y, p: p(y), c),
    "relu": lambda c: ([], lambda y: y.relu(), c),
    "sigmoid": lambda c: ([], lambda y: torch.sigmoid(y), c),
    "prelu": lambda c: ([nn.PReLU(c)], lambda y, p: p(y), c),
    "scale": lambda c: ([nn.Parameter(torch.ones(c, 1, 1))], lambda y, p: y * p, c),
    "residual": lambda c: ([conv(c, c)], lambda y, p: y + p(y).relu(), c),
    "dense": lambda c: ([conv(c, 4)], lambda y, p: torch.cat([y, p(y)], 1), c + 4),
    "with itself": lambda c: ([], lambda y: torch.cat([y, y.relu()], 1), 2 * c),
    "gate": lambda c: (
        [nn.Linear(c, 3), nn.Linear(3, c)],
        lambda y, p, q: y * q(p(y.mean((2, 3))).relu()).sigmoid().view(y.size(0), -1, 1, 1),
        c,
    ),
    "halves": lambda c: ([], lambda y: _halves(y), c // 2),
    "maximum": lambda c: ([conv(c, c)], lambda y, p: torch.maximum(y, p(y)), c),
    "shuffle": lambda c: (
        [],
        lambda y: y.view(y.size(0), 2, -1, y.size(2), y.size(3)).transpose(1, 2).flatten(1, 2),
        c,
    ),
    "pool": lambda c: ([nn.MaxPool2d(3, 1, 1)], lambda y, p: p(y), c),
    "centred": lambda c: ([], lambda y: y - y.mean(1, keepdim=True), c),
    "softmax": lambda c: ([], lambda y: functional.softmax(y, 1), c),
    "turned": lambda c: ([conv(4, 4)], lambda y, p: p(y.transpose(1, 2)).transpose(1, 2), c),
    "last": lambda c: (
        [nn.Linear(c, 6)],
        lambda y, p: p(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        6,
    ),
    "sum": lambda c: ([], lambda y: y * y.sum(1, keepdim=True), c),
    "upside down": lambda c: ([], lambda y: y.flip(1), c),
    "first half twice": lambda c: (
        [],
        lambda y: torch.cat([y[:, : y.size(1) // 2], y[:, : y.size(1) // 2]], 1),
        c // 2 * 2,
    ),
    "attention over places": lambda c: (
        [conv(c, 4, 1), conv(c, 4, 1), conv(c, 6, 1)],
        lambda y, q, k, v: (
            v(y).flatten(2) @ (q(y).flatten(2).transpose(1, 2) @ k(y).flatten(2)).softmax(-1)
        ).view(y.size(0), -1, y.size(2), y.size(3)),
        6,
    ),
}
EVEN = ("in groups", "halves", "shuffle", "group norm", "first half twice")
ENDS = {
    "mean": lambda c: (c, lambda y: y.mean((2, 3))),
    "flatten": lambda c: (16 * c, lambda y: y.flatten(1)),
    "view": lambda c: (16 * c, lambda y: y.view(y.size(0), -1)),
    "channels last": lambda c: (16 * c, lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), -1)),
    "pool": lambda c: (c, lambda y: functional.adaptive_avg_pool2d(y, 1)[:, :, 0, 0]),
}


class Composed(nn.Module):
    """A stem, steps drawn from the table, an end and a Linear layer."""

    def __init__(self, steps, end):
        super().__init__()
        self.stem, channels = conv(2, 4), 4
        self.steps, self.ways = nn.ModuleList(), []
        for step in steps:
            if step in EVEN and channels % 2:
                continue
            parts, way, wider = STEPS[step](channels)
            if wider < 2:
                continue
            named = nn.Module()
            for at, part in enumerate(parts):
                setattr(named, f"part{at}", part)
            self.steps.append(named)
            self.ways.append((way, len(parts)))
            channels = wider
        width, self.end = ENDS[end](channels)
        self.hidden, self.out = nn.Linear(width, 5), nn.Linear(5, 2)

    def forward(self, x):
        y = self.stem(x)
        for named, (way, count) in zip(self.steps, self.ways, strict=True):
            y = way(y, *(getattr(named, f"part{at}") for at in range(count)))
        return self.out(self.hidden(self.end(y)).relu())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(list(STEPS)), max_size=6),
    st.sampled_from(list(ENDS)),
    st.integers(0, 99),
    st.booleans(),
)
def test_random_compositions_are_equal_or_refused(steps, end, seed, with_x):
    model, inputs = randomised(Composed(steps, end), seed), draw((2, 2, 4, 4))
    x = inputs if with_x else None
    try:
        model(*inputs)
    except RuntimeError:
        assume(False)  # a view of what does not lie in a row
    check(model, inputs, wishes(model, x, 0.4, seed), x)
    g = dice(seed)
    keep = {
        name: torch.rand(len(ids), generator=g) > 0.3
        for name, ids in Channels(model, x).outputs.items()
        if name != "out" and torch.rand(1, generator=g) < 0.4
    }
    assert equal_or_refused(model, inputs, keep, x)
