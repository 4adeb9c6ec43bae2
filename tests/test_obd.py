"""The Hessian's diagonal, the ways to get it, and Optimal Brain Damage."""

import itertools
import math
from functools import partial

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from teachkit import hessian, lab, magnitude, masks, obd
from teachkit.core import losses
from teachkit.engine import flow, moments

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Softplus, nn.SiLU]
PROBABILITY = "binary_cross_entropy"
SMOOTH = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits")
LOSSES = (*SMOOTH, PROBABILITY)


def targets(loss, n, classes, generator):
    if loss == "cross_entropy":
        return torch.randint(0, classes, (n,), generator=generator)
    return torch.rand(n, classes, generator=generator)


def middle(draw, width):
    """What may stand between two layers of a chain."""
    kinds = st.sampled_from([*ACTIVATIONS, nn.Dropout, nn.Identity])
    return [kind() for kind in draw(st.lists(kinds, max_size=2))]


@st.composite
def perceptrons(draw, classes):
    widths = [3, *draw(st.lists(st.integers(1, 4), max_size=3)), classes]
    made = []
    for i, o in itertools.pairwise(widths):
        made += [nn.Linear(i, o, bias=draw(st.booleans())), *middle(draw, o)]
        if draw(st.booleans()):
            made.append(nn.BatchNorm1d(o))
    return (3,), made


def output(made):
    return nn.Sequential(*made).eval()(torch.zeros(1, 2, 6, 6))


@st.composite
def convolutions(draw, classes):
    made, channels, size = [], 2, 6
    for _ in range(draw(st.integers(1, 2))):
        options = {
            "padding": draw(st.sampled_from([0, 1, "same", "valid"])),
            "groups": draw(st.sampled_from([1, 2])),
            "dilation": draw(st.integers(1, 2)),
            "bias": draw(st.booleans()),
        }
        kernel = draw(st.sampled_from([1, 3])) if size > 4 else 1
        made += [nn.Conv2d(channels, 2, kernel, **options), *middle(draw, 2)]
        channels, size = 2, output(made).shape[2]
        pools = [nn.MaxPool2d(2), nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1)] if size > 1 else []
        made.append(draw(st.sampled_from([*pools, nn.BatchNorm2d(2), nn.Identity()])))
        size = output(made).shape[2]
    pixels = output(made).numel()
    return (2, 6, 6), [*made, nn.Flatten(), nn.Linear(pixels, classes)]


@st.composite
def cases(draw, losses=LOSSES):
    """A network in evaluation mode with weights and statistics drawn at random, a batch, a loss."""
    classes, loss = draw(st.integers(1, 3)), draw(st.sampled_from(losses))
    shape, made = draw(st.one_of(perceptrons(classes), convolutions(classes)))
    if loss == PROBABILITY:
        made.append(nn.Sigmoid())
    net = nn.Sequential(*made).double().eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.is_floating_point():  # variances must be positive
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.data.copy_(0.7 * (drawn if tensor.requires_grad else 0.5 + drawn.abs()))
    n = draw(st.integers(1, 5))
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    y = targets(loss, n, classes, generator)
    return net, (x, y), getattr(functional, loss)


def flat(found, like):
    assert list(found) == list(like)
    assert all(found[name].shape == w.shape for name, w in like.items())
    return torch.cat([h.reshape(-1) for h in found.values()])


