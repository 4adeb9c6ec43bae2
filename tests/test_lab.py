"""Models, training, evaluation and intervals."""

import copy
import math
from functools import partial

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from teachkit import lab, masks
from teachkit.core import checks
from teachkit.lab import curves, rounds, saving

SHAPES = [(1, 8, 8), (3, 13, 17), (1, 28, 28), (2, 4, 4)]
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-3, momentum=0.9),
    "rprop": torch.optim.Rprop,
    "lbfgs": partial(torch.optim.LBFGS, lr=0.5, line_search_fn="strong_wolfe"),
}


def batch(n=40, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64), torch.randint(
        0, 10, (n,), generator=generator
    )


def same_bytes(a, b):
    return all(
        torch.equal(p, q)
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", lab.models.MODELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [1, 7])
def test_models_fit_any_input(name, shape, classes):
    model = lab.models.MODELS[name](shape, classes)
    assert model(torch.zeros(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("name", lab.models.MODELS)
def test_a_seed_gives_the_same_bytes_and_leaves_torch_alone(name):
    state = torch.get_rng_state()
    make = lab.models.MODELS[name]
    assert same_bytes(make(seed=3), make(seed=3))
    assert not same_bytes(make(seed=3), make(seed=4))
    assert torch.equal(state, torch.get_rng_state())


def test_published_sizes():
    counts = {
        n: sum(p.numel() for p in m((1, 28, 28)).parameters()) for n, m in lab.models.MODELS.items()
    }
    assert counts["lenet_300_100"] == 266_610  # 267 k in Han et al. 2015
    assert counts["lenet5"] == 431_080  # 431 k


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: lab.models.mlp(8),
            TypeError,
            r"shape must hold the sizes, e.g. \(1, 8, 8\), got 8",
        ),
        (lambda: lab.models.mlp(()), ValueError, "shape must hold"),
        (lambda: lab.models.mlp((8, 0)), ValueError, r"each size in shape \(8, 0\).*got 0"),
        (lambda: lab.models.mlp(hidden=(0,)), ValueError, "a hidden width must be"),
        (lambda: lab.models.mlp(classes=0), ValueError, "classes must be"),
        (lambda: lab.models.lenet5((1, 3, 8)), ValueError, "at least 4, got"),
        (lambda: lab.models.vgg_like((8, 8)), ValueError, r"\(channels, height, width\)"),
        (lambda: lab.models.mlp(seed=-1), ValueError, "seed must be"),
        (lambda: lab.models.mlp(seed="a"), TypeError, "seed must be .*got 'a'"),
    ],
)
def test_impossible_models_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_hold_after_every_step_of_any_optimizer(name):
    model = lab.models.mlp(hidden=(5,))
    scores = {n: w.detach().abs() for n, w in masks.prunable(model).items()}
    kept = masks.keep_top(scores, 0.7)
    seen = []

    def watch(net):  # called within every step, so after the one before
        seen.append(masks.sparsity(masks.combine(masks.nonzero(net), kept)))
        return 0.0 * sum(p.sum() for p in net.parameters())

    trained, history = lab.training.fit(
        model,
        batch(),
        epochs=3,
        batch_size=40,
        optimizer=OPTIMIZERS[name],
        masks=kept,
        penalty=watch,
        progress=False,
    )
    for n, w in masks.prunable(trained).items():
        assert (w[~kept[n]] == 0).all()
        assert not torch.equal(w[kept[n]], model.get_parameter(n)[kept[n]])
    assert min(seen) >= masks.sparsity(kept)
    assert history.loss[-1] < history.loss[0]


def test_same_seed_same_bytes_dropout_included():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), nn.Dropout(0.5), nn.BatchNorm1d(20), nn.Linear(20, 10)
    )
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    fit = partial(lab.training.fit, model, batch(), epochs=2, progress=False)
    first, second, other = fit(seed=1)[0], fit(seed=1)[0], fit(seed=2)[0]
    assert same_bytes(first, second)
    assert not same_bytes(first, other)
    assert same_bytes(model, before)
    assert model.training
    assert not first.training
    assert torch.equal(state, torch.get_rng_state())


