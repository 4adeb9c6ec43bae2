"""Real removal: what shrinks to what, what is coupled, and what is refused."""

import copy
from typing import NamedTuple

import oracles
import pytest
import torch
from coupled_networks import COUPLED, Residual, chain, dice, randomised, some
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

from teachkit import lab, masks, structured
from teachkit.core.layers import KINDS
from teachkit.engine.shrinking import coupled, shrink, silence
from teachkit.engine.tracing import trace


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_random_chains_shrink_to_what_is_rebuilt_by_hand(seed, share):
    g = dice(seed)
    model, x = chain(g)
    model = randomised(model, seed)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    groups = coupled(model)
    wide = [n for n, m in model.named_children() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert groups == [(name,) for name in wide[:-1]]
    keep = {n: some(len(model.get_submodule(n).weight), share, g) for (n,) in groups}
    small = shrink(model, keep)
    want = structured.shrink_chain(model, x, keep).eval()
    assert list(small.state_dict()) == list(want.state_dict())
    for key, tensor in want.state_dict().items():
        assert torch.equal(small.state_dict()[key], tensor), key
    exact = small(x)
    torch.testing.assert_close(silence(model, keep)(x), exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(want(x), exact, rtol=1e-10, atol=1e-10)
    assert structured.predict(model, keep) == structured.count(small)
    assert repr(small) == repr(want)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_residual_networks_shrink_to_their_knocked_out_selves(seed, share):
    g = dice(seed)
    widths = torch.randint(2, 7, (3,), generator=g).tolist()
    model = randomised(Residual(*widths), seed)
    x = torch.randn(2, 2, 7, 7, generator=g, dtype=torch.float64)
    assert coupled(model) == COUPLED
    keep = {
        group[0]: some(len(model.get_submodule(group[0]).weight), share, g) for group in COUPLED
    }
    modules = {"stem": ("norm", "norm_b"), "a": ("norm_a", "deep"), "c": ("c", "project")}
    hooked = {m: keep[name] for name, group in modules.items() for m in group} | {"fc": keep["fc"]}
    want = oracles.knocked_out(copy.deepcopy(model), x, hooked)
    small = shrink(model, keep)
    torch.testing.assert_close(small(x), want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(silence(model, keep)(x), want, rtol=1e-10, atol=1e-10)
    assert structured.predict(model, keep) == structured.count(small)
    assert type(small) is Residual
    both = shrink(model, keep | {"b": keep["stem"]})
    assert torch.equal(both(x), small(x))


def test_coupled_layers_must_agree():
    model = randomised(Residual())
    first, second = torch.tensor([True] * 4 + [False]), torch.tensor([False] + [True] * 4)
    for keep in ({"stem": first, "b": second}, {"stem": first, "b": torch.ones(5).bool()}):
        with pytest.raises(ValueError, match="layers 'stem' and 'b' are coupled"):
            shrink(model, keep)


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
    small = shrink(model, {"loop": mask})
    assert small.loop.weight.shape == (2, 2)
    want = oracles.knocked_out(copy.deepcopy(model), x, {"first": mask, "loop": mask})
    torch.testing.assert_close(small(x), want)


def test_a_sigmoid_says_a_half_until_nobody_listens():
    model = randomised(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1)))
    x = torch.randn(4, 2, dtype=torch.float64, generator=dice())
    keep = {"0": torch.tensor([True, False, True])}
    small = shrink(model, keep)(x)
    torch.testing.assert_close(silence(model, keep)(x), small, rtol=0, atol=1e-12)
    rows_only = copy.deepcopy(model)
    rows_only[0].weight.data[1] = rows_only[0].bias.data[1] = 0
    gap = rows_only(x) - small
    torch.testing.assert_close(gap, (0.5 * model[2].weight[0, 1]).expand_as(gap))


def test_silence_zeroes_all_that_a_unit_owns_and_nothing_else():
    model = randomised(Residual())
    keep = {"stem": torch.tensor([True, False, True, True, False]), "fc": torch.arange(7) < 3}
    gone, off = ~keep["stem"], ~keep["fc"]
    masked = silence(model, keep)
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
    small = shrink(model, {"fc": torch.arange(7) < 3})
    assert small.training
    assert not small.fc.weight.requires_grad
    assert small.fc.weight.dtype == model.fc.weight.dtype
    small.stem.weight.data.zero_()
    small.fc.weight.data.zero_()
    small.out.bias.data.fill_(7)  # only columns of this layer were cut
    assert bool((model.out.bias != 7).all())
    assert model.stem.weight.abs().sum() > 0
    assert model.fc.weight.abs().sum() > 0
    whole = shrink(model, {"fc": torch.ones(7).bool()})
    assert structured.count(whole) == structured.count(model)


def test_the_graph_of_a_chain_is_the_one_torch_traces():
    for make in lab.models.MODELS.values():
        model = make((1, 8, 8))
        ours, theirs = trace(model), fx.Tracer().trace(model)
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
    small = shrink(model, keep)
    batch = tuple(part[:20] for part in lab.data.digits().train)
    batch = (batch[0].to(next(model.parameters()).dtype), batch[1])
    trained, _ = lab.training.fit(small, batch, epochs=1, progress=False)
    assert structured.count(trained) == structured.count(small) == structured.predict(model, keep)


class Pairing(NamedTuple):
    """An output with names."""

    one: torch.Tensor
    other: torch.Tensor


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


EQUAL = {
    "view": ((3, 4), lambda m, y: y.view(y.size(0), -1)),
    "transpose": ((3, 4), lambda m, y: y.t().t()),
    "cat of words": ((3, 2, 4), lambda m, y: torch.cat([y, y.relu()], 1)),
    "parameter": ((3, 4), lambda m, y: y * m.scale),
    "flatten to 1": ((3, 4), lambda m, y: y.flatten(1, 1)),
    "own weight": ((3, 4), lambda m, y: y + m.first.weight.sum()),
    "group norm": ((3, 4), lambda m, y: functional.relu(m.parts[0](y))),
    "sizes of a layer": ((3, 4), lambda m, y: y.view(-1, m.first.weight.shape[0])),
}
REFUSED = {
    "softmax": ("'softmax' is not understood", lambda m, y: y.softmax(1)),
    "reshape": ("'reshape' is not understood", lambda m, y: y.reshape(-1, 6)),
    "index": ("'getitem' is not understood", lambda m, y: y[:, torch.arange(6)]),
    "flatten from 0": ("'reshape' is not understood", lambda m, y: y.flatten(0).reshape(-1, 6)),
    "own weight": ("'mean' is not understood", lambda m, y: y * m.first.weight.mean()),
    "functional": (
        "'linear' is not understood",
        lambda m, y: functional.linear(y, m.last.weight.T),
    ),
}


PARTS = {
    "layer norm": (nn.LayerNorm(6), r"'parts.0' \(LayerNorm\) is not understood"),
    "group norm": (nn.GroupNorm(1, 6), r"\(GroupNorm\) is not understood"),
    "group norm in threes": (nn.GroupNorm(3, 6), "'first' are coupled to each other"),
    "softmax module": (nn.Softmax(1), r"\(Softmax\) is not understood"),
    "pooling over units": (nn.AvgPool1d(1), r"\(AvgPool1d\) is not understood there"),
    "two-parameter norm": (nn.BatchNorm1d(3), "'parts.0' reads it along another dimension"),
    "unflatten": (nn.Unflatten(-1, (2, 3)), r"\(Unflatten\) is not understood: the code says"),
}


GONE = {"first": torch.arange(6) < 3}


@pytest.mark.parametrize("case", EQUAL)
def test_what_moves_units_lets_them_go(case):
    shape, way = EQUAL[case]
    model = randomised(Uses(way, nn.GroupNorm(2, 6)))
    x = torch.randn(shape, dtype=torch.float64, generator=dice())
    small = shrink(model, GONE)
    assert small.first.weight.shape == (3, 4)
    torch.testing.assert_close(small(x), silence(model, GONE)(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_named(case):
    says, way = REFUSED[case]
    with pytest.raises(ValueError, match=f"outputs of layer 'first' cannot be removed: .*{says}"):
        shrink(Uses(way), GONE)
    with pytest.raises(ValueError, match=says):
        silence(Uses(way), GONE)
    assert coupled(Uses(way)) == []
    whole = shrink(Uses(way), {"first": torch.ones(6).bool()})
    assert structured.count(whole) == structured.count(Uses(way))


@pytest.mark.parametrize("case", PARTS)
def test_modules_that_are_not_understood_are_named(case):
    part, says = PARTS[case]
    with pytest.raises(ValueError, match=says):
        shrink(Uses(lambda m, y: m.parts[0](y), part), GONE)


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
        shrink(nn.Sequential(conv(2, 4, 1), pool, conv(4, 1, 1)), keep)


def test_a_pooling_call_over_channels_is_refused():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 1, 1)

        def forward(self, x):
            return self.b(functional.max_pool2d(self.a(x), 3, 1, 1))

    with pytest.raises(ValueError, match="'a' cannot be removed: .* is not understood"):
        shrink(Calls(), {"a": torch.arange(4) < 2})
    rows = Uses(lambda m, y: functional.avg_pool1d(y, 1))
    with pytest.raises(ValueError, match="is not understood"):
        shrink(rows, GONE)


def test_one_activation_may_stand_in_many_places():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    assert coupled(net) == [("0",), ("2",)]
    keep = {"0": torch.arange(4) < 3, "2": torch.arange(4) > 1}
    x = torch.randn(5, 3, generator=dice(1))
    small = shrink(net, keep)
    torch.testing.assert_close(small(x), silence(net, keep)(x))
    assert structured.count(small).parameters == 3 * 4 + 2 * 4 + 2 * 3
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="reads it together with an input"):
        shrink(nn.Sequential(layer, relu, layer, nn.Linear(4, 2)), {"0": torch.arange(4) < 3})


def equal(net, keep, *inputs):
    """Check the smaller network, in float64, and return it."""
    net = randomised(net)
    small = shrink(net, keep)
    torch.testing.assert_close(small(*inputs), silence(net, keep)(*inputs), rtol=0, atol=1e-10)
    return small


def test_statistics_that_two_normalisations_share_couple_them():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    net[3].running_mean = net[1].running_mean
    net.append(nn.Linear(4, 1))
    assert coupled(net) == [("0", "2")]
    x = torch.randn(5, 3, dtype=torch.float64, generator=dice())
    small = equal(net, {"0": torch.arange(4) < 3}, x)
    assert small[3].running_mean is small[1].running_mean
    assert small[3].num_features == 3


def test_looking_at_a_network_leaves_it_as_it_is():
    class Keeps(Uses):
        def forward(self, x):
            self.seen = self.first(x).relu()
            return self.last(self.seen)

    net = Keeps(None)
    net.seen, net.parts.noted = None, None
    net.train()
    small = shrink(net, GONE)
    assert net.seen is None
    assert net.training
    copy.deepcopy(net)
    assert small(torch.ones(2, 4)).shape == (2, 2)


def test_code_for_evaluation_is_what_is_followed():
    class Head(Uses):
        def forward(self, x):
            y = self.first(x).relu()
            return self.last(y.softmax(1) if self.training else y)

    assert coupled(Head(None).train()) == [("first",)]


def test_a_single_slope_cuts_nothing_from_itself():
    net = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2))
    small = shrink(net, {"0": torch.arange(4) < 2})
    assert small[1].weight.shape == (1,)
    x = torch.randn(5, 3, generator=dice(2))
    torch.testing.assert_close(small(x), silence(net, {"0": torch.arange(4) < 2})(x))


