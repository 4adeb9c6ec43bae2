"""Whatever a network does with its weights: the number that autograd gives, or an error by name."""

import contextlib
import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import (
    ODD,
    REFUSED,
    Odd,
    attention,
    attention_of_other_widths,
    bound_forward,
    called_and_read,
    closed_over,
    closed_over_hook,
    convolution_read,
    counting,
    encoder,
    gradient,
    hessian,
    measure,
    read_while_idle,
    single_gradients,
    subclass,
    tied,
    two_names,
)
from torch import nn
from torch.func import grad, jacrev, vmap
from torch.nn.functional import cross_entropy

from teachkit import fisher, lab, magnitude, masks, obd, obs, paradox, structured, taylor
from teachkit import hessian as hessians
from teachkit.core.layers import UncoveredError
from teachkit.core.objective import objective
from teachkit.engine.grams import layer_grams, wanda_scores

SAID = (ValueError, TypeError)  # UncoveredError is a ValueError


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors.values()])


def made(build, width, act, seed):
    """A random network of the kind, in training mode, and a batch."""
    torch.manual_seed(seed)
    net = build(width, act).double()
    return net, (torch.randn(4, 4).double(), torch.tensor([0, 1, 2, 1]))


class Truth:
    """What autograd says of a network's weights."""

    def __init__(self, net, batch):
        self.net, self.batch = net, batch
        net.eval()
        names = masks.prunable(net)
        self.weights = list(names.values())
        self.w = flat(names)
        self.g = torch.cat(
            [g.reshape(-1) for g in gradient(net, self.weights, batch, cross_entropy)]
        )
        self.H = hessian(net, self.weights, batch, cross_entropy)
        net.train()

    @property
    def rows(self):
        G = single_gradients(self.net.eval(), self.weights, self.batch, cross_entropy)
        torch.testing.assert_close(G.mean(0), self.g)  # the samples do not mix
        return G

    def row_sums(self):
        parts, at = [], 0
        for w in self.weights:
            end = at + w.numel()
            parts.append(self.H[at:end, at:end].sum(1))
            at = end
        return torch.cat(parts)

    def change(self):
        return -self.g * self.w + 0.5 * self.H.diagonal() * self.w**2


PREDICTED = {
    "obd.diagonal": (lambda n, b: flat(obd.diagonal(n, b)), lambda t: t.H.diagonal()),
    "obd.by_products": (lambda n, b: flat(obd.by_products(n, b)), lambda t: t.H.diagonal()),
    "obd.diagonal_naive": (lambda n, b: flat(obd.diagonal_naive(n, b)), lambda t: t.H.diagonal()),
    "obd.row_sums": (lambda n, b: flat(obd.row_sums(n, b)), Truth.row_sums),
    "obd.per_sample, gradient": (
        lambda n, b: flat(obd.per_sample(n, b).gradient.mean),
        lambda t: t.g,
    ),
    "obd.per_sample, curvature": (
        lambda n, b: flat(obd.per_sample(n, b).curvature.mean),
        lambda t: t.H.diagonal(),
    ),
    "obs.curvature": (lambda n, b: obs.curvature(n, b), lambda t: t.H),
    "obs.curvature, fisher": (
        lambda n, b: obs.curvature(n, b, kind="fisher"),
        lambda t: t.rows.T @ t.rows / len(t.rows),
    ),
    "hessian.of_model": (
        lambda n, b: hessians.of_model(n, b, names=list(masks.prunable(n))),
        lambda t: t.H,
    ),
    "taylor.gradient": (
        lambda n, b: (lambda g: torch.cat([g[k].reshape(-1) for k in masks.prunable(n)]))(
            taylor.gradient(n, b)
        ),
        lambda t: t.g,
    ),
    "fisher.gradients": (lambda n, b: fisher.gradients(n, b), lambda t: t.rows),
    "fisher.diagonal": (lambda n, b: flat(fisher.diagonal(n, b)), lambda t: (t.rows**2).mean(0)),
    "fisher.blocks": (
        lambda n, b: fisher.blocks(n, b, block=1).reshape(-1),
        lambda t: (t.rows**2).mean(0),
    ),
    "paradox.changes": (lambda n, b: flat(paradox.changes(n, b).mean), Truth.change),
    "paradox.first_order": (lambda n, b: flat(paradox.first_order(n, b)), lambda t: -t.g * t.w),
    "paradox.second_order": (lambda n, b: flat(paradox.second_order(n, b)), Truth.change),
}
odd = st.tuples(
    st.sampled_from(ODD),
    st.integers(1, 3),
    st.sampled_from((nn.ReLU, nn.Tanh, nn.SiLU)),
    st.integers(0, 10**6),
)