def test_history_penalty_scheduler_and_frozen_parameters():
    data = lab.data.Data(batch(), batch(10))
    model = lab.models.mlp(hidden=(5,))
    model[1].weight.requires_grad_(False)
    rates = []

    def halve(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: rates.append(e) or 0.5**e)

    trained, history = lab.training.fit(model, data, epochs=4, scheduler=halve, progress=False)
    assert len(history.loss) == len(history.accuracy) == 4
    assert history.accuracy[-1] == lab.evaluation.evaluate(trained, data.test).accuracy
    assert torch.equal(trained[1].weight, model[1].weight)
    assert rates == [0, 1, 2, 3, 4]
    sgd = partial(lab.training.fit, model, data, epochs=20, progress=False)
    plain, _ = sgd(optimizer=partial(torch.optim.SGD, lr=0.01))
    shrunk, _ = sgd(
        optimizer=partial(torch.optim.SGD, lr=0.01),
        penalty=lambda m: 10 * m[3].weight.square().sum(),
    )
    assert shrunk[3].weight.norm() < 0.2 * plain[3].weight.norm()
    copied, empty = lab.training.fit(model, data, epochs=0)
    assert same_bytes(copied, model)
    assert empty == ([], [])


def test_progress_bar_can_be_switched_off(capsys, bars_at_once):
    for progress, bar in ((True, True), (False, False)):
        lab.training.fit(lab.models.mlp(), batch(), epochs=1, progress=progress)
        assert ("epochs" in capsys.readouterr().err) is bar


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        (
            (torch.rand(0, 64), torch.zeros(0).long()),
            {},
            ValueError,
            r"at least 1, got x \(0, 64\)",
        ),
        ((torch.rand(3, 64), torch.zeros(2).long()), {}, ValueError, "of one length"),
        (
            (torch.full((2, 64), math.nan), torch.zeros(2).long()),
            {},
            ValueError,
            "the batch's x has 128 NaN",
        ),
        ([1, 2], {}, TypeError, r"the batch must be a tuple \(x, y\), got list"),
        (
            (torch.rand(2, 64).float(), torch.zeros(2).long()),
            {},
            TypeError,
            "the data is torch.float32 but",
        ),
        (batch(), {"epochs": -1}, ValueError, "epochs must be"),
        (batch(), {"batch_size": 0}, ValueError, "batch_size must be"),
        (batch(), {"epochs": 1.5}, TypeError, "epochs must be"),
        (batch(), {"masks": {"x": torch.ones(1)}}, ValueError, "masks has the key 'x'"),
    ],
)
def test_bad_training_is_refused(data, options, error, says):
    with pytest.raises(error, match=says):
        lab.training.fit(lab.models.mlp(), data, progress=False, **options)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_evaluation_is_its_oracle(chunk):
    model = lab.models.vgg_like()
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    found = lab.evaluation.evaluate(model, batch(), chunk=chunk)
    assert [m.training for m in model.modules()] == modes
    loss, accuracy = oracles.evaluation(model.eval(), batch(), cross_entropy)
    assert found.loss == pytest.approx(loss)
    assert found.accuracy == accuracy


def test_single_output_is_classified_by_a_threshold():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    data = (torch.tensor([[0.2], [0.8], [0.9]]), torch.tensor([[0.0], [1.0], [0.0]]))
    assert lab.evaluation.evaluate(net, data, mse_loss).accuracy == pytest.approx(2 / 3)
    assert lab.evaluation.evaluate(net, data, mse_loss, threshold=0.1).accuracy == pytest.approx(
        1 / 3
    )


def test_a_trained_network_learns_the_digits():
    _, history = lab.training.fit(lab.models.mlp(), lab.data.digits(), epochs=10, progress=False)
    assert history.accuracy[-1] > 0.85


def test_accuracy_curve_is_pruning_then_evaluating():
    model, data = lab.models.mlp(), lab.data.digits().test
    scores = {n: w.detach().abs() for n, w in masks.prunable(model).items()}
    found = curves.accuracy_curve(model, scores, data, [0.0, 0.5, 1.0], "layer")
    pruned = masks.apply(model, masks.keep_top(scores, 0.5, "layer"))
    assert found[1] == lab.evaluation.evaluate(pruned, data).accuracy
    assert found[0] == lab.evaluation.evaluate(model, data).accuracy


# Student's t from a printed table (two-sided): rows are degrees of freedom.
@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [(0.95, 1, 12.706), (0.95, 4, 2.776), (0.95, 30, 2.042), (0.99, 7, 3.499), (0.5, 10, 0.700)],
)
def test_student_is_the_table(confidence, freedom, t):
    assert curves.student(confidence, freedom) == pytest.approx(t, abs=6e-4)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_interval_is_symmetric_about_the_mean(runs):
    found = curves.interval(runs)
    assert float(found.mean) == pytest.approx(np.mean(runs), abs=1e-9)
    assert float(found.high - found.mean) == pytest.approx(float(found.mean - found.low), abs=1e-9)


