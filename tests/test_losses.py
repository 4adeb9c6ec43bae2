"""Every option of a loss: the number that autograd gives, or an error by name."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import gradient, hessian
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import fisher, masks, neurons, obd, obs, paradox, taylor
from teachkit import hessian as hessians
from teachkit.core.objective import sample_gradients

CE, BCE, MSE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss
WEIGHTS = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
SAID = (ValueError, TypeError)


def hooked():
    loss = CE()
    loss.register_forward_hook(lambda module, given, value: 2 * value)
    return loss


def replaced():
    loss = CE()
    loss.forward = lambda z, y: 2 * cross_entropy(z, y)
    return loss


class Tripled(CE):
    def forward(self, z, y):
        return 3 * super().forward(z, y)


CLASSES = {
    "plain": CE(),
    "function": cross_entropy,
    "partial": partial(cross_entropy),
    "weight": CE(weight=WEIGHTS),
    "ignore 0": CE(ignore_index=0),
    "ignore 2": CE(ignore_index=2),
    "smoothing": CE(label_smoothing=0.1),
    "sum": CE(reduction="sum"),
    "none": CE(reduction="none"),
    "all of them": CE(weight=WEIGHTS, ignore_index=1, label_smoothing=0.2),
    "partial weight": partial(cross_entropy, weight=WEIGHTS),
    "partial ignore": partial(cross_entropy, ignore_index=2),
    "partial smoothing": partial(cross_entropy, label_smoothing=0.1),
    "partial sum": partial(cross_entropy, reduction="sum"),
    "lambda": lambda z, y: cross_entropy(z, y),
    "lambda, weight": lambda z, y: cross_entropy(z, y, weight=WEIGHTS),
    "lambda, scaled": lambda z, y: 7 * cross_entropy(z, y),
    "hooked": hooked(),
    "replaced": replaced(),
    "subclass": Tripled(),
}
NUMBERS = {
    "bce": BCE(),
    "bce weight": BCE(weight=WEIGHTS),
    "bce weight of samples": BCE(weight=torch.arange(1.0, 13.0, dtype=torch.float64)[:, None]),
    "bce pos_weight": BCE(pos_weight=WEIGHTS),
    "bce sum": BCE(reduction="sum"),
    "bce none": BCE(reduction="none"),
    "mse": MSE(),
    "mse sum": MSE(reduction="sum"),
    "mse none": MSE(reduction="none"),
    "mse lambda": lambda z, y: ((z - y) ** 2).mean(),
    "mse, squared": lambda z, y: ((z - y) ** 2).mean() ** 2,
    "probabilities": cross_entropy,
    "l1": nn.SmoothL1Loss(),
}
# Twelve samples whose first nine have one class: a look at the first few sees no difference.
Y = torch.tensor([0] * 9 + [1, 2, 2])
LABELS = {
    "as they are": Y,
    "some ignored": torch.where(torch.arange(12) == 10, -100, Y),
    "uint8": Y.byte(),
}
OTHER_INDEX = (
    "ignore 0",
    "ignore 2",
    "partial ignore",
    "all of them",
)  # to these, −100 is no class
CASES = [
    (name, label)
    for name in CLASSES
    for label in LABELS
    if not (name in OTHER_INDEX and label == "some ignored")
]
CASES += [(n, "numbers") for n in NUMBERS]


def network(act, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 3), act(), nn.Linear(3, 3)).double()
    return net, torch.randn(12, 4).double()


def case(name, label):
    if label == "numbers":
        y = torch.rand(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return NUMBERS[name], y.softmax(1)
    return CLASSES[name], LABELS[label]


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors.values()])


class Truth:
    """What autograd says of a loss, on the network's own parameters."""

    def __init__(self, net, x, y, loss):
        y = (
            y.long() if y.dtype == torch.uint8 else y
        )  # class numbers, also where torch takes no bytes
        self.net, self.x, self.y, self.loss = net, x, y, loss
        self.weights = list(masks.prunable(net).values())
        self.w = torch.cat([w.detach().reshape(-1) for w in self.weights])
        self.g = self._flat(gradient(net, self.weights, (x, y), loss))
        self.H = hessian(net, self.weights, (x, y), loss)

    def _flat(self, parts):
        return torch.cat([p.reshape(-1) for p in parts])

    def row_sums(self):
        n = self.weights[0].numel()
        return torch.cat([self.H[:n, :n].sum(1), self.H[n:, n:].sum(1)])

    def change(self):
        return -self.g * self.w + 0.5 * self.H.diagonal() * self.w**2

    def rows(self):
        """Each sample's share of the gradient, times their number."""
        z = self.net(self.x).detach().requires_grad_()
        (s,) = torch.autograd.grad(self.loss(z, self.y), z)
        rows = []
        for i in range(len(z)):
            share = (self.net(self.x[i : i + 1]) * s[i : i + 1]).sum() * len(z)
            rows.append(self._flat(torch.autograd.grad(share, self.weights)))
        return torch.stack(rows)

    def gauss_newton(self):
        z = self.net(self.x).reshape(-1)
        at, y = z.detach().reshape(12, 3), self.y
        bend = torch.autograd.functional.hessian(lambda v: self.loss(v, y), at).reshape(36, 36)
        J = [self._flat(torch.autograd.grad(o, self.weights, retain_graph=True)) for o in z]
        return torch.stack(J).T @ bend @ torch.stack(J)