def test_a_layer_called_twice_makes_and_reads_the_same_units():
    x = torch.randn(5, 4, dtype=torch.float64, generator=dice())
    twice = Uses(lambda m, y: m.parts[0](m.parts[0](y)), nn.Linear(6, 6))
    assert coupled(twice) == [("first", "parts.0")]
    assert equal(twice, {"parts.0": torch.arange(6) < 3}, x).parts[0].weight.shape == (3, 3)
    norm = Uses(lambda m, y: m.parts[0](m.parts[0](y)), nn.BatchNorm1d(6))
    equal(norm, GONE, x)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 1))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="'0' cannot be removed: .* together with an input"):
        shrink(tied, {"0": torch.arange(3) < 2})


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
            shrink(Mixed(), {name: torch.arange(4) < 2})


def test_one_channel_that_is_added_to_many_stays():
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

    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=dice())
    assert coupled(Broadcast()) == [("many",)]
    assert equal(Broadcast(), {"many": torch.arange(4) < 2}, x).many.out_channels == 2


def test_constants_of_the_code_leave_no_trace_in_the_model():
    model = Uses(lambda m, y: y + torch.arange(6.0))
    before = set(vars(model))
    with pytest.raises(ValueError, match="'add' joins it"):
        shrink(model, GONE)
    assert set(vars(model)) == before


