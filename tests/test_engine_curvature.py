"""The curvature engine on any graph: exact where it says so, refused by name where it does not."""

from types import MethodType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy, relu

from teachkit import hessian, lab, masks, obd
from teachkit.core.layers import UncoveredError
from teachkit.engine import curvature, flow, moments

DTYPE = torch.float64


class Graph(nn.Module):
    """Layers by name, and a forward that is a function of them and x."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.steps(self, x)


def residual(act):
    """Two branches over a skip, one normalised, joined by a sum and by a maximum."""

    def forward(net, x):
        h = net.act(net.a(x))
        h = torch.maximum(h, net.norm(net.b(h)))
        h = h + net.act2(net.c(h))
        return net.end(torch.cat([h, -h[:, :2]], 1))

    return Graph(
        forward,
        a=nn.Linear(4, 5),
        b=nn.Linear(5, 5),
        c=nn.Linear(5, 5),
        norm=nn.BatchNorm1d(5),
        act=act(),
        act2=act(),
        end=nn.Linear(7, 3),
    )


def dense_block(act):
    """DenseNet: each convolution reads all channels so far; the mean over the pixels at the end."""

    def forward(net, x):
        x = torch.cat([x, net.act(net.a(x))], 1)
        x = torch.cat([x, net.act2(net.b(net.norm(x)))], 1)
        return net.end(relu(net.c(x)).mean((2, 3)))

    return Graph(
        forward,
        a=nn.Conv2d(1, 2, 3, padding=1),
        b=nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"),
        c=nn.Conv2d(5, 4, 1),
        norm=nn.BatchNorm2d(3),
        act=act(),
        act2=act(),
        end=nn.Linear(4, 3),
    )


def tokens(act):
    """Linear layers at several positions a sample, a convolution over a row, and a mean."""

    def forward(net, x):
        h = net.act(net.a(x.reshape(len(x), 3, 4)))
        h = net.act2(net.b(h.transpose(1, 2)))
        return net.end(h.mean(2))

    return Graph(
        forward,
        a=nn.Linear(4, 5),
        b=nn.Conv1d(5, 4, 2, padding="same"),
        act=act(),
        act2=act(),
        end=nn.Linear(4, 3),
    )


SHAPES = {residual: (4,), dense_block: (1, 4, 4), tokens: (12,)}
SMOOTH = (nn.Tanh, nn.SiLU, nn.SELU, nn.ELU, nn.Softplus, nn.Mish, nn.GELU)
KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh)


def randomised(net, shape, seed, samples=4):
    """Every parameter and statistic random, and a batch."""
    dice = torch.Generator().manual_seed(seed)
    net = net.to(DTYPE).eval()
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=dice, dtype=DTYPE)
            tensor.data.copy_(0.7 * (drawn if tensor.requires_grad else 0.5 + drawn.abs()))
    x = torch.randn(samples, *shape, generator=dice, dtype=DTYPE)
    return net, (x, torch.arange(samples) % 3)


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def dense(net, batch, names, loss=cross_entropy):
    return hessian.of_model(net, batch, loss, names=list(names)).diagonal()


@settings(max_examples=40)
@given(st.sampled_from(list(SHAPES)), st.sampled_from(SMOOTH + KINKED), st.integers(0, 10**6))
def test_the_fast_way_is_exact_on_graphs(build, act, seed):
    net, batch = randomised(build(act), SHAPES[build], seed)
    h = obd.diagonal(net, batch, biases=True, method="backward")
    want = dense(net, batch, h)
    assert float((flat(h) - want).abs().max()) <= 1e-10 * max(1.0, float(want.abs().max()))
    if act in KINKED:
        torch.testing.assert_close(flat(obd.gauss_newton(net, batch, biases=True)), flat(h))


@settings(max_examples=20)
@given(st.sampled_from(list(SHAPES)), st.sampled_from(SMOOTH), st.integers(0, 10**6))
def test_moments_are_those_of_one_sample_at_a_time(build, act, seed):
    net, (x, y) = randomised(build(act), SHAPES[build], seed)
    found = moments.moments(net, (x, y))
    single = [obd.diagonal(net, (x[i : i + 1], y[i : i + 1])) for i in range(len(x))]
    values = torch.stack([flat(h) for h in single])
    torch.testing.assert_close(flat(found.curvature.mean), values.mean(0))
    spread = flat(found.curvature.sd) ** 2
    torch.testing.assert_close(spread, values.var(0, correction=0), rtol=1e-6, atol=1e-9)


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 6), st.integers(0, 10**6)
)
def test_the_plain_way_for_relu_is_the_engine(sizes, samples, seed):
    layers = []
    for before, after in zip(sizes, [*sizes[1:], 3], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    net, batch = randomised(nn.Sequential(*layers[:-1]), (sizes[0],), seed, samples)
    plain, fast = obd.diagonal_relu(net, batch), obd.diagonal(net, batch, method="backward")
    torch.testing.assert_close(plain, dict(fast))


def test_a_residual_net_takes_few_passes_and_not_one_a_weight(monkeypatch):
    net, batch = randomised(residual(nn.ReLU), (4,), 0)
    pulls = []
    monkeypatch.setattr(flow.torch.autograd, "grad", None)  # the slow way would need it
    plain = curvature.squares
    monkeypatch.setattr(curvature, "squares", lambda *a: pulls.append(len(a[1])) or plain(*a))
    obd.diagonal(net, batch)
    assert pulls == [2]  # classes less one


class Reads(nn.Module):
    """One layer's weight is read by a function, not by a call of the layer."""

    def __init__(self, called):
        super().__init__()
        self.a, self.b, self.called = nn.Linear(4, 5), nn.Linear(5, 3), called

    def forward(self, x):
        z = functional.linear(relu(self.a(x)), self.b.weight, self.b.bias)
        return z + self.b(relu(self.a.weight.sum() * x.new_ones(len(x), 5))) if self.called else z