FUNCTIONS = {
    "diagonal": (lambda n, b, loss: flat(obd.diagonal(n, b, loss)), lambda t: t.H.diagonal()),
    "naive": (lambda n, b, loss: flat(obd.diagonal_naive(n, b, loss)), lambda t: t.H.diagonal()),
    "gauss_newton": (
        lambda n, b, loss: flat(obd.gauss_newton(n, b, loss)),
        lambda t: t.gauss_newton().diagonal(),
    ),
    "row_sums": (lambda n, b, loss: flat(obd.row_sums(n, b, loss)), Truth.row_sums),
    "per_sample": (
        lambda n, b, loss: flat(obd.per_sample(n, b, loss).curvature.mean),
        lambda t: t.H.diagonal(),
    ),
    "gradient": (
        lambda n, b, loss: flat(
            {k: v for k, v in taylor.gradient(n, b, loss).items() if "weight" in k}
        ),
        lambda t: t.g,
    ),
    "of_model": (
        lambda n, b, loss: hessians.of_model(n, b, loss, names=list(masks.prunable(n))),
        lambda t: t.H,
    ),
    "fisher.diagonal": (
        lambda n, b, loss: flat(fisher.diagonal(n, b, loss)),
        lambda t: (t.rows() ** 2).mean(0),
    ),
    "fisher.gradients": (lambda n, b, loss: fisher.gradients(n, b, loss), Truth.rows),
    "fisher.naive": (lambda n, b, loss: fisher.gradients_naive(n, b, loss), Truth.rows),
    "curvature": (lambda n, b, loss: obs.curvature(n, b, loss), lambda t: t.H),
    "curvature, gn": (
        lambda n, b, loss: obs.curvature(n, b, loss, kind="gauss-newton"),
        Truth.gauss_newton,
    ),
    "changes": (lambda n, b, loss: flat(paradox.changes(n, b, loss).mean), Truth.change),
    "T1": (lambda n, b, loss: flat(paradox.first_order(n, b, loss)), lambda t: -t.g * t.w),
    "T2": (lambda n, b, loss: flat(paradox.second_order(n, b, loss)), Truth.change),
    "recursion, last": (
        lambda n, b, loss: obd.recursion(n, b, loss)["2.weight"].reshape(-1),
        lambda t: t.H.diagonal()[-9:],
    ),
}


@settings(max_examples=150)
@given(
    st.sampled_from(CASES),
    st.sampled_from(sorted(FUNCTIONS)),
    st.sampled_from((nn.ReLU, nn.Tanh)),
    st.integers(0, 10**6),
)
def test_every_option_gives_the_number_of_autograd_or_is_refused(which, name, act, seed):
    net, x = network(act, seed)
    loss, y = case(*which)
    function, truth = FUNCTIONS[name]
    try:
        said = function(net, (x, y), loss)
    except SAID:
        return
    expected = truth(Truth(net, x, y, loss))
    torch.testing.assert_close(said, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("which", CASES, ids=str)
def test_no_loss_ends_in_a_raw_error(which):
    net, x = network(nn.Tanh, 0)
    loss, y = case(*which)
    more = (neurons.first_order, neurons.saliency, taylor.actual_change)
    for function in (*(f for f, _ in FUNCTIONS.values()), *more[:2]):
        try:
            function(net, (x, y), loss)
        except SAID as error:
            said = str(error)
            assert len(said) > 20, said


def test_plain_losses_keep_the_fast_way():
    net, x = network(nn.Tanh, 0)
    for name in ("plain", "function"):
        assert obd.diagonal(net, (x, Y), CLASSES[name]).method == "backward"
    for name in ("weight", "ignore 2", "smoothing", "hooked", "replaced", "subclass"):
        assert obd.diagonal(net, (x, Y), CLASSES[name]).method == "products"


def test_a_loss_that_couples_samples_is_found_behind_the_first_few_and_across_parts(monkeypatch):
    net, x = network(nn.ReLU, 0)
    with pytest.raises(ValueError, match="must be the mean over the samples"):
        fisher.gradients(net, (x, Y), CE(weight=WEIGHTS))
    for (
        p
    ) in net.parameters():  # every sample has the loss log 3: the values agree, gradients do not
        p.data.zero_()
    with pytest.raises(ValueError, match="its gradient at the outputs is not the mean of theirs"):
        sample_gradients(CE(weight=WEIGHTS), net(x), Y)
    monkeypatch.setattr("teachkit.engine.flow.PART", 1)  # one sample at a time
    net, x = network(nn.ReLU, 0)
    with pytest.raises(ValueError, match="must be the mean over the samples"):
        fisher.diagonal(net, (x, Y), CE(weight=WEIGHTS))


@pytest.mark.parametrize("function", ["row_sums", "diagonal_naive", "diagonal"])
def test_sums_are_refused(function):
    net, x = network(nn.ReLU, 0)
    with pytest.raises(ValueError, match="must be a mean over the samples"):
        getattr(obd, function)(net, (x, Y), CE(reduction="sum"))
    with pytest.raises(ValueError, match="must be a mean over the samples"):
        paradox.first_order(net, (x, Y), CE(reduction="sum"))


@pytest.mark.parametrize("function", [taylor.gradient, paradox.first_order, fisher.gradients])
def test_the_rounding_of_bfloat16_makes_no_sum_of_a_mean(function):
    net, x = network(nn.Tanh, 0)
    for seed in range(20):
        y = torch.randint(3, (12,), generator=torch.Generator().manual_seed(seed))
        function(net.bfloat16(), (x.bfloat16(), y))
    with pytest.raises(ValueError, match="must be a mean over the samples|must be the mean over"):
        function(net, (x.bfloat16(), Y), lambda z, y: cross_entropy(z, y) * len(y))