@settings(max_examples=60)
@given(odd, st.data())
def test_every_number_is_that_of_autograd_or_an_error_by_name(network, data):
    net, batch = made(*network)
    name = data.draw(st.sampled_from(sorted(PREDICTED)))
    function, truth = PREDICTED[name]
    try:
        said = function(net, batch)
    except SAID:
        return
    expected = truth(Truth(net, batch))
    torch.testing.assert_close(said.to(expected), expected, rtol=1e-7, atol=1e-9)


def recorded_gradient(net, batch):
    """Σ over the calls of a layer of δᵀa, by weight: the gradient, if calls are all that reads it."""
    names = {id(w): name for name, w in masks.prunable(net).items()}
    total = {name: torch.zeros_like(w).flatten(1) for name, w in masks.prunable(net).items()}
    calls, hooks = [], []

    def keep(layer, given, z):
        if z.requires_grad:
            z.retain_grad()
        calls.append((layer, given[0].detach(), z))

    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            hooks.append(layer.register_forward_hook(keep, prepend=True))
    value = measure(net, batch, cross_entropy)
    if value.requires_grad:
        value.backward()
    for hook in hooks:
        hook.remove()
    grams = {}
    for layer, a, z in calls:
        if id(layer.weight) not in names:
            continue
        name = names[id(layer.weight)]
        rows = a.reshape(-1, a.shape[-1]) if isinstance(layer, nn.Linear) else a.flatten(1)
        grams[name] = grams.get(name, 0) + rows.T @ rows
        if z.grad is not None:
            delta = (
                z.grad.reshape(-1, z.shape[-1])
                if isinstance(layer, nn.Linear)
                else z.grad.flatten(1)
            )
            total[name] += delta.T @ rows
    net.zero_grad()
    return total, grams


SEEN = {
    "layer_grams": lambda n, b: layer_grams(n, b[0]),
    "wanda": wanda_scores,
    "operations": lambda n, b: masks.operations(n, b[0]),
    "prune_layers, row": lambda n, b: obs.prune_layers(n, b, 0.5, scope="row"),
    "prune_layers, layer": lambda n, b: obs.prune_layers(n, b, 0.5),
    "prune_layers, global": lambda n, b: obs.prune_layers(n, b, 0.5, scope="global"),
    "prune_layers, pass": lambda n, b: obs.prune_layers(n, b, 0.5, method="pass"),
    "refit_layers": lambda n, b: obs.refit_layers(n, b, masks.keep_all(n)),
}


@settings(max_examples=60)
@given(odd, st.sampled_from(sorted(SEEN)))
def test_what_recorders_accept_is_read_by_calls_of_its_layers_alone(network, name):
    net, batch = made(*network)
    try:
        said = SEEN[name](net, batch)
    except SAID:
        return
    net.eval()
    weights = masks.prunable(net)
    true = gradient(net, list(weights.values()), batch, cross_entropy)
    seen, grams = recorded_gradient(net, batch)
    if network[0].__name__ != "backward_hooked":
        for (key, _), g in zip(weights.items(), true, strict=True):
            torch.testing.assert_close(seen[key], g.flatten(1), rtol=1e-7, atol=1e-9)
    if name == "layer_grams":
        for key, H in grams.items():
            torch.testing.assert_close(said[key].sum(0), H)


def zeroed(net, kept, x):
    """What the network itself puts out while its own weights are zero where the masks say so."""
    weights = masks.prunable(net)
    before = {name: w.detach().clone() for name, w in weights.items()}
    for name, mask in kept.items():
        weights[name].data.mul_(mask)
    with torch.no_grad():
        out = measure(net.eval(), (x, None), lambda z, _: z)
    for name, w in weights.items():
        w.data.copy_(before[name])
    return out


MASKED = {
    "masks.apply": lambda n, b, kept: masks.apply(n, kept),
    "torch and back": lambda n, b, kept: masks.apply(*masks.from_torch(masks.to_torch(n, kept))),
    "taylor.actual_change": lambda n, b, kept: taylor.actual_change(n, b, masks.change(n, kept)),
    "structured.shrink": lambda n, b, kept: structured.shrink(n, kept),
}