def test_hooks_and_other_hidden_changes_are_refused():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    keep = {"0": torch.arange(6) < 3}
    hooked = copy.deepcopy(net)
    hooked[1].register_forward_hook(lambda m, i, o: o.flip(1))
    with pytest.raises(ValueError, match=r"module '1' \(ReLU\) has hooks"):
        shrink(hooked, keep)
    patched = copy.deepcopy(net)
    patched[1].forward = lambda x: x.flip(1)
    with pytest.raises(ValueError, match="a replaced forward"):
        shrink(patched, keep)
    with pytest.raises(ValueError, match="has hooks"):
        shrink(masks.to_torch(net, masks.keep_all(net)), keep)
    spectral = nn.utils.parametrizations.spectral_norm(copy.deepcopy(net[0]))
    with pytest.raises(ValueError, match="'0'"):
        shrink(nn.Sequential(spectral, nn.ReLU(), net[2]), keep)


def test_code_that_reads_sizes_or_data_is_refused():
    width = Uses(lambda m, y: y * m.first.out_features)
    with pytest.raises(ValueError, match="the code of Uses computes with the sizes of its layers"):
        shrink(width, GONE)
    with pytest.raises(ValueError, match="Uses cannot be traced"):
        shrink(Uses(lambda m, y: y if y.sum() > 0 else -y), GONE)