def test_interval_covers_the_mean_as_often_as_it_says():
    runs = np.random.default_rng(0).normal(3.0, 2.0, (5, 4000))
    found = curves.interval(runs, 0.9)
    assert np.mean((found.low < 3) & (found.high > 3)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("runs", [[1.0], 3.0, [1.0, math.nan]])
def test_interval_needs_two_finite_runs(runs):
    with pytest.raises(ValueError, match="at least 2 finite runs"):
        curves.interval(runs)


def test_checks_quote_what_they_got():
    with pytest.raises(TypeError, match="k must be a whole number from 0, got 2.0"):
        checks.whole("k", 2.0)
    with pytest.raises(TypeError, match="masks must be a dict of tensors, got NoneType"):
        checks.masks(None, {})


def test_setup_is_harmless_twice_and_sets_what_it_says():
    lab.setup(seed=5)
    first = (torch.rand(1), np.random.rand())
    lab.setup(seed=5)
    assert (torch.rand(1), np.random.rand()) == first
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


def test_outputs_and_targets_that_would_broadcast_are_refused():
    net = nn.Linear(4, 1)
    flat = (torch.randn(3, 4), torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(
        ValueError, match=r"output has shape \(3, 1\) and the targets \(3,\).*y\[:, None\]"
    ):
        lab.evaluation.evaluate(net, flat, mse_loss)
    with pytest.raises(ValueError, match="give the targets as"):
        lab.training.fit(net, flat, loss=mse_loss, progress=False)
    with pytest.raises(ValueError, match="one a sample"):
        lab.evaluation.evaluate(nn.Linear(4, 3), (flat[0], torch.eye(3)), mse_loss)


def test_logits_of_a_single_output_are_classified_at_zero():
    net = nn.Linear(4, 1)
    data = (torch.randn(6, 4), torch.ones(6, 1))
    net.weight.data.zero_()
    net.bias.data.fill_(0.2)
    loss = nn.functional.binary_cross_entropy_with_logits
    both = lab.data.Data(data, data)
    fit = partial(lab.training.fit, net, both, loss=loss, epochs=1, progress=False)
    assert fit()[1].accuracy == [0.0]
    assert fit(threshold=0)[1].accuracy == [1.0]
    scores = {"weight": torch.ones(1, 4)}
    assert curves.accuracy_curve(net, scores, data, [0.5], loss=loss, threshold=0) == [1.0]


def test_whole_numbers_of_other_kinds_are_taken():
    assert checks.whole("k", np.int64(3)) == 3
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 1.0"):
        curves.interval([1.0, 2.0], 1.0)


def test_a_hook_sees_every_step_with_the_masks_in_place_and_may_change_the_model():
    model, kept = lab.models.mlp(hidden=(5,)), {}
    kept["1.weight"] = torch.rand(5, 64) < 0.5
    seen = []

    def clamp(net, step):
        seen.append(step)
        assert bool((net[1].weight[~kept["1.weight"]] == 0).all())
        net[1].weight.data.fill_(0.25)

    fit = partial(lab.training.fit, model, batch(), epochs=3, batch_size=15, progress=False)
    trained, _ = fit(masks=kept, after_step=clamp, optimizer=OPTIMIZERS["sgd"])
    assert seen == list(range(1, 10))
    assert torch.equal(trained[1].weight.detach(), 0.25 * kept["1.weight"])
    assert same_bytes(fit(after_step=lambda net, step: None)[0], fit()[0])
    with pytest.raises(StopIteration):
        fit(after_step=lambda net, step: next(iter(())))


def test_parameter_groups_are_those_of_the_copy():
    model = lab.models.mlp(hidden=(5,))

    def groups(net):
        assert net is not model
        return [{"params": [net[1].weight]}, {"params": [net[3].weight], "lr": 0.0}]

    sgd = partial(torch.optim.SGD, lr=0.1)
    fit = partial(lab.training.fit, model, batch(), epochs=2, progress=False, optimizer=sgd)
    trained, _ = fit(groups=groups)
    changed = [
        n for n, p in trained.named_parameters() if not torch.equal(p, model.get_parameter(n))
    ]
    assert changed == ["1.weight"]
    assert all(p.grad is None or not p.grad.any() for p in trained.parameters())
    assert same_bytes(fit(groups=lambda net: [{"params": list(net.parameters())}])[0], fit()[0])


def test_a_student_learns_from_soft_targets_and_is_measured_on_class_numbers():
    x, (u, v) = batch()[0], batch(10)
    teacher = lab.models.mlp(seed=1).eval()
    soft = teacher(x).softmax(1).detach()

    def distillation(output, target):
        return nn.functional.kl_div(output.log_softmax(1), target, reduction="batchmean")

    student = lab.models.mlp(hidden=(5,))
    fit = partial(lab.training.fit, student, epochs=3, loss=distillation, progress=False)
    trained, history = fit(lab.data.Data((x, soft), (u, v)))
    assert history.accuracy[-1] == lab.evaluation.evaluate(trained, (u, v)).accuracy
    labels = teacher(u).softmax(1).detach()
    again, measured = fit(lab.data.Data((x, soft), (u, labels)))
    assert same_bytes(trained, again)
    want = lab.evaluation.evaluate(trained, (u, labels.argmax(1))).accuracy
    assert measured.accuracy[-1] == want
    with pytest.raises(
        ValueError, match=r"one a sample, or probabilities of classes .* \(10, 10\)"
    ):
        fit(lab.data.Data((x, soft), (u, 3 * labels)))
    run = rounds.retrain(
        student,
        lab.data.Data((x, soft), (u, v)),
        rounds.by_criterion(lambda m, b, loss: masks.prunable(m), distillation),
        [0.5, 0.7],
        epochs=[1, 2],
        loss=distillation,
        progress=False,
    )
    assert [round(step.sparsity, 1) for step in run.steps] == [0.5, 0.7]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("outputs", [1, 7])
def test_accuracy_is_that_of_the_evaluation(outputs, threshold):
    generator = torch.Generator().manual_seed(outputs)
    net = nn.Linear(3, outputs)
    x = torch.randn(50, 3, generator=generator)
    y = torch.randint(0, max(2, outputs), (50,), generator=generator)
    loss = mse_loss if outputs == 1 else cross_entropy
    data = (x, y[:, None].to(x)) if outputs == 1 else (x, y)
    want = lab.evaluation.evaluate(net, data, loss, threshold=threshold).accuracy
    assert lab.evaluation.accuracy(net, data, threshold=threshold, chunk=8) == want


def test_a_batch_is_moved_to_the_models_device(monkeypatch):
    """On the device "meta" nothing is computed, but everything must be there."""
    seen = []
    monkeypatch.setattr(checks, "model", lambda given, x=None: given)

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, device="meta"))

        def forward(self, x):
            seen.append(x.device.type)
            return x

    lab.evaluation._outputs(Probe(), batch(4), 3)
    assert seen == ["meta", "meta"]