@settings(max_examples=60)
@given(odd, st.sampled_from(sorted(MASKED)), st.sampled_from((0.3, 0.8)))
def test_a_pruned_copy_is_the_network_with_those_weights_zero(network, name, sparsity):
    net, batch = made(*network)
    kept = masks.keep_top(magnitude.scores(net), sparsity)
    before = copy.deepcopy(net.state_dict())
    try:
        pruned = MASKED[name](net, batch, kept)
    except SAID:
        return
    finally:
        assert all(torch.equal(t, before[key]) for key, t in net.state_dict().items())
    want = zeroed(net, kept, batch[0])
    if isinstance(pruned, float):
        with torch.no_grad():
            rise = cross_entropy(want, batch[1]) - measure(net, batch, cross_entropy)
        assert pruned == pytest.approx(float(rise), abs=1e-9)
    else:
        with torch.no_grad():
            torch.testing.assert_close(pruned.eval()(batch[0]), want)


@pytest.mark.parametrize("build", [*ODD, *REFUSED])
def test_no_network_changes_and_no_error_is_raw(build):
    net, batch = made(build, 2, nn.Tanh, 0)
    before = {name: t.detach().clone() for name, t in net.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    for function in (*(f for f, _ in PREDICTED.values()), *SEEN.values()):
        with contextlib.suppress(*SAID):
            function(net, batch)
        assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
        assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
        assert net.training


@pytest.mark.parametrize("build", REFUSED)
def test_weights_that_are_no_parameters_are_refused_by_name(build):
    net, _ = made(build, 2, nn.Tanh, 0)
    with pytest.raises(ValueError, match="is computed from|is a script"):
        masks.prunable(net)


@pytest.mark.parametrize("build", [closed_over, closed_over_hook])
def test_a_function_that_has_closed_over_the_model_is_refused_by_every_copy(build):
    net, _ = made(build, 2, nn.Tanh, 0)
    for call in (
        lambda: masks.apply(net, masks.keep_all(net)),
        lambda: masks.to_torch(net, masks.keep_all(net)),
        lambda: taylor.gradient(net, (torch.zeros(2, 4).double(), torch.zeros(2).long())),
    ):
        with pytest.raises(ValueError, match="has closed over a part of the model"):
            call()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (attention, "'mha.in_proj_weight' is read without a call of its layer"),
        (convolution_read, "'a.weight' is read without a call of its layer"),
        (called_and_read, "'a.weight' is read without a call of its layer"),
        (read_while_idle, "'never.weight' is read without a call of its layer"),
        (subclass, "layer '0' is not covered: Scaled has a forward of its own"),
        (bound_forward, "layer '0' is not covered: Linear has a replaced forward"),
    ],
)
def test_what_no_recorder_sees_is_refused_by_name(build, says):
    net, batch = made(build, 2, nn.Tanh, 0)
    for function in SEEN.values():
        with pytest.raises(UncoveredError, match=says):
            function(net, batch)


def test_projections_of_attention_are_prunable_and_survive_the_way_to_torch_and_back():
    for build in (attention, attention_of_other_widths, encoder):
        net, _ = made(build, 2, nn.Tanh, 0)
        kept = masks.keep_top(magnitude.scores(net), 0.5)
        assert any("proj_weight" in name for name in kept)
        plain, back = masks.from_torch(masks.to_torch(net, kept))
        assert [name for name, _ in plain.named_parameters()] == [
            n for n, _ in net.named_parameters()
        ]
        assert all(torch.equal(kept[name], back[name]) for name in kept)
        assert list(back) == list(kept)


def test_layers_that_share_a_weight_share_its_mask_on_the_way_back():
    net, batch = made(tied, 2, nn.Tanh, 0)
    kept = masks.keep_top(magnitude.scores(net), 0.5)
    plain, back = masks.from_torch(masks.to_torch(net, kept))
    assert list(back) == list(kept)
    assert plain.a.weight is plain.b.weight
    data = lab.data.Data(batch, batch)
    fitted, _ = lab.training.fit(
        masks.apply(plain, back), data, epochs=1, masks=back, progress=False
    )
    assert not fitted.b.weight[~kept["a.weight"]].any()
    carrying = masks.to_torch(net, kept)
    carrying.b.weight_mask.logical_not_()
    with pytest.raises(ValueError, match=r"'a.weight' and 'b.weight' are one parameter with two"):
        masks.from_torch(carrying)


def test_modules_under_two_names_leave_the_objective_as_it_was():
    net, batch = made(two_names, 2, nn.Tanh, 0)
    value, params = objective(net, batch)
    before = float(value({}))
    for name, p in params.items():
        vmap(jacrev(grad(lambda w, name=name: value({name: w}))))(torch.stack([p, 2 * p]))
    assert float(value({})) == before
    assert float(value(params)) == pytest.approx(before)