@pytest.mark.parametrize(
    ("layers", "name", "size", "says"),
    [
        (
            [nn.Conv2d(2, 4, 1), nn.Linear(5, 5), nn.Flatten(), nn.Linear(100, 1)],
            "0",
            4,
            r"'2' \(Flatten\) is not understood: it merges it with other channels",
        ),
        ([nn.Linear(2, 4), nn.Conv1d(1, 2, 1), nn.Linear(4, 1)], "0", 4, r"'1' \(Conv1d\)"),
        ([nn.Linear(2, 4), nn.BatchNorm1d(3), nn.Linear(4, 1)], "0", 4, "'1' reads it along"),
        (
            [nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1)],
            "0",
            4,
            "'0' are coupled to each other",
        ),
        ([nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 1, 1)], "0", 4, "a convolution in groups"),
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
        shrink(nn.Sequential(*layers), {name: torch.arange(size) < 2})


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
        shrink(Uses(lambda m, y: y.relu()), {"first": mask})


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

# --- without numbers, and on other devices ---------------------------------------------------------


@pytest.mark.parametrize("make", [Residual, lab.models.vgg_like, lab.models.lenet5])
def test_a_network_on_the_meta_device_shrinks_to_the_same_shapes(make):
    real = make() if make is Residual else make((1, 28, 28))
    keep = {
        names[0]: torch.arange(len(real.get_submodule(names[0]).weight)) % 2 == 0
        for names in coupled(real)
    }
    want, meta = shrink(real, keep), copy.deepcopy(real).to("meta")
    small = shrink(meta, keep)
    assert coupled(meta) == coupled(real)
    assert all(t.is_meta for t in small.state_dict().values())
    shapes = {name: t.shape for name, t in want.state_dict().items()}
    assert {name: t.shape for name, t in small.state_dict().items()} == shapes
    assert structured.predict(meta, keep) == structured.count(small) == structured.count(want)
    assert structured.count(silence(meta, keep)) == structured.count(real)
    with pytest.raises(ValueError, match="nothing would be left of layer"):
        shrink(meta, {name: ~mask & mask for name, mask in keep.items()})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masks_on", DEVICES)
