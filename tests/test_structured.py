"""Groups of weights, real removal, sizes and speed."""

import copy
import gzip
import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

from benchmarks import bench
from benchmarks import structured as suite
from teachkit import lab, magnitude, masks, structured
from teachkit.show.lessons import structured as scenes
from teachkit.structured import speed, tracing

KINDS = ["connection", "row", "filter", "column", "channel", "block"]
IMAGE_KINDS = [*KINDS, "kernel", "position"]


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def randomised(model, seed=0):
    """Every parameter and statistic random, in float64, so that nothing is zero or one by chance."""
    g = dice(seed)
    model = model.double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=g, dtype=torch.float64) + 0.1)
            assert name.rpartition(".")[2] in ("running_mean", "running_var")
    return model.eval()


def some(size, share, g):
    """A mask that keeps at least one of them."""
    mask = torch.rand(size, generator=g) >= share
    mask[int(torch.randint(size, (1,), generator=g))] = True
    return mask


SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(SHAPES, st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))
def test_group_scores_are_those_of_a_walk_through_all_weights(shape, seed, height, width):
    score = torch.rand(shape, generator=dice(seed), dtype=torch.float64)
    for kind in IMAGE_KINDS if len(shape) > 2 else KINDS:
        found = oracles.groups(score, kind, (height, width))
        lists = [[value for _, value in members] for members in found.values()]
        for norm, one in {
            "sum": sum,
            "mean": lambda v: sum(v) / len(v),
            "l2": lambda v: math.sqrt(sum(x * x for x in v)),
        }.items():
            got = structured.group_scores({"w": score}, kind, block=(height, width), norm=norm)
            want = torch.tensor([one(values) for values in lists], dtype=torch.float64)
            torch.testing.assert_close(got["w"], want)
        ids = structured.group_ids(tuple(shape), kind, (height, width))
        for number, members in enumerate(found.values()):
            assert all(int(ids[index]) == number for index, _ in members)


@given(st.integers(0, 99), st.sampled_from(IMAGE_KINDS), st.floats(0, 0.8))
def test_group_masks_remove_whole_groups_and_exactly_as_many(seed, kind, sparsity):
    score = torch.rand(4, 3, 2, 3, generator=dice(seed), dtype=torch.float64)
    kept = structured.group_masks({"w": score}, sparsity, kind, block=(2, 4))["w"]
    found = oracles.groups(score, kind, (2, 4))
    alive = [all(kept[index] for index, _ in members) for members in found.values()]
    dead = [not any(kept[index] for index, _ in members) for members in found.values()]
    assert sum(dead) == masks.removed(len(found), sparsity)
    assert sum(alive) + sum(dead) == len(found)
    means = [sum(v for _, v in members) / len(members) for members in found.values()]
    stay = [m for m, a in zip(means, alive, strict=True) if a]
    go = [m for m, d in zip(means, dead, strict=True) if d]
    assert not stay or not go or min(stay) >= max(go)


def test_rows_are_what_torch_reads_into_a_unit_and_columns_what_it_sends():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    kept = structured.group_masks({"0.weight": torch.tensor([[1.0] * 3, [2.0] * 3])}, 0.5, "row")
    assert masks.apply(net, kept)[0](torch.ones(1, 3))[0, 0] == 0
    score = {"1.weight": torch.tensor([[1.0, 2.0], [1.0, 2.0]])}
    kept = structured.group_masks(score, 0.5, "column")["1.weight"]
    assert kept.tolist() == [[False, True], [False, True]]


def test_two_of_four_is_the_pattern_of_masks():
    score = {"w": torch.rand(3, 8, generator=dice())}
    assert torch.equal(
        structured.group_masks(score, 0.5, "2:4")["w"], masks.keep_n_of_m(score, 2, 4)["w"]
    )
    with pytest.raises(ValueError, match="sparsity must be 0.5, got 0.9"):
        structured.group_masks(score, 0.9, "2:4")