def test_buffers_that_a_pass_writes_are_given_back():
    net, (x, y) = made(counting, 2, nn.Tanh, 0)
    net(x)  # the buffer carries a graph now
    before = net.seen.detach().clone()
    obd.diagonal(net, (x, y))
    masks.operations(net, x)
    assert torch.equal(net.seen, before)


@settings(max_examples=20)
@given(
    st.sampled_from((nn.SELU, nn.SiLU, nn.ELU, nn.CELU, nn.Hardswish, nn.ReLU6, nn.Softsign)),
    st.integers(1, 5),
    st.integers(0, 10**6),
)
def test_residual_sums_of_smooth_and_kinked_activations_take_the_exact_fast_way(act, width, seed):
    def forward(net, x):
        h = net.act(net.a(x))
        return net.c(h + net.act2(net.b(h)))

    layers = {"a": nn.Linear(4, width), "b": nn.Linear(width, width), "c": nn.Linear(width, 3)}
    net, batch = made(lambda *_: Odd(forward, act=act(), act2=act(), **layers), width, act, seed)
    h, truth = obd.diagonal(net, batch), Truth(net, batch)
    assert h.method == "backward"
    torch.testing.assert_close(flat(h), truth.H.diagonal(), rtol=1e-9, atol=1e-11)


def held_lambda():
    net = Odd(lambda net, x: net.head(x), a=nn.Linear(4, 3, bias=False))
    net.head = lambda x: nn.functional.linear(x, net.a.weight)
    return net


def closed_over_twice():
    net = nn.Sequential(nn.Linear(4, 3, bias=False))
    inner = lambda x: nn.functional.linear(x, net[0].weight)  # noqa: E731
    net.forward = lambda x: inner(x)
    return net


def closed_over_in_a_partial():
    net = nn.Sequential(nn.Linear(4, 3, bias=False))
    net.forward = functools.partial(lambda _, x: nn.functional.linear(x, net[0].weight), 1)
    return net


def closed_over_data():
    net = nn.Sequential(nn.Linear(4, 3, bias=False))
    w = net[0].weight.data
    net.forward = lambda x: nn.functional.linear(x, w)
    return net


def held_view():
    net = Odd(
        lambda net, x: net.a(x) + nn.functional.linear(x, net.tail[0]).sum(1, keepdim=True),
        a=nn.Linear(4, 3, bias=False),
    )
    net.tail = [net.a.weight.detach()[1:]]
    return net


def buffer_view():
    net = Odd(
        lambda net, x: net.a(x) + nn.functional.linear(x, net.tail), a=nn.Linear(4, 3, bias=False)
    )
    net.register_buffer("tail", net.a.weight.data)
    return net


HIDDEN = (held_lambda, closed_over_twice, closed_over_in_a_partial, closed_over_data)


@pytest.mark.parametrize("build", [*HIDDEN, held_view, buffer_view])
def test_what_a_copy_would_read_of_the_first_model_is_refused(build):
    net, says = build(), "has closed over a part|holds a view of the weight"
    batch = torch.randn(4, 4), torch.tensor([0, 1, 2, 1])
    for call in (
        lambda: masks.apply(net, masks.keep_all(net)),
        lambda: taylor.gradient(net, batch),
    ):
        with pytest.raises(UncoveredError, match=says):
            call()


def test_a_view_that_was_taken_before_is_seen_where_it_is_read():
    net = held_view()
    with pytest.raises(UncoveredError, match=r"'a.weight' is read without a call of its layer"):
        layer_grams(net, torch.randn(4, 4))


def test_functions_that_read_no_weight_may_be_held():
    net = Odd(lambda net, x: net.act(net.a(x)), a=nn.Linear(4, 3))
    net.act = lambda x: torch.tanh(2 * x)
    torch.testing.assert_close(
        masks.apply(net, masks.keep_all(net))(torch.ones(1, 4)), net(torch.ones(1, 4))
    )


def test_weights_of_one_storage_are_told_apart():
    net, flat = (
        nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)),
        torch.randn(32),
    )
    for layer, part in zip(net, flat.split(16), strict=True):
        layer.weight = nn.Parameter(part.view(4, 4))
    apart = copy.deepcopy(net)
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer_grams(net, x), layer_grams(apart, x))
    torch.testing.assert_close(
        taylor.gradient(net, (x, torch.arange(5) % 4)),
        taylor.gradient(apart, (x, torch.arange(5) % 4)),
    )