def over(net, x):
    z = net.a(x)
    z += 1
    return net.b(relu(z))


def twice(net, x):
    return net.b(net.a(net.a(x).tanh()))


def overwritten(net, x):
    z = net.a(x)
    h = z.tanh_()
    return net.b(h)


def frozen_part(net, x):
    with torch.no_grad():
        h = net.a(x)
    return net.b(relu(h))


def replaced():
    net = nn.Sequential(nn.Linear(4, 3))
    net[0].forward = MethodType(lambda a, x: 2 * functional.linear(x, a.weight, a.bias), net[0])
    return net


def pair(forward, a=4, out=None):
    return Graph(forward, a=nn.Linear(a, out or a), b=nn.Linear(out or a, 3))


REFUSED = {
    "read": (
        lambda: Reads(False),
        "the weight 'b.weight' is read without a call of its layer|'b.bias'",
    ),
    "read and called": (lambda: Reads(True), "is read without a call|is called 2 times"),
    "called twice": (lambda: pair(twice), "layer 'a' is called 2 times"),
    "in place": (lambda: pair(overwritten), "is overwritten in place"),
    "without gradients": (lambda: pair(frozen_part), "runs without gradients"),
    "replaced forward": (replaced, "has a replaced forward"),
    "product": (
        lambda: pair(lambda net, x: net.b(net.a(x) * net.a.bias + relu(net.a(x)) ** 2)),
        "is called 2 times|operation Pow is not covered|read without a call",
    ),
    "gate": (
        lambda: Graph(
            lambda net, x: net.c(net.a(x) * net.b(x)),
            a=nn.Linear(4, 4),
            b=nn.Linear(4, 4),
            c=nn.Linear(4, 3),
        ),
        "the operation Mul joins two activations",
    ),
    "function": (
        lambda: pair(lambda net, x: net.b(torch.sin(net.a(x)))),
        "operation Sin is not covered",
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
        "operation NativeLayerNorm is not covered",
    ),
    "batch statistics": (
        lambda: nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)
        ),
        "no running statistics",
    ),
    "statistics in a function": (
        lambda: pair(
            lambda net, x: net.b(functional.batch_norm(net.a(x), None, None, training=True))
        ),
        "normalises with the batch's statistics",
    ),
    "mean over samples": (
        lambda: Graph(
            lambda net, x: (lambda z: net.b(relu(z - z.mean(0))))(net.a(x)),
            a=nn.Linear(4, 5),
            b=nn.Linear(5, 3),
        ),
        "depends on more than its own sample",
    ),
    "subclass": (
        lambda: nn.Sequential(type("Mine", (nn.Linear,), {})(4, 3)),
        "Mine is not covered",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_covered_is_refused_by_name_and_goes_the_exact_slow_way(case):
    build, says = REFUSED[case]
    net, batch = randomised(build(), (4,), 1)
    with pytest.raises(UncoveredError, match=says):
        obd.diagonal(net, batch, method="backward")
    with pytest.raises(UncoveredError, match=says):
        moments.moments(net, batch)
    slow = obd.diagonal(net, batch)
    assert slow.method == "products"
    torch.testing.assert_close(flat(slow), dense(net, batch, slow))


def test_writing_behind_a_layer_or_in_an_activation_is_understood():
    for net in (
        pair(over, out=5),
        nn.Sequential(nn.Linear(4, 5), nn.SiLU(inplace=True), nn.Linear(5, 3)),
    ):
        net, batch = randomised(net, (4,), 2)
        h = obd.diagonal(net, batch)
        torch.testing.assert_close(flat(h), dense(net, batch, h))


def test_an_activation_may_stand_anywhere_and_more_than_once():
    act = nn.Tanh()
    for net in (
        nn.Sequential(act, nn.Linear(4, 5), act, nn.Linear(5, 5), act, nn.Linear(5, 3), act),
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Softplus(), nn.Linear(5, 3)),
        Graph(
            lambda net, x: (lambda z: net.b(torch.cat([net.act(z), relu(z)], 1)))(net.a(x)),
            a=nn.Linear(4, 5),
            b=nn.Linear(10, 3),
            act=nn.SiLU(),
        ),
    ):
        net, batch = randomised(net, (4,), 7)
        h = obd.diagonal(net, batch, method="backward")
        torch.testing.assert_close(flat(h), dense(net, batch, h))