@given(st.integers(0, 99), st.floats(0.05, 0.8))
def test_no_layer_is_emptied_unless_one_allows_it(seed, sparsity):
    g = dice(seed)
    scores = {n: torch.rand(k, generator=g) * k for n, k in {"a": 4, "b": 7, "c": 20}.items()}
    free = structured.keep_groups(scores, sparsity, "global", "allow")
    kept = structured.keep_groups(scores, sparsity, "global", "keep")
    assert all(bool(m.any()) for m in kept.values())
    assert masks.sparsity(kept) == masks.sparsity(free)
    assert all(bool(kept[n][s.argmax()]) for n, s in scores.items())
    empty = [n for n, m in free.items() if not m.any()]
    if empty:
        with pytest.raises(ValueError, match=f"nothing is left of {', '.join(map(repr, empty))};"):
            structured.keep_groups(scores, sparsity, "global")
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
        structured.keep_groups(scores, 0.95)
    for sparsity, scope in ((1.0, "global"), (0.95, "layer")):
        with pytest.raises(ValueError, match="nothing is left"):
            structured.keep_groups(scores, sparsity, scope, "keep")
    kept = structured.keep_groups({"a": torch.rand(1), "b": torch.rand(1)}, 0.0, "global", "keep")
    assert masks.sparsity(kept) == 0
    one_each = structured.keep_groups(scores, 42 / 44, "global", "keep")
    assert [int(m.sum()) for m in one_each.values()] == [1, 1]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: structured.group_scores(s, "atom"), "granularity must be one of .* got 'atom'"),
        (lambda s: structured.group_scores(s, "2:4"), "got '2:4'"),
        (lambda s: structured.group_scores(s, "kernel"), r"needs a convolution, got .* \(2, 3\)"),
        (lambda s: structured.group_scores(s, "row", norm="l7"), "norm must be one of .* 'l7'"),
        (lambda s: structured.group_masks(s, 0.5, "row", on_empty="x"), "on_empty must be one of"),
        (lambda s: structured.group_masks(s, 1.5, "row"), r"sparsity must lie in \[0, 1\]"),
        (
            lambda s: structured.group_ids((3,), "row"),
            r"shape \(outputs, inputs, ...\), got \(3,\)",
        ),
        (lambda s: structured.group_scores({"w": s["w"] / 0}, "row"), "NaN or infinite"),
        (lambda s: structured.group_scores(s, "block", block=(0, 1)), "each side of block must"),
        (lambda s: structured.group_masks(s, 0.5, "2:4", "global"), "scope must be 'layer'"),
    ],
)
def test_bad_groups_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call({"w": torch.ones(2, 3)})
    with pytest.raises(TypeError, match=r"block must be \(rows, columns\), got 4"):
        structured.group_scores({"w": torch.ones(2, 3)}, "block", block=4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_scores_of_few_digits_are_added_up_without_loss(dtype):
    score = {"w": (100 * torch.ones(2, 5000)).to(dtype)}
    for norm, want in (("mean", 100), ("sum", 5e5), ("l2", 100 * 5000**0.5)):
        found = structured.group_scores(score, "row", norm=norm)["w"]
        assert found.tolist() == pytest.approx([want, want])
    if dtype.is_floating_point:
        net = nn.Sequential(nn.Linear(5000, 2, bias=False), nn.Linear(2, 1)).to(dtype)
        net[0].weight.data.fill_(100.0)
        assert structured.unit_scores(net)["0"].tolist() == pytest.approx([100 * 5000**0.5] * 2)


# --- real removal ---------------------------------------------------------------------------


def chain(g):
    """A random chain of convolutions, normalisations, pooling and linear layers for 8x8 images."""

    def pick(*options):
        return options[int(torch.randint(len(options), (1,), generator=g))]

    layers, channels, size = [], 2, 8
    for _ in range(pick(0, 1, 2)):
        wide = pick(1, 3, 5)
        layers.append(nn.Conv2d(channels, wide, 3, padding=pick(0, 1), bias=pick(True, False)))
        layers += pick([nn.BatchNorm2d(wide)], [])
        layers += [pick(nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.LeakyReLU())]
        layers += pick([nn.MaxPool2d(2, 1)], [nn.AvgPool2d(2, 1)], [])
        channels = wide
    layers += pick([nn.AdaptiveAvgPool2d(1)], [nn.Dropout2d()]) if layers else []
    layers.append(nn.Flatten())
    x = torch.randn(3, 2, size, size, generator=g, dtype=torch.float64)
    width = nn.Sequential(*layers).double().eval()(x).shape[1]
    layers += pick([nn.BatchNorm1d(width)], []) if len(layers) > 1 else []
    for _ in range(pick(1, 2)):
        wide = pick(2, 4, 7)
        layers += [nn.Linear(width, wide, bias=pick(True, False))]
        layers += [*pick([nn.BatchNorm1d(wide)], []), pick(nn.GELU(), nn.Sigmoid(), nn.ReLU())]
        width = wide
    layers += [nn.Dropout(), nn.Linear(width, 3)]
    return nn.Sequential(*layers), x


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_random_chains_shrink_to_what_is_rebuilt_by_hand(seed, share):
    g = dice(seed)
    model, x = chain(g)
    model = randomised(model, seed)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    groups = structured.coupled(model)
    wide = [n for n, m in model.named_children() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert groups == [(name,) for name in wide[:-1]]
    keep = {n: some(len(model.get_submodule(n).weight), share, g) for (n,) in groups}
    small = structured.shrink(model, keep)
    want = oracles.without_units(model, x, keep)
    assert list(small.state_dict()) == list(want.state_dict())
    for key, tensor in want.state_dict().items():
        assert torch.equal(small.state_dict()[key], tensor), key
    exact = small(x)
    torch.testing.assert_close(structured.silence(model, keep)(x), exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(want(x), exact, rtol=1e-10, atol=1e-10)
    assert structured.predict(model, keep) == structured.count(small)
    assert repr(small) == repr(want)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


class Residual(nn.Module):
    """A stem, a residual block with a depthwise layer, a second with a projection, a classifier."""

    def __init__(self, width=5, inner=4, wider=6):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width)
        self.a, self.norm_a = nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.deep = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.b, self.norm_b = nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)
        self.c, self.project = nn.Conv2d(width, wider, 3), nn.Conv2d(width, wider, 3)
        self.prelu, self.fc, self.out = nn.PReLU(wider), nn.Linear(wider * 4, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        y = self.deep(torch.relu(self.norm_a(self.a(x))))
        x = functional.relu(x + self.norm_b(self.b(y)))
        x = self.prelu(torch.add(self.c(x).tanh(), self.project(x)))
        x = functional.max_pool2d(x * 0.5, 2)
        return self.out(self.fc(torch.flatten(x, 1)).relu())


COUPLED = [("stem", "b"), ("a", "deep"), ("c", "project"), ("fc",)]


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_residual_networks_shrink_to_their_knocked_out_selves(seed, share):
    g = dice(seed)
    widths = torch.randint(2, 7, (3,), generator=g).tolist()
    model = randomised(Residual(*widths), seed)
    x = torch.randn(2, 2, 7, 7, generator=g, dtype=torch.float64)
    assert structured.coupled(model) == COUPLED
    keep = {
        group[0]: some(len(model.get_submodule(group[0]).weight), share, g) for group in COUPLED
    }
    modules = {"stem": ("norm", "norm_b"), "a": ("norm_a", "deep"), "c": ("c", "project")}
    hooked = {m: keep[name] for name, group in modules.items() for m in group} | {"fc": keep["fc"]}
    want = oracles.knocked_out(copy.deepcopy(model), x, hooked)
    small = structured.shrink(model, keep)
    torch.testing.assert_close(small(x), want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(structured.silence(model, keep)(x), want, rtol=1e-10, atol=1e-10)
    assert structured.predict(model, keep) == structured.count(small)
    assert type(small) is Residual
    both = structured.shrink(model, keep | {"b": keep["stem"]})
    assert torch.equal(both(x), small(x))


def test_coupled_layers_must_agree():
    model = randomised(Residual())
    first, second = torch.tensor([True] * 4 + [False]), torch.tensor([False] + [True] * 4)
    for keep in ({"stem": first, "b": second}, {"stem": first, "b": torch.ones(5).bool()}):
        with pytest.raises(ValueError, match="layers 'stem' and 'b' are coupled"):
            structured.shrink(model, keep)


def test_a_layer_added_to_its_own_input_loses_rows_and_columns():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.loop = nn.Linear(2, 4), nn.Linear(4, 4)
            self.last = nn.Linear(4, 1)

        def forward(self, x):
            x = self.first(x).relu()
            return self.last(x + self.loop(x).relu())

    model, x = randomised(Loop()), torch.randn(5, 2, dtype=torch.float64, generator=dice())
    mask = torch.tensor([True, False, True, False])
    small = structured.shrink(model, {"loop": mask})
    assert small.loop.weight.shape == (2, 2)
    want = oracles.knocked_out(copy.deepcopy(model), x, {"first": mask, "loop": mask})
    torch.testing.assert_close(small(x), want)


def test_a_sigmoid_says_a_half_until_nobody_listens():
    model = randomised(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1)))
    x = torch.randn(4, 2, dtype=torch.float64, generator=dice())
    keep = {"0": torch.tensor([True, False, True])}
    small = structured.shrink(model, keep)(x)
    torch.testing.assert_close(structured.silence(model, keep)(x), small, rtol=0, atol=1e-12)
    rows_only = copy.deepcopy(model)
    rows_only[0].weight.data[1] = rows_only[0].bias.data[1] = 0
    gap = rows_only(x) - small
    torch.testing.assert_close(gap, (0.5 * model[2].weight[0, 1]).expand_as(gap))


def test_silence_zeroes_all_that_a_unit_owns_and_nothing_else():
    model = randomised(Residual())
    keep = {"stem": torch.tensor([True, False, True, True, False]), "fc": torch.arange(7) < 3}
    gone, off = ~keep["stem"], ~keep["fc"]
    masked = structured.silence(model, keep)
    zeros = {name: t == 0 for name, t in masked.named_parameters()}
    for name in ("stem", "b", "norm", "norm_b"):
        assert bool(zeros[f"{name}.weight"][gone].all() and zeros[f"{name}.bias"][gone].all())
        assert not bool(zeros[f"{name}.weight"][~gone].any())
    for name in ("a", "c", "project"):
        assert bool(zeros[f"{name}.weight"][:, gone].all())
        assert not bool(zeros[f"{name}.weight"][:, ~gone].any())
        assert not bool(zeros[f"{name}.bias"].any())
    assert bool(zeros["fc.weight"][off].all() and zeros["fc.bias"][off].all())
    assert bool(zeros["out.weight"][:, off].all())
    assert not bool(zeros["out.weight"][:, ~off].any() or zeros["deep.weight"].any())


def test_what_was_there_stays_as_it_was():
    model = Residual().train().requires_grad_(False)
    small = structured.shrink(model, {"fc": torch.arange(7) < 3})
    assert small.training
    assert not small.fc.weight.requires_grad
    assert small.fc.weight.dtype == model.fc.weight.dtype
    small.stem.weight.data.zero_()
    small.fc.weight.data.zero_()
    small.out.bias.data.fill_(7)  # only columns of this layer were cut
    assert bool((model.out.bias != 7).all())
    assert model.stem.weight.abs().sum() > 0
    assert model.fc.weight.abs().sum() > 0
    whole = structured.shrink(model, {"fc": torch.ones(7).bool()})
    assert structured.count(whole) == structured.count(model)


def test_the_graph_of_a_chain_is_the_one_torch_traces():
    for make in lab.models.MODELS.values():
        model = make((1, 8, 8))
        ours, theirs = tracing.trace(model), fx.Tracer().trace(model)
        for a, b in zip(ours.nodes, theirs.nodes, strict=True):
            assert (a.op, [str(n) for n in a.all_input_nodes]) == (
                b.op,
                [str(n) for n in b.all_input_nodes],
            )
            assert a.target == b.target or a.op == "placeholder"


@pytest.mark.parametrize("name", list(lab.models.MODELS))
def test_the_networks_of_the_course_train_after_shrinking(name):
    model = lab.models.MODELS[name]((1, 8, 8))
    keep = structured.keep_groups(structured.unit_scores(model), 0.5)
    small = structured.shrink(model, keep)
    batch = tuple(part[:20] for part in lab.data.digits().train)
    batch = (batch[0].to(next(model.parameters()).dtype), batch[1])
    trained, _ = lab.training.fit(small, batch, epochs=1, progress=False)
    assert structured.count(trained) == structured.count(small) == structured.predict(model, keep)


# --- what is refused ----------------------------------------------------------------------------


class Uses(nn.Module):
    """Two layers and a way between them."""

    def __init__(self, way, *parts):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.parts = nn.ModuleList(parts)
        self.scale = nn.Parameter(torch.ones(6))
        self.way = way

    def forward(self, x):
        return self.last(self.way(self, self.first(x)))


REFUSED = {
    "softmax": ("'softmax' is not understood", lambda m, y: y.softmax(1)),
    "view": ("'size' is not understood", lambda m, y: y.view(y.size(0), -1)),
    "transpose": ("'t' is not understood", lambda m, y: y.t().t()),
    "cat": ("'cat' is not understood", lambda m, y: torch.cat([y, y.relu()], 1)),
    "reshape": ("'reshape' is not understood", lambda m, y: y.reshape(-1, 6)),
    "index": ("'getitem' is not understood", lambda m, y: y[:, torch.arange(6)]),
    "parameter": ("'mul' joins it", lambda m, y: y * m.scale),
    "flatten from 0": ("'flatten' is not understood", lambda m, y: y.flatten(0).reshape(-1, 6)),
    "flatten to 1": ("'flatten' is not understood", lambda m, y: y.flatten(1, 1)),
    "own weight": ("'add' joins it", lambda m, y: y + m.first.weight.sum()),
    "functional": (
        "'linear' is not understood",
        lambda m, y: functional.linear(y, m.last.weight.T),
    ),
}
PARTS = {
    "layer norm": (nn.LayerNorm(6), r"'parts.0' \(LayerNorm\) is not understood"),
    "group norm": (nn.GroupNorm(2, 6), r"\(GroupNorm\) is not understood"),
    "softmax module": (nn.Softmax(1), r"\(Softmax\) is not understood"),
    "pooling over units": (nn.AvgPool1d(1), r"\(AvgPool1d\) is not understood there"),
    "two-parameter norm": (nn.BatchNorm1d(3), "'parts.0' reads it along another dimension"),
    "unflatten": (nn.Unflatten(1, (6, 1)), r"\(Unflatten\) is not understood"),
}
GONE = {"first": torch.arange(6) < 3}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_named(case):
    says, way = REFUSED[case]
    with pytest.raises(ValueError, match=f"outputs of layer 'first' cannot be removed: .*{says}"):
        structured.shrink(Uses(way), GONE)
    with pytest.raises(ValueError, match=says):
        structured.silence(Uses(way), GONE)
    assert structured.coupled(Uses(way)) == []
    whole = structured.shrink(Uses(way), {"first": torch.ones(6).bool()})
    assert structured.count(whole) == structured.count(Uses(way))


@pytest.mark.parametrize("case", PARTS)
def test_modules_that_are_not_understood_are_named(case):
    part, says = PARTS[case]
    with pytest.raises(ValueError, match=says):
        structured.shrink(Uses(lambda m, y: m.parts[0](y), part), GONE)


@pytest.mark.parametrize(
    ("conv", "pool"),
    [
        (nn.Conv1d, nn.MaxPool2d(3, 1, 1)),
        (nn.Conv1d, nn.AvgPool2d(3, 1, 1)),
        (nn.Conv1d, nn.ZeroPad2d((0, 0, 1, -1))),
        (nn.Conv2d, nn.AvgPool3d((3, 1, 1), 1, (1, 0, 0))),
        (nn.Conv2d, nn.MaxPool3d(3, 1, 1)),
    ],
)
def test_a_pooling_over_channels_is_refused(conv, pool):
    """With one dimension too many torch takes the batch for channels, and pools over these."""
    keep = {"0": torch.tensor([True, False, True, True])}
    with pytest.raises(ValueError, match=r"module '1' \(\w+\) is not understood there"):
        structured.shrink(nn.Sequential(conv(2, 4, 1), pool, conv(4, 1, 1)), keep)


def test_a_pooling_call_over_channels_is_refused():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 1, 1)

        def forward(self, x):
            return self.b(functional.max_pool2d(self.a(x), 3, 1, 1))

    with pytest.raises(ValueError, match="'a' cannot be removed: .* is not understood"):
        structured.shrink(Calls(), {"a": torch.arange(4) < 2})
    rows = Uses(lambda m, y: functional.avg_pool1d(y, 1))
    with pytest.raises(ValueError, match="is not understood"):
        structured.shrink(rows, GONE)