def close(found, want, tolerance=1e-10):
    return float((found - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


@settings(max_examples=120)
@given(cases())
def test_diagonal_is_that_of_the_dense_hessian(case):
    net, batch, loss = case
    wanted = masks.prunable(net, biases=True)
    found = obd.diagonal(net, batch, loss, biases=True, method="backward")
    if loss is functional.binary_cross_entropy:  # torch's own is rounded; from logits it is not
        net, loss = net[:-1], functional.binary_cross_entropy_with_logits
    dense = hessian.of_model(net, batch, loss, names=list(wanted)).diagonal()
    assert found.method == "backward"
    assert close(flat(found, wanted), dense)


@settings(max_examples=20)
@given(cases(SMOOTH))
def test_products_and_one_backward_per_weight_agree(case):
    net, batch, loss = case
    wanted = masks.prunable(net)
    want = flat(obd.diagonal(net, batch, loss), wanted)
    assert close(flat(obd.by_products(net, batch, loss, chunk=7), wanted), want)
    assert close(flat(obd.diagonal_naive(net, batch, loss), wanted), want)


@settings(max_examples=20)
@given(cases(SMOOTH))
def test_row_sums_are_the_row_sums_of_each_tensors_hessian(case):
    net, batch, loss = case
    for name, found in obd.row_sums(net, batch, loss).items():
        H = hessian.of_model(net, batch, loss, names=[name])
        assert close(found.reshape(-1), H.sum(1))


def test_row_sum_scores_tie_where_softmax_makes_the_sums_zero():
    net, batch = small()
    found, sums = obd.row_sum_scores(net, batch), obd.row_sums(net, batch)
    assert bool((found["2.weight"] == 0).all())
    want = 0.5 * sums["0.weight"] * net[0].weight.detach() ** 2
    torch.testing.assert_close(found["0.weight"], want, rtol=1e-9, atol=1e-10)


def test_row_sums_and_diagonal_on_two_weights_by_hand():
    """L = (w1 + 2 w2)² has H = [[2, 4], [4, 8]]: diagonal (2, 8), row sums (6, 12)."""
    net = nn.Linear(2, 1, bias=False).double()
    batch = (torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.zeros(1, 1).double())
    for way in (obd.diagonal, obd.diagonal_naive, obd.by_products):
        assert way(net, batch, functional.mse_loss)["weight"].tolist() == [[2.0, 8.0]]
    assert obd.row_sums(net, batch, functional.mse_loss)["weight"].tolist() == [[6.0, 12.0]]


@settings(max_examples=40)
@given(cases(SMOOTH))
def test_spread_over_samples_is_that_of_one_sample_at_a_time(case):
    net, (x, y), loss = case
    found = obd.per_sample(net, (x, y), loss)
    singles = [
        oracles.sample_derivatives(net, (x[i : i + 1], y[i : i + 1]), loss) for i in range(len(x))
    ]
    for field in moments.PerSample._fields:
        values = torch.stack([single[field] for single in singles])
        spread = getattr(found, field)
        assert close(flat(spread.mean, masks.prunable(net)), values.mean(0), 1e-9)
        # The variance comes from differences of moments: its root loses half the digits.
        square = flat(spread.sd, masks.prunable(net)) ** 2
        assert close(square, values.var(0, correction=0), 1e-9 * max(1, float(values.max() ** 2)))


@pytest.mark.parametrize("name", list(lab.models.MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_network_of_the_course_is_covered(name, dtype):
    net = lab.models.MODELS[name]((1, 8, 8)).to(dtype)
    x, y = lab.data.digits().train
    batch = (x[:5].to(dtype), y[:5])
    found = obd.diagonal(net, batch)
    assert found.method == "backward"
    generator = torch.Generator().manual_seed(1)
    rel = 1e-3 if dtype == torch.float32 else 1e-9
    for key, h in found.items():  # one Hessian-vector product checks one entry
        i = int(torch.randint(h.numel(), (), generator=generator))
        assert float(h.reshape(-1)[i]) == pytest.approx(
            oracles.curvature(net, batch, key, i), rel=rel, abs=1e-7
        )


def test_many_samples_are_taken_in_parts(monkeypatch):
    net = lab.models.mlp(activation=nn.Tanh, hidden=(8, 7, 6))
    batch = tuple(
        part[:30].double() if i == 0 else part[:30]
        for i, part in enumerate(lab.data.digits().train)
    )
    net = net.double()
    whole = obd.diagonal(net, batch)
    spread = obd.per_sample(net, batch)
    monkeypatch.setattr(flow, "PART", 8 * 64 * 7)  # seven samples of 64 pixels in float64
    parts, again = obd.diagonal(net, batch), obd.per_sample(net, batch)
    for name, h in whole.items():
        torch.testing.assert_close(parts[name], h, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(again.change.sd[name], spread.change.sd[name])


class Branch(nn.Module):
    """Not a chain: two ways that meet."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.end = nn.Linear(4, 2)

    def forward(self, x):
        return self.end(self.a(x).tanh() * self.b(x))


def small(model=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    net = model or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=dtype)
    x = torch.randn(9, 3, generator=generator, dtype=dtype)
    return net.to(dtype), (x, torch.arange(9) % 2)


def shared():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2))
    net[2].weight = net[0].weight
    return net


def hooked():
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].register_forward_hook(lambda module, args, z: 2 * z)
    return net


@pytest.mark.parametrize(
    ("model", "loss", "says"),
    [
        (Branch(), functional.cross_entropy, "the operation Mul joins two activations"),
        (shared(), functional.cross_entropy, "share a weight"),
        (hooked(), functional.cross_entropy, "forward hook"),
        (None, partial(functional.cross_entropy, label_smoothing=0.1), "loss .* is not covered"),
        (None, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]).double()), "not covered"),
    ],
)
def test_what_the_fast_way_does_not_cover_takes_products(model, loss, says):
    net, batch = small(model)
    if isinstance(loss, nn.CrossEntropyLoss):
        batch = (torch.cat([batch[0]] * 2), torch.cat([batch[1]] * 2))
    found = obd.diagonal(net, batch, loss)
    assert found.method == "products"
    with pytest.raises(obd.UncoveredError, match=says):
        obd.diagonal(net, batch, loss, method="backward")
    with pytest.raises(obd.UncoveredError, match=says):
        obd.per_sample(net, batch, loss)
    wanted = list(masks.prunable(net))
    dense = hessian.of_model(net, batch, loss, names=wanted).diagonal()
    assert close(flat(found, masks.prunable(net)), dense)


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()],
    ids=lambda m: type(m).__name__,
)
def test_loss_modules_are_their_functions(loss):
    net, batch = small()
    if not isinstance(loss, nn.CrossEntropyLoss):
        batch = (batch[0], torch.rand(9, 2, dtype=torch.float64))
    found = obd.diagonal(net, batch, loss)
    dense = hessian.of_model(net, batch, loss, names=list(found)).diagonal()
    assert found.method == "backward"
    assert close(flat(found, masks.prunable(net)), dense)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=6))
def test_factor_of_the_multinomial_covariance(logits):
    p = torch.tensor([logits], dtype=torch.float64).softmax(1)
    S = losses.factor(p)[0]
    assert S.shape == (len(logits) - 1, len(logits))
    torch.testing.assert_close(S.T @ S, p[0].diag() - p.T @ p, rtol=1e-9, atol=1e-15)


@settings(max_examples=20)
@given(perceptrons(2), st.integers(0, 10**6))
def test_recursion_is_exact_in_the_last_layer_and_for_one_unit_a_layer(made, seed):
    net = nn.Sequential(*made[1]).double().eval()
    generator = torch.Generator().manual_seed(seed)
    batch = (torch.randn(4, 3, generator=generator).double(), torch.arange(4) % 2)
    exact, kept = obd.diagonal(net, batch), obd.recursion(net, batch)
    last = list(exact)[-1]
    assert list(kept) == list(exact)
    torch.testing.assert_close(kept[last], exact[last], rtol=1e-9, atol=1e-12)


def test_recursion_leaves_cross_terms_out():
    """Two outputs with H_z = [[q, −q], [−q, q]], weights 1 and 1 above: truth 0, recursion 2q."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False)).double()
    for p in net.parameters():
        p.data.fill_(1.0)
    batch = (torch.ones(1, 1).double(), torch.zeros(1).long())
    assert obd.diagonal(net, batch)["0.weight"].item() == pytest.approx(0, abs=1e-15)
    assert obd.recursion(net, batch)["0.weight"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_recursion_through_convolutions_of_one_pixel_is_that_of_linear_layers(kernel):
    generator = torch.Generator().manual_seed(kernel)
    dense = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    layers = []
    for layer in dense:
        if isinstance(layer, nn.Linear):
            conv = nn.Conv2d(layer.in_features, layer.out_features, kernel, padding=kernel // 2)
            conv.weight.data[:, :, kernel // 2, kernel // 2] = layer.weight.data
            conv.bias.data = layer.bias.data
            layer = conv
        layers.append(layer)
    x = torch.randn(6, 3, generator=generator)
    convolved = nn.Sequential(*layers, nn.Flatten())
    want = obd.recursion(dense.double(), (x.double(), torch.arange(6) % 2))
    found = obd.recursion(convolved.double(), (x.double()[:, :, None, None], torch.arange(6) % 2))
    for name, h in want.items():
        torch.testing.assert_close(found[name][:, :, kernel // 2, kernel // 2], h)


def test_recursion_covers_convolutions_and_says_what_not():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)).double()
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = obd.recursion(net, (x, torch.tensor([0, 1, 1])))
    assert found["0.weight"].shape == net[0].weight.shape
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(obd.UncoveredError, match="AvgPool2d"):
        obd.recursion(pooled.double(), (x, torch.tensor([0, 1, 1])))


def test_hutchinson_comes_within_its_standard_error():
    net, batch = small()
    want = obd.diagonal(net, batch)
    found = obd.hutchinson(net, batch, directions=400, generator=torch.Generator().manual_seed(1))
    t = torch.cat([((found.mean[n] - h) / found.error[n]).reshape(-1) for n, h in want.items()])
    assert t.abs().max() < 5
    assert 0.5 < t.std() < 1.5


def test_saliency_is_half_h_w_squared_and_prunes_exactly():
    net, batch = small()
    h, s = obd.diagonal(net, batch), obd.scores(net, batch)
    before = {n: p.clone() for n, p in net.named_parameters()}
    for name, w in masks.prunable(net).items():
        torch.testing.assert_close(s[name], 0.5 * h[name] * w.detach() ** 2)
    pruned, kept = obd.prune(net, batch, 0.5)
    assert masks.sparsity(kept) == 0.5
    assert sum(int((p == 0).sum()) for p in masks.prunable(pruned).values()) == 10
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_a_removed_weight_stays_removed_though_other_saliencies_are_negative():
    net, batch = small()
    assert min(float(s.min()) for s in obd.scores(net, batch).values()) < 0
    cut, first = obd.prune(net, batch, 0.3)
    same, _ = obd.prune(
        masks.apply(net, by_size := masks.keep_top(magnitude.scores(net), 0.5)), batch, 0.5
    )
    assert all(torch.equal(same.get_parameter(n) != 0, m) for n, m in by_size.items())
    again, second = obd.prune(cut, batch, 0.5)
    assert masks.sparsity(second) == 0.5
    assert all(bool((second[n] <= first[n]).all()) for n in first)
    assert masks.sparsity(masks.nonzero(again)) == 0.5


def test_recipe_cuts_retrains_and_keeps_zeros():
    data = lab.data.digits()
    few = lab.data.Data(tuple(p[:300] for p in data.train), tuple(p[:100] for p in data.test))
    net, _ = lab.training.fit(lab.models.mlp(hidden=(16,)), few, epochs=20, progress=False)
    once = obd.recipe(net, few, [0.5], epochs=10, progress=False)
    twice = obd.recipe(net, few, [0.5, 0.8], epochs=10, progress=False)
    assert twice.steps[0] == once.steps[0]
    for run, sparsity in ((once, 0.5), (twice, 0.8)):
        assert masks.sparsity(masks.nonzero(run.model)) == pytest.approx(sparsity, abs=1e-3)
        assert masks.sparsity(run.masks) == pytest.approx(sparsity, abs=1e-3)
    assert all(bool((twice.masks[n] <= m).all()) for n, m in once.masks.items())
    assert twice.steps[1].retrained >= twice.steps[1].pruned
    with pytest.raises(ValueError, match="sparsities must not be empty"):
        obd.recipe(net, few, [], progress=False)
    with pytest.raises(ValueError, match=r"must not fall, got \[0.5, 0.2\]"):
        obd.recipe(net, few, [0.5, 0.2])


def by_magnitude(model, batch, loss):
    return magnitude.scores(model)


@pytest.mark.parametrize("criterion", [by_magnitude, magnitude.scores])
def test_recipe_takes_any_criterion(criterion):
    data = lab.data.digits()
    net = lab.models.mlp(hidden=(16,))
    run = obd.recipe(net, data, [0.8], epochs=0, criterion=criterion, progress=False)
    want = masks.keep_top(magnitude.scores(net), 0.8)
    assert all(torch.equal(m, want[n]) for n, m in run.masks.items())
    assert run.steps[0].pruned == run.steps[0].retrained


def test_assumptions_add_up_and_each_vanishes_where_it_holds():
    net, batch = small()
    _, kept = obd.prune(net, batch, 0.5)
    parts = obd.assumptions(net, batch, kept)
    assert sum(parts[:4]) == pytest.approx(parts.actual, rel=1e-9)
    one = {n: torch.ones_like(m) for n, m in kept.items()}
    one["0.weight"][0, 0] = False
    assert obd.assumptions(net, batch, one).cross == pytest.approx(0, abs=1e-12)
    line = nn.Linear(2, 1, bias=False).double()  # quadratic loss: nothing beyond the second order
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()  # orthogonal inputs: a diagonal Hessian
    parts = obd.assumptions(
        line,
        (x, torch.zeros(2, 1).double()),
        {"weight": torch.tensor([[False, False]])},
        functional.mse_loss,
    )
    assert parts.higher == pytest.approx(0, abs=1e-12)
    assert parts.cross == pytest.approx(0, abs=1e-12)
    exact = (x, line(x).detach())  # the targets are met: an extremum
    assert obd.assumptions(
        line, exact, {"weight": torch.tensor([[False, True]])}, functional.mse_loss
    ).gradient == pytest.approx(0, abs=1e-12)


def summed(output, target):
    return functional.cross_entropy(output, target, reduction="sum")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda n, b: obd.diagonal(n, b, summed), "must be a mean over the samples"),
        (lambda n, b: obd.hutchinson(n, b, summed, generator=torch.Generator()), "must be a mean"),
        (
            lambda n, b: obd.diagonal(n, b, partial(functional.cross_entropy, reduction="none")),
            r"one number, a mean over the samples, got \(9,\)",
        ),
        (lambda n, b: obd.diagonal(n, (b[0] * math.nan, b[1])), "the batch's x has 27 NaN"),
        (lambda n, b: obd.diagonal(n, (b[0][:0], b[1][:0])), "at least 1"),
        (lambda n, b: obd.diagonal(n, b, method="fast"), "method must be one of .*'fast'"),
        (lambda n, b: obd.by_products(n, b, chunk=0), "chunk must be a whole number from 1, got 0"),
        (lambda n, b: obd.hutchinson(n, b, directions=1, generator=torch.Generator()), "from 2"),
        (lambda n, b: obd.prune(n, b, 1.5), r"sparsity must lie in \[0, 1\], got 1.5"),
        (lambda n, b: obd.diagonal(n, (b[0] * 1e160, b[1])), "the diagonal of '0.weight' has"),
        (
            lambda n, b: obd.diagonal(n, (b[0], torch.zeros(9).double()), functional.mse_loss),
            "shape|size",
        ),
    ],
)
def test_bad_input_is_refused_in_words(call, says):
    net, batch = small()
    with pytest.raises((ValueError, RuntimeError), match=says):
        call(net, batch)


def test_a_model_without_prunable_weights_has_an_empty_diagonal():
    batch = (torch.ones(2, 3), torch.tensor([0, 1]))
    assert obd.diagonal(nn.Sequential(nn.Flatten()), batch) == {}
    assert obd.diagonal(nn.Sequential(nn.BatchNorm1d(3)), batch) == {}