def test_an_output_may_have_one_number_a_sample_or_an_image():
    one = Graph(lambda net, x: net.a(x).tanh_().squeeze(1), a=nn.Linear(4, 1))
    for net, shape, target in (
        (Graph(lambda net, x: net.a(x).squeeze(1), a=nn.Linear(4, 1)), (4,), (4,)),
        (nn.Conv2d(1, 2, 3), (1, 5, 5), (4, 2, 3, 3)),
        (one, (4,), (4,)),
    ):
        net, (x, _) = randomised(net, shape, 8)
        batch = (x, torch.ones(target, dtype=DTYPE))
        h = obd.diagonal(net, batch, functional.mse_loss)
        assert h.method == ("products" if net is one else "backward")
        torch.testing.assert_close(flat(h), dense(net, batch, h, functional.mse_loss))


def test_a_hook_around_the_layers_is_part_of_the_network():
    net, batch = randomised(
        nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Linear(5, 3)), (4,), 3
    )
    net[0].register_forward_hook(lambda module, args, z: 3 * z)
    h = obd.diagonal(net, batch, method="backward")
    torch.testing.assert_close(flat(h), dense(net, batch, h))


def test_one_sample_a_layer_that_never_runs_and_an_output_without_layers():
    net, (x, y) = randomised(residual(nn.Tanh), (4,), 4)
    net.add_module("idle", nn.Linear(2, 2).to(DTYPE))
    one = obd.diagonal(net, (x[:1], y[:1]), method="backward")
    assert not one["idle.weight"].any()
    torch.testing.assert_close(flat(one), dense(net, (x[:1], y[:1]), one))
    constant = Graph(lambda net, x: x.new_ones(len(x), 3), a=nn.Linear(4, 3)).to(DTYPE)
    assert not obd.diagonal(constant, (x, y), method="backward")["a.weight"].any()


def test_the_model_is_left_as_it_was():
    net, batch = randomised(residual(nn.Tanh), (4,), 5)
    net.train()
    net.a.weight.requires_grad_(False)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    obd.diagonal(net, batch)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert net.training
    assert not net.a.weight.requires_grad
    assert net.b.weight.requires_grad
    assert all(not m._forward_hooks for m in net.modules())


def test_kinds_of_labels_on_a_graph():
    net, batch = randomised(dense_block(nn.Tanh), (1, 4, 4), 6)
    true = curvature.fisher_diagonal(net, batch, kind="true")
    torch.testing.assert_close(true, dict(obd.gauss_newton(net, batch)))
    assert list(true) == list(masks.prunable(net))


def test_the_networks_of_the_course_take_the_fast_way():
    x, y = lab.data.digits().train
    for name, build in lab.models.MODELS.items():
        assert obd.diagonal(build((1, 8, 8)), (x[:3], y[:3])).method == "backward", name
    assert obd.diagonal(lab.models.residual(), (x[:3], y[:3])).method == "backward"