def test_one_activation_may_stand_in_many_places():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    assert structured.coupled(net) == [("0",), ("2",)]
    keep = {"0": torch.arange(4) < 3, "2": torch.arange(4) > 1}
    x = torch.randn(5, 3, generator=dice(1))
    small = structured.shrink(net, keep)
    torch.testing.assert_close(small(x), structured.silence(net, keep)(x))
    assert structured.count(small).parameters == 3 * 4 + 2 * 4 + 2 * 3
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="used in more than one place"):
        structured.shrink(
            nn.Sequential(layer, relu, layer, nn.Linear(4, 2)), {"0": torch.arange(4) < 3}
        )


def test_statistics_that_two_normalisations_share_are_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    net[3].running_mean = net[1].running_mean
    net.append(nn.Linear(4, 1))
    with pytest.raises(ValueError, match="'1.running_mean' is used in more than one place"):
        structured.shrink(net, {"0": torch.arange(4) < 3})


def test_looking_at_a_network_leaves_it_as_it_is():
    class Keeps(Uses):
        def forward(self, x):
            self.seen = self.first(x).relu()
            return self.last(self.seen)

    net = Keeps(None)
    net.seen, net.parts.noted = None, None
    net.train()
    small = structured.shrink(net, GONE)
    assert net.seen is None
    assert net.training
    copy.deepcopy(net)
    assert small(torch.ones(2, 4)).shape == (2, 2)