def choose_half(model, batch, step):
    return masks.keep_top(masks.prunable(model), step, absolute=True)


def test_the_loop_is_cutting_training_and_measuring_by_hand():
    data = lab.data.Data(batch(), batch(10))
    model = lab.models.mlp(hidden=(5,)).train()
    options = {"batch_size": 10, "progress": False}
    run = rounds.retrain(
        model, data, choose_half, [0.2, 0.6], epochs=(1, 2), seed=np.int64(3), **options
    )
    net = model
    for r, (sparsity, epochs) in enumerate([(0.2, 1), (0.6, 2)]):
        kept = choose_half(net, data.train, sparsity)
        cut = masks.apply(net, kept)
        net, _ = lab.training.fit(cut, data.train, masks=kept, epochs=epochs, seed=3 + r, **options)
        accuracies = [lab.evaluation.evaluate(each, data.test).accuracy for each in (cut, net)]
        counts = {name: int(mask.sum()) for name, mask in kept.items()}
        assert run.steps[r] == (masks.sparsity(kept), *accuracies, counts, sparsity)
    assert same_bytes(run.model, net)
    assert all(torch.equal(run.masks[n], m) for n, m in kept.items())
    nothing = rounds.retrain(model, data, choose_half, [], epochs=1)
    assert same_bytes(nothing.model, model)
    assert nothing.model is not model
    assert nothing.steps == []
    with pytest.raises(ValueError, match="zip"):
        rounds.retrain(model, data, choose_half, [0.5], epochs=[1, 2])


def test_a_loop_of_any_rule_goes_on_from_its_file(tmp_path, monkeypatch):
    data, file = lab.data.Data(batch(), batch(10)), tmp_path / "run.pt"
    model = lab.models.mlp(hidden=(5,))
    run = partial(rounds.retrain, model, data, steps=[0.2, 0.6], epochs=1, progress=False)
    want = run(choose=choose_half)
    fit, calls = rounds.fit, []

    def stops(*given, **options):
        calls.append(options["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*given, **options)

    monkeypatch.setattr(rounds, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        run(choose=choose_half, file=file)
    monkeypatch.setattr(rounds, "fit", fit)
    saved = file.read_bytes()
    with pytest.raises(ValueError, match="is of another run: choose was choose_half"):
        run(choose=lambda *given: choose_half(*given), file=file)
    assert file.read_bytes() == saved
    found = run(choose=choose_half, file=file)
    assert found.steps == want.steps
    assert same_bytes(found.model, want.model)
    state = saving.load(file)
    saving.save(file, state | {"steps": [(0.2, 0.1, 0.1)]})  # as older versions wrote them
    with pytest.raises(ValueError, match="run.pt is not a run of gradual"):
        run(choose=choose_half, file=file)