def test_masks_and_networks_may_lie_on_different_devices(device, masks_on):
    model = randomised(Residual())
    x = torch.randn(2, 2, 7, 7, dtype=torch.float64, generator=dice())
    keep = {"stem": torch.arange(5) > 1, "fc": torch.arange(7) < 3}
    want, there = shrink(model, keep)(x), copy.deepcopy(model).to(device)
    given_there = {name: mask.to(masks_on) for name, mask in keep.items()}
    for way in (shrink, silence):
        torch.testing.assert_close(way(there, given_there)(x.to(device)).cpu(), want)
    half = structured.keep_groups(structured.unit_scores(there), 0.5)
    assert all(mask.device.type == device for mask in half.values())
    assert structured.count(shrink(there, half)) == structured.predict(there, half)


def test_every_kind_that_computes_number_by_number_lets_channels_through():
    """Every module of the table that is a function of single numbers; in evaluation mode exactly."""
    x = torch.randn(4, 3, dtype=torch.float64, generator=dice())
    keep = {"0": torch.tensor([True, False, True, True])}
    for kind, does in KINDS.items():
        if does.role in ("pointwise", "nothing"):
            net = randomised(nn.Sequential(nn.Linear(3, 4), kind(), nn.Linear(4, 2)))
            small, masked = shrink(net, keep), silence(net, keep)
            assert small[0].out_features == 3
            torch.testing.assert_close(small(x), masked(x))


def test_an_empty_part_of_a_chain_changes_nothing():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(), nn.Sequential(nn.Tanh()), nn.Linear(4, 2))
    assert coupled(net) == [("0",)]
    assert shrink(net, {"0": torch.arange(4) < 1})[3].in_features == 1


# --- inputs that are given ---------------------------------------------------------------------


def test_an_input_says_how_many_dimensions_there_are():
    net = randomised(Uses(lambda m, y: y.view(y.size(0), y.size(1), 2, -1).flatten(2)))
    keep = {"first": torch.tensor([True, False, True] * 2)}
    with pytest.raises(ValueError, match="not known: give it as x"):
        shrink(net, keep)
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=dice())
    small = shrink(net, keep, x)
    torch.testing.assert_close(small(x), silence(net, keep, x)(x))
    assert structured.predict(net, keep, x) == structured.count(small)
    with pytest.raises(ValueError, match="'first' are coupled to each other"):
        shrink(net, GONE, x)


@pytest.mark.parametrize("x", [torch.ones(2, 5), torch.ones(2, 4, dtype=torch.long), ()])
def test_an_input_that_does_not_fit_is_refused(x):
    with pytest.raises(ValueError, match="Uses does not run on x"):
        shrink(Uses(lambda m, y: y.relu()), GONE, x)


def test_a_tensor_made_of_a_size_is_refused():
    width = Uses(lambda m, y: y * torch.tensor(float(m.first.out_features)))
    with pytest.raises(ValueError, match="'first' cannot be removed: .* joins it with"):
        shrink(width, GONE)
    with pytest.raises(ValueError, match="computes with the sizes of its layers"):
        shrink(width, GONE, torch.ones(2, 4))


def test_what_a_sum_of_exponentials_says_of_zeros_is_not_zero():
    def way(m, y):
        places = torch.stack([y, y], 1).logsumexp(1)
        return m.parts[0](places.sum(-1, keepdim=True))

    with pytest.raises(ValueError, match="'sum' is not understood over it"):
        shrink(Uses(way, nn.Linear(1, 6)), GONE, torch.ones(2, 4))


def test_attention_after_an_input_keeps_its_dimensions():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.b(torch.cat([self.a(self.attention(x, x, x)[0])] * 2, 1))

    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=dice())
    equal(Words(), {"a": torch.arange(6) < 3}, x)


def test_outputs_in_any_nest_stay():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.a(x)
            return {"deep": ([Pairing(y, self.b(y))],)}

    with pytest.raises(ValueError, match="'Pairing' is not understood"):
        shrink(Named(), {"a": torch.arange(4) < 2})


def test_each_way_through_optional_inputs_counts():
    class Maybe(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, y=None):
            z = self.a(x)
            return self.b(z if y is None else (z + y).softmax(-1))

    x, y = torch.ones(2, 3), torch.ones(2, 1)
    for given_x in (None, x, (x, y)):
        with pytest.raises(ValueError, match="'a' cannot be removed"):
            shrink(Maybe(), {"a": torch.arange(4) < 2}, given_x)