def test_code_for_evaluation_is_what_is_followed():
    class Head(Uses):
        def forward(self, x):
            y = self.first(x).relu()
            return self.last(y.softmax(1) if self.training else y)

    assert structured.coupled(Head(None).train()) == [("first",)]


def test_a_single_slope_cuts_nothing_from_itself():
    net = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2))
    small = structured.shrink(net, {"0": torch.arange(4) < 2})
    assert small[1].weight.shape == (1,)
    x = torch.randn(5, 3, generator=dice(2))
    torch.testing.assert_close(small(x), structured.silence(net, {"0": torch.arange(4) < 2})(x))


def test_a_layer_called_twice_is_refused():
    twice = Uses(lambda m, y: m.parts[0](m.parts[0](y)), nn.Linear(6, 6))
    for name in ("first", "parts.0"):
        with pytest.raises(ValueError, match="'parts.0' is called more than once"):
            structured.shrink(twice, {name: torch.arange(6) < 3})
    norm = Uses(lambda m, y: m.parts[0](m.parts[0](y)), nn.BatchNorm1d(6))
    with pytest.raises(ValueError, match="'parts.0' is called more than once"):
        structured.shrink(norm, GONE)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 1))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="'0.weight' is used in more than one place"):
        structured.shrink(tied, {"0": torch.arange(3) < 2})


