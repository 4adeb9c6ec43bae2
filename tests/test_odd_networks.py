"""Whatever a network does with its weights: the number that autograd gives, or an error by name."""

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import ODD, REFUSED, gradient, hessian, measure, single_gradients
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import fisher, magnitude, masks, obd, obs, paradox, structured, taylor
from teachkit import hessian as hessians
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