def test_a_weight_that_the_code_reads_as_well_is_refused():
    class Reads(Uses):
        def forward(self, x):
            return self.last(self.first(x).relu()) * self.first.weight.mean()

    with pytest.raises(ValueError, match="'first.weight' is used in more than one place"):
        structured.shrink(Reads(None), GONE)


def test_channels_that_only_look_alike_are_not_joined():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.row = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
            self.out = nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.out(self.image(x) + self.row(x))  # adds channels to columns of pixels

    for name in ("image", "row"):
        with pytest.raises(ValueError, match=f"'{name}' cannot be removed: .*'add' joins it"):
            structured.shrink(Mixed(), {name: torch.arange(4) < 2})


def test_one_channel_that_is_added_to_many_is_not_one_of_them():
    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.many, self.one, self.out = (
                nn.Conv2d(2, 4, 1),
                nn.Conv2d(2, 1, 1),
                nn.Conv2d(4, 1, 1),
            )

        def forward(self, x):
            return self.out(self.many(x) + self.one(x))

    with pytest.raises(ValueError, match="'many' cannot be removed: .*'add' joins it with other"):
        structured.shrink(Broadcast(), {"many": torch.arange(4) < 2})


def test_constants_of_the_code_leave_no_trace_in_the_model():
    model = Uses(lambda m, y: y + torch.arange(6.0))
    before = set(vars(model))
    with pytest.raises(ValueError, match="'add' joins it"):
        structured.shrink(model, GONE)
    assert set(vars(model)) == before


def test_hooks_and_other_hidden_changes_are_refused():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    keep = {"0": torch.arange(6) < 3}
    hooked = copy.deepcopy(net)
    hooked[1].register_forward_hook(lambda m, i, o: o.flip(1))
    with pytest.raises(ValueError, match=r"module '1' \(ReLU\) has hooks"):
        structured.shrink(hooked, keep)
    patched = copy.deepcopy(net)
    patched[1].forward = lambda x: x.flip(1)
    with pytest.raises(ValueError, match="a replaced forward"):
        structured.shrink(patched, keep)
    with pytest.raises(ValueError, match="has hooks"):
        structured.shrink(masks.to_torch(net, masks.keep_all(net)), keep)
    spectral = nn.utils.parametrizations.spectral_norm(copy.deepcopy(net[0]))
    with pytest.raises(ValueError, match="'0'"):
        structured.shrink(nn.Sequential(spectral, nn.ReLU(), net[2]), keep)


def test_code_that_reads_sizes_or_data_is_refused():
    width = Uses(lambda m, y: y * m.first.out_features)
    with pytest.raises(ValueError, match="the code of Uses computes with the sizes of its layers"):
        structured.shrink(width, GONE)
    with pytest.raises(ValueError, match="Uses cannot be traced"):
        structured.shrink(Uses(lambda m, y: y if y.sum() > 0 else -y), GONE)


@pytest.mark.parametrize(
    ("layers", "name", "size", "says"),
    [
        (
            [nn.Conv2d(2, 4, 1), nn.Linear(5, 5), nn.Flatten(), nn.Linear(100, 1)],
            "0",
            4,
            "'1' reads",
        ),
        ([nn.Linear(2, 4), nn.Flatten(), nn.Linear(8, 1)], "0", 4, "'2' reads it along another"),
        ([nn.Linear(2, 4), nn.Conv1d(1, 2, 1), nn.Linear(4, 1)], "0", 4, "'1' reads it along"),
        ([nn.Linear(2, 4), nn.BatchNorm1d(3), nn.Linear(4, 1)], "0", 4, "'1' reads it along"),
        (
            [nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1)],
            "0",
            4,
            "in groups",
        ),
        ([nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 2, 1)], "0", 4, "ConvTranspose2d"),
        ([nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 1, 1)], "0", 4, "a depthwise convolution"),
        ([nn.Conv2d(2, 4, 1), nn.MaxPool2d(1, return_indices=True)], "0", 4, "MaxPool2d"),
        ([nn.Linear(2, 4), nn.ReLU()], "0", 4, "it is an output of the network"),
        (
            [nn.Linear(2, 4), nn.Linear(4, 1)],
            "7",
            4,
            r"'7'; layers whose outputs are followed are \['0', '1'\]",
        ),
    ],
)
def test_layers_that_cannot_be_cut_say_why(layers, name, size, says):
    with pytest.raises(ValueError, match=says):
        structured.shrink(nn.Sequential(*layers), {name: torch.arange(size) < 2})


@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        (torch.zeros(6).bool(), ValueError, "nothing would be left of layer 'first'"),
        (torch.ones(5).bool(), ValueError, r"has shape \(5,\), not \(6,\)"),
        (torch.ones(6), TypeError, "must be boolean"),
        ([True] * 6, TypeError, "must be a tensor, got list"),
    ],
)
def test_bad_masks_of_outputs_are_refused(mask, error, says):
    with pytest.raises(error, match=says):
        structured.shrink(Uses(lambda m, y: y.relu()), {"first": mask})


# --- scores of units, counts, bytes, times ---------------------------------------------------------


def test_unit_scores_are_sums_over_the_rows_of_coupled_layers():
    model = randomised(Residual())
    x, y = torch.randn(9, 2, 7, 7, dtype=torch.float64, generator=dice()), torch.arange(9) % 3
    value = functional.cross_entropy(model(x), y)
    for method, one, finish in (
        ("l1", lambda w, g: abs(w), lambda t: t),
        ("l2", lambda w, g: w * w, math.sqrt),
        ("taylor", lambda w, g: w * g, abs),
    ):
        found = structured.unit_scores(model, method, (x, y))
        assert list(found) == [group[0] for group in COUPLED]
        for group in COUPLED:
            weights = [model.get_submodule(name).weight for name in group]
            grads = torch.autograd.grad(value, weights, retain_graph=True)
            for unit in range(len(weights[0])):
                pairs = [
                    pair
                    for w, g in zip(weights, grads, strict=True)
                    for pair in torch.stack([w[unit], g[unit]]).reshape(2, -1).T.tolist()
                ]
                want = finish(sum(one(w, g) for w, g in pairs))
                assert float(found[group[0]][unit]) == pytest.approx(want, rel=1e-9, abs=1e-14)
    with pytest.raises(ValueError, match="method must be one of .* got 'l3'"):
        structured.unit_scores(model, "l3")
    with pytest.raises(ValueError, match="needs a batch"):
        structured.unit_scores(model, "taylor")


@given(
    SHAPES | st.just([0, 3]) | st.just([2, 0]),
    st.integers(0, 99),
    st.floats(0, 1),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_every_form_gives_the_weights_back_in_the_bytes_it_counts(shape, seed, share, dtype):
    g = dice(seed)
    weight = torch.randn(shape, generator=g, dtype=dtype) * (
        torch.rand(shape, generator=g) >= share
    )
    for form in structured.FORMS:
        content = structured.packed(weight, form)
        assert torch.equal(structured.unpacked(content, weight, form), weight)
    values, columns, starts = oracles.csr_parts(weight.reshape(shape[0], math.prod(shape[1:])))
    item = weight.element_size()
    assert len(structured.packed(weight, "csr")) == item * len(values) + 4 * (
        len(columns) + len(starts)
    )
    assert len(structured.packed(weight, "bitmask")) == item * len(values) + math.ceil(
        weight.numel() / 8
    )
    assert len(structured.packed(weight, "dense")) == item * weight.numel()


def test_stored_counts_biases_and_buffers_once_and_refuses_other_forms():
    model = randomised(Residual()).float()
    rest = sum(p.numel() * 4 for n, p in model.named_parameters() if n not in masks.prunable(model))
    rest += sum(b.numel() * b.element_size() for b in model.buffers())
    for form in ("dense", "csr", "bitmask"):
        weights = masks.prunable(model).values()
        want = rest + sum(len(structured.packed(w, form)) for w in weights)
        assert structured.stored(model, form) == want
    raw = b"".join(structured.packed(w, "dense") for w in masks.prunable(model).values())
    assert structured.stored(model, "gzip") == rest + len(gzip.compress(raw, 9, mtime=0))
    assert structured.stored(model) == structured.count(model).bytes
    for call in (structured.packed, lambda w, f: structured.unpacked(b"", w, f)):
        with pytest.raises(ValueError, match="form must be one of .* got 'zip'"):
            call(torch.ones(2, 2), "zip")
    with pytest.raises(ValueError, match="form must be one of .* got 'zip'"):
        structured.stored(nn.ReLU(), "zip")
    assert structured.stored(nn.ReLU(), "gzip") == 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1))
def test_the_sparse_product_is_the_dense_one(outputs, inputs, batch, share):
    g = dice(outputs)
    weight = torch.randn(outputs, inputs, generator=g, dtype=torch.float64)
    weight = weight * (torch.rand(weight.shape, generator=g) >= share)
    x = torch.randn(batch, inputs, generator=g, dtype=torch.float64)
    sparse = structured.csr(weight)
    torch.testing.assert_close(structured.sparse_product(sparse, x), x @ weight.T)
    values, columns, starts = oracles.csr_parts(weight)
    assert sparse.values().tolist() == values
    assert sparse.col_indices().tolist() == columns
    assert sparse.crow_indices().tolist() == starts
    with pytest.raises(ValueError, match=r"must have shape \(outputs, inputs\), got \(3,\)"):
        structured.csr(torch.ones(3))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1))
def test_blocked_products_store_blocks_and_equal_the_dense_one(rows, columns, block, share):
    g = dice(rows)
    alive = torch.rand(rows, columns, generator=g) >= share
    mask = alive.repeat_interleave(block, 0).repeat_interleave(block, 1)
    weight = torch.randn(mask.shape, generator=g, dtype=torch.float64) * mask
    x = torch.randn(3, columns * block, generator=g, dtype=torch.float64)
    sparse = structured.bsr(weight, block)
    assert len(sparse.values()) == int(alive.sum())
    torch.testing.assert_close(structured.sparse_product(sparse, x), x @ weight.T)
    with pytest.raises(ValueError, match="must be a matrix of 7x7 blocks"):
        structured.bsr(torch.ones(7, 8), 7)


def test_times_are_the_quickest_of_rounds_in_turn(monkeypatch):
    now, log = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    costs = {"a": iter([9, 1, 3, 1, 5, 2, 3]), "b": iter([9, 2, 4, 4, 2, 3, 2])}

    def work(name):
        log.append(name)
        now[0] += next(costs[name])

    found = structured.times({n: lambda n=n: work(n) for n in costs}, rounds=5)
    assert found == {"a": 1, "b": 2}
    assert log == ["a", "a", "b", "b", *["a", "b"] * 5]
    with pytest.raises(ValueError, match="rounds must be a whole number from 1, got 0"):
        structured.times({}, 0)


def test_break_even_is_the_last_crossing():
    assert structured.crossing([0.1, 0.5, 0.9], [2.0, 0.5, 2.0]) == 0.7
    assert structured.crossing([0.1, 0.5], [2.0, 3.0]) == 0.1
    assert structured.crossing([0.1, 0.5], [2.0, 0.5]) is None
    blocked = structured.break_even(20, 30, 4, (0.5, 0.9), block=5, rounds=1)
    assert len(blocked.speedup) == 2
    found = structured.break_even(20, 30, 4, (0.5, 0.9), rounds=1)
    assert found.sparsities == [0.5, 0.9]
    assert len(found.speedup) == 2
    assert all(ratio > 0 for ratio in found.speedup)
    for values in ([], [0.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="crossing needs a positive speedup for each sparsity"):
            structured.crossing([0.5], values)
    with pytest.raises(ValueError, match="block must divide outputs 5 and inputs 4, got 2"):
        structured.break_even(5, 4, 1, block=2)


def test_break_even_removes_the_share_it_says(monkeypatch):
    made = []
    monkeypatch.setattr(speed, "csr", lambda w: made.append(w) or w)
    structured.break_even(40, 50, 2, (0.0, 0.5, 1.0), rounds=1)
    assert [round(float((w == 0).double().mean()), 1) for w in made] == [0.0, 0.5, 1.0]


def test_latencies_are_of_evaluation_without_gradients_and_modes_come_back():
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    net = Looks(3, 2).train()
    assert structured.latencies({"net": net}, torch.ones(1, 3), rounds=1)["net"] > 0
    assert set(seen) == {(False, False)}
    assert net.training


def test_the_benchmark_runs_and_peers_give_the_same_weights():
    (case,) = suite.cases(True)
    rows = {row.competitor: row for row in bench.measure(case, quick=True)}
    assert rows["teachkit"].ratio == pytest.approx(1)
    peer = rows["Torch-Pruning"]
    assert peer.difference == 0 or "No module named 'torch_pruning'" in peer.note
    tables = suite.tables(True)
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
    assert {table.title.split(":")[0] for table in tables} == {
        "Where sparse formats break even",
        "One forward pass",
    }


@pytest.mark.parametrize("kind", structured.GRANULARITIES)
def test_kernels_are_drawn_for_every_granularity(kind):
    for sparsity in (0.0, 0.5, 0.9):
        picture = scenes.kernels(kind, sparsity)
        stay = int(picture.alt.rpartition(": ")[2].split(" of ")[0])
        assert stay == 108 if kind == "2:4" else abs(stay / 216 - (1 - sparsity)) <= 0.17


def test_the_tradeoff_is_a_mean_and_the_bound_picks_the_smallest():
    data, net = lab.data.digits().test, lab.models.mlp(hidden=(8,))
    small = structured.shrink(net, {"1": torch.arange(8) < 4})
    point = scenes.tradeoff([net, net], [net, small], data)
    one = structured.count(copy.deepcopy(small).float()).bytes
    whole = structured.count(copy.deepcopy(net).float()).bytes
    assert point.saved == pytest.approx((1 - one / whole) / 2)
    accuracy = [lab.evaluation.evaluate(n, data).accuracy for n in (net, small)]
    assert point.drop == pytest.approx((accuracy[0] - accuracy[1]) / 2)
    assert point.drop - point.low == pytest.approx(point.high - point.drop)
    found = [
        scenes.Point(s, d, d - 0.01, d + 0.01) for s, d in ((0.2, 0.0), (0.6, 0.01), (0.9, 0.2))
    ]
    points = {"a": found}
    for bound, best in ((0.5, 20), (1.0, 60), (20, 90), (-1, 0)):
        assert f"each saves: a {best} %." in scenes.size_accuracy(points, bound).alt


def test_magnitudes_join_groups():
    scores = magnitude.scores(lab.models.mlp(hidden=(8, 6)))
    with pytest.raises(ValueError, match="scope 'global', nothing is left of '1.weight'"):
        structured.group_masks(scores, 0.5, "row", "global")
    kept = structured.group_masks(scores, 0.5, "row", "global", on_empty="keep")
    assert bool(kept["1.weight"].any())
    assert masks.sparsity({n: m.any(1) for n, m in kept.items()}) == 0.5
