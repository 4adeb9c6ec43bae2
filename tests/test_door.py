"""The public door: a loss on all data, labels of any whole type, draws that are owned, bad input by name."""

import collections
import functools
import json
import math
import pickle
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as f

from teachkit import (
    fisher,
    hessian,
    lab,
    magnitude,
    masks,
    neurons,
    obd,
    obs,
    paradox,
    schedule,
    taylor,
)
from teachkit.core import contract, door, losses, objective
from teachkit.lab import levenberg


def network(seed=0, inputs=4, classes=3):
    return lab.models.mlp((inputs,), classes, hidden=(5,), seed=seed).double()


def batch(n=9, inputs=4, classes=3, seed=1):
    dice = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=dice, dtype=torch.float64)
    return x, torch.arange(n) % classes


# The loss on all the data -------------------------------------------------------------------------

CLASS_WEIGHTS = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
LOSSES = {
    "plain": f.cross_entropy,
    "weights": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "ignored": nn.CrossEntropyLoss(ignore_index=0),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "own": lambda z, y: f.cross_entropy(z, y) ** 2,
}


@pytest.mark.parametrize("name", LOSSES)
@given(chunk=st.integers(1, 12), n=st.integers(2, 10))
@settings(max_examples=15, deadline=None)
def test_an_evaluation_is_the_loss_of_all_outputs(name, chunk, n):
    net, (x, y) = network(), batch(n)
    want = float(LOSSES[name](net(x).detach(), y))
    assert lab.evaluation.evaluate(net, (x, y), LOSSES[name], chunk=chunk).loss == pytest.approx(
        want, rel=1e-12
    )


def test_a_chunk_of_ignored_labels_is_no_nan():
    net, (x, _) = network(), batch(4)
    y = torch.tensor([0, 0, 1, 2])
    assert math.isfinite(lab.evaluation.evaluate(net, (x, y), LOSSES["ignored"], chunk=2).loss)


SUMS = {
    "module": nn.CrossEntropyLoss(reduction="sum"),
    "own": lambda z, y: f.cross_entropy(z, y) * len(y),
}
MEAN_WANTED = {
    "row_sums": obd.row_sums,
    "first_order": paradox.first_order,
    "gradient": taylor.gradient,
    "diagonal_naive": obd.diagonal_naive,
    "curvatures": hessian.curvatures,
    "subset": lambda net, b, loss: masks.best_subset(nn.Sequential(net[1]), b, 2, loss),
    "units": neurons.first_order,
    "fit": lambda net, b, loss: lab.training.fit(net, b, epochs=1, loss=loss, progress=False),
}


@pytest.mark.parametrize("loss", SUMS)
@pytest.mark.parametrize("name", MEAN_WANTED)
def test_a_sum_is_refused_by_name(name, loss):
    with pytest.raises(ValueError, match="the loss must be a mean over the samples"):
        MEAN_WANTED[name](network(), batch(), SUMS[loss])


def test_a_mean_with_weights_is_differentiated_as_it_is():
    net, (x, y) = network(), batch()
    g = taylor.gradient(net, (x, y), LOSSES["weights"])
    want = torch.autograd.grad(LOSSES["weights"](net(x), y), list(net.parameters()))
    torch.testing.assert_close(list(g.values()), list(want))


def test_targets_of_whole_numbers_are_not_spread_over_pairs():
    net, (x, _) = network(classes=1), batch()
    with pytest.raises(ValueError, match=r"the targets \(8,\); give the targets as y\[:, None\]"):
        taylor.gradient(net, (x, torch.arange(9)), f.mse_loss)


# Labels of any whole type -------------------------------------------------------------------------

LABELLED = {
    "diagonal": obd.diagonal,
    "gauss_newton": obd.gauss_newton,
    "recursion": obd.recursion,
    "fisher": fisher.diagonal,
    "true": lambda net, b: fisher.diagonal(net, b, kind="true"),
    "gradients": lambda net, b: {"G": fisher.gradients(net, b)},
    "changes": lambda net, b: paradox.changes(net, b).sd,
    "leave_one_out": paradox.leave_one_out,
    "gradient": taylor.gradient,
    "evaluate": lambda net, b: {"loss": torch.tensor(lab.evaluation.evaluate(net, b))},
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_whole_type_are_class_numbers(name, dtype):
    net, (x, _) = network(), batch(3)
    y = torch.tensor([1, 0, 0])
    torch.testing.assert_close(LABELLED[name](net, (x, y.to(dtype))), LABELLED[name](net, (x, y)))


def test_the_engine_reads_bytes_as_class_numbers():
    from teachkit.core.losses import derivatives

    z, y = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 0])
    found, want = derivatives(f.cross_entropy, z, y.byte()), derivatives(f.cross_entropy, z, y)
    torch.testing.assert_close(found.gradient, want.gradient)


# What can be walked through once, and what is left out ---------------------------------------------


def test_sparsities_may_come_from_a_generator():
    net, data = network(), lab.data.Data(batch(), batch(6, seed=2))
    options = {"epochs": 1, "progress": False}
    found = obd.recipe(net, data, (s for s in (0.2, 0.4)), **options)
    want = obd.recipe(net, data, [0.2, 0.4], **options)
    assert found.steps == want.steps
    assert len(found.steps) == 2
    curves = magnitude.sensitivity(net, data.test, (s for s in (0.0, 0.5)))
    assert curves == magnitude.sensitivity(net, data.test, [0.0, 0.5])


@pytest.mark.parametrize("spent", [[], iter(()), (s for s in ())])
def test_no_sparsities_are_refused(spent):
    data = lab.data.Data(batch(), batch())
    with pytest.raises(ValueError, match="sparsities must not be empty"):
        obd.recipe(network(), data, spent, progress=False)
    with pytest.raises(ValueError, match="sparsities must not be empty"):
        magnitude.sensitivity(network(), batch(), [])


def test_matched_sets_need_masks_and_keys_of_one_shape():
    key = {"w": torch.arange(12.0).reshape(3, 4)}
    kept, dice = {"w": key["w"] > 5}, torch.Generator()
    for wrong, says in (
        ({"w": kept["w"].long()}, "must be boolean"),
        ({"w": kept["w"].T}, r"has shape \(4, 3\)"),
        ({"w": kept["w"][:2]}, r"has shape \(2, 4\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=says):
            paradox.matched(wrong, key, dice)
    with pytest.raises(ValueError, match=r"key\['w'\] has 12 NaN"):
        paradox.matched(kept, {"w": key["w"] * math.nan}, dice)
    with pytest.raises(ValueError, match="allowed are"):
        paradox.matched(kept, {"v": key["w"]}, dice)


def test_a_parameter_named_twice_is_refused():
    with pytest.raises(ValueError, match="names must differ"):
        hessian.of_model(network(), batch(), names=["1.bias", "1.bias"])


def only_first(model, batch, loss=f.cross_entropy):
    return dict(list(magnitude.scores(model).items())[:1])


def test_a_criterion_that_leaves_out_a_layer_is_refused():
    data = lab.data.Data(batch(), batch())
    with pytest.raises(ValueError, match=r"scores are missing for \['3.weight'\]"):
        schedule.gradual(
            network(), data, only_first, schedule.constant(0.8), steps=1, epochs=0, progress=False
        )
    with pytest.raises(ValueError, match="scores are missing"):
        list(paradox.stepwise(network(), batch(), 0.8, 1, only_first))


@given(st.lists(st.integers(-(2**62), 2**62), min_size=4, max_size=4), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_whole_scores_rank_like_their_order(values, sparsity):
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0.0, 2.0, 3.0]])
    scores = {"weight": torch.tensor([values])}
    order = {v: float(i) for i, v in enumerate(sorted(set(values)))}
    ranks = {"weight": torch.tensor([[order[v] for v in values]])}
    kept = masks.keep_top(masks.zeros_last(scores, layer), sparsity)
    want = masks.keep_top(masks.zeros_last(ranks, layer), sparsity)
    assert torch.equal(kept["weight"], want["weight"])


# Draws that are owned ------------------------------------------------------------------------------

DRAWS = {
    "scores": lambda: neurons.scores(network(), batch(), "random"),
    "prune": lambda: neurons.prune(network(), batch(), 0.4, "random").state_dict(),
    "residual": lambda: lab.models.residual(2, 1).state_dict(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_does_not_depend_on_draws_before(name):
    first = DRAWS[name]()
    torch.rand(7)
    state = torch.get_rng_state()
    torch.testing.assert_close(DRAWS[name](), first, rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state())


def test_who_needs_a_generator_says_so():
    kept = {"w": torch.ones(3) > 0}
    for call in (
        lambda: paradox.matched(kept, {"w": torch.ones(3)}, None),
        lambda: obd.hutchinson(network(), batch(), generator=None),
        lambda: magnitude.random_scores(network(), None),
    ):
        with pytest.raises(TypeError, match="generator must be a torch.Generator, got None"):
            call()


# The model and the batch ---------------------------------------------------------------------------


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


X, Y = batch()
REFUSED = {
    "meta model": (network().to("meta"), (X, Y), "on the meta device"),
    "lazy model": (lazy(), (X, Y), "it is lazy"),
    "no model": (3, (X, Y), "model must be a torch.nn.Module, got int"),
    "whole inputs": (network(), (torch.ones(9, 4).long(), Y), "x, a int64 tensor"),
    "size": (network(), (X[:, :3], Y), r"the batch's x, a float64 tensor \(2, 3\)|\(9, 3\)"),
    "float32": (network(), (X.float(), Y), "convert one"),
    "large label": (network(), (X, Y + 7), "from 7 to 9"),
    "negative label": (network(), (X, Y - 1), "from -1 to 1"),
    "float label": (network(), (X, Y.double()), r"y, a float64 tensor \(9,\)"),
    "label shape": (network(), (X, Y[:, None]), r"y, a int64 tensor \(9, 1\)"),
    "empty": (network(), (X[:0], Y[:0]), "at least 1"),
    "lengths": (network(), (X, Y[:4]), "of one length"),
    "no pair": (network(), X, r"must be a tuple \(x, y\)"),
    "NaN": (network(), (X * math.nan, Y), "x has 36 NaN"),
}
DOORS = {
    "obd": obd.scores,
    "fisher": fisher.diagonal,
    "naive": obd.diagonal_naive,
    "taylor": taylor.gradient,
    "curvatures": hessian.curvatures,
    "evaluate": lab.evaluation.evaluate,
    "one out": paradox.leave_one_out,
    "fit": lambda net, b: lab.training.fit(net, b, epochs=1, progress=False),
}


@pytest.mark.parametrize("wrong", REFUSED)
@pytest.mark.parametrize("name", DOORS)
def test_a_model_and_a_batch_that_do_not_fit_are_refused_in_a_sentence(name, wrong):
    net, given, says = REFUSED[wrong]
    with pytest.raises((TypeError, ValueError), match=says):
        DOORS[name](net, given)


def test_tensors_of_inference_mode_are_data_like_others():
    with torch.inference_mode():
        x, y = X.clone(), Y.clone()
    torch.testing.assert_close(obd.scores(network(), (x, y)), obd.scores(network(), (X, Y)))


def test_numbers_of_numpy_are_numbers():
    fitted = lab.training.fit(
        network(), (X, Y), epochs=np.int64(1), batch_size=np.int64(2), progress=False
    )[0]
    want = lab.training.fit(network(), (X, Y), epochs=1, batch_size=2, progress=False)[0]
    torch.testing.assert_close(fitted.state_dict(), want.state_dict(), rtol=0, atol=0)


def test_no_weights_are_said():
    with pytest.raises(ValueError, match="no prunable weight"):
        magnitude.by_layer(nn.ReLU(), 1.0)


# The door itself -----------------------------------------------------------------------------------


def test_the_house_is_left_as_it_is_behind_the_door():
    assert obd.saliency.__name__ == "saliency"
    assert obd.diagonal.__wrapped__.__module__ == "teachkit.engine.curvature"
    assert door.guard(obd.saliency) is obd.saliency


def test_a_fault_of_ones_own_function_passes_as_it_is():
    def broken(output, target):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        lab.evaluation.evaluate(network(), batch(), broken)


def test_the_house_asks_once():
    asked = []

    def f(model: nn.Module, x: float) -> float:
        asked.append(x)
        return inner(x) if x else 0.0

    def inner(x: float) -> str:
        return x

    guarded = door.guard(f)
    assert guarded(network(), 1.0) == 1.0
    with pytest.raises(TypeError, match="x must be a number, got 'a'"):
        guarded(network(), "a")
    assert asked == [1.0]


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (int, 1.5, "n must be a whole number, got 1.5"),
        (int, True, "n must be a whole number, got True"),
        (float, math.nan, "n must be a finite number, got nan"),
        (bool, 1, "n must be True or False, got 1"),
        (list[int], "ab", "n must be a list, got 'ab'"),
        (list[int], [1, "b"], r"n\[1\] must be a whole number, got 'b'"),
        (dict[str, float], {"a": "b"}, r"n\['a'\] must be a number, got 'b'"),
        (int | None, "x", "n must be a whole number, got 'x'"),
    ],
)
def test_hints_are_held(hint, value, says):
    with pytest.raises((TypeError, ValueError), match=says):
        contract.fitting("n", value, hint)


@pytest.mark.parametrize(
    "path", sorted(Path(obd.__file__).parent.glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_every_lesson_stands_behind_the_door(path):
    assert path.read_text("utf-8").endswith("\n\ndoor.hold(globals())\n")


def test_a_sum_may_be_told_apart_by_its_option():
    output, target = torch.zeros(2, 2), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="reduction 'sum'"):
        objective.refuse_sum(nn.MSELoss(reduction="sum"), output, target)


def test_a_lazy_module_is_no_function_to_differentiate():
    with pytest.raises(ValueError, match="parameter 'weight' has no shape yet"):  # torch crashes
        hessian.dense_naive(nn.LazyLinear(1), torch.zeros(2))


SILENT = {
    "labels": lambda: losses.derivatives(f.cross_entropy, torch.zeros(3, 2), torch.tensor([0, 1])),
    "images": lambda: lab.data.as_batch(
        torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(2).byte()
    ),
    "k must": lambda: lab.data.monks_rule(4, (1, 1, 1, 1, 1, 1)),
    "boolean": lambda: masks.operations_naive(torch.full((2, 2), 1e300), 1, bias=False),
    "negative diagonal": lambda: neurons.costs(torch.ones(1, 2), -torch.eye(2)),
    "m must": lambda: masks.keep_n_of_m_naive(torch.ones(2, 4), 2, -1),
    "form must": lambda: lab.storage.packed(torch.ones(2, 2), "csr "),
    "target has": lambda: levenberg.fit(
        lambda theta: (theta @ torch.ones(1, 2), torch.ones(1, 2, 1)),
        torch.zeros(1, 1),
        torch.zeros(1),
    ),
    "inputs must": lambda: lab.timing.break_even(2, 0, 1),
}


@pytest.mark.parametrize("says", SILENT)
def test_what_would_be_wrong_in_silence_is_refused(says):
    with pytest.raises((TypeError, ValueError), match="targets" if says == "labels" else says):
        SILENT[says]()


# The door changes nothing but what is refused ------------------------------------------------------


def pruning(criterion):
    data = lab.data.Data(batch(), batch())
    options = {"steps": 1, "epochs": 0, "progress": False}
    return schedule.gradual(network(), data, criterion, schedule.constant(0.8), **options)


def test_what_a_callback_gives_to_the_house_is_checked_too():
    found = []

    def walks_once(model, given, loss=f.cross_entropy):
        found.append(magnitude.sensitivity(model, given, (s for s in (0.1, 0.5))))
        return magnitude.scores(model)

    def wrong(model, given, loss=f.cross_entropy):
        return magnitude.sensitivity(model, given, [1.5])

    pruning(walks_once)
    assert all(len(each) == 2 for each in found[0].values())
    with pytest.raises(ValueError, match=r"sparsities\[0\]|sparsity must lie"):
        pruning(wrong)


@pytest.mark.parametrize("error", [json.JSONDecodeError, queue.Empty])
def test_an_error_that_a_callback_gets_from_python_passes_as_it_is(error):
    def broken(model, given, loss=f.cross_entropy):
        return json.loads("{") if error is json.JSONDecodeError else queue.Queue().get_nowait()

    with pytest.raises(error):
        pruning(broken)


def test_memory_that_is_out_is_said_as_it_is():
    def full(output, target):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        lab.evaluation.evaluate(network(), batch(), full)


@pytest.mark.parametrize("n", [1, 6])
def test_a_refusal_leaves_a_model_in_training_mode_as_it_is(n):
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(ValueError, match="loss cannot compare"):
        lab.evaluation.evaluate(net, (X[:n], Y[:n] + 7))
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert net.training


def test_a_copy_of_a_function_by_wraps_is_another_function():
    @functools.wraps(paradox.first_order)
    def turned(model, given, loss=f.cross_entropy):
        return {name: -t for name, t in paradox.first_order(model, given, loss).items()}

    found, want = door.guard(turned)(network(), batch()), paradox.first_order(network(), batch())
    assert all(torch.equal(found[name], -want[name]) for name in want)


@pytest.mark.parametrize(
    "lesson", [fisher, hessian, magnitude, masks, neurons, obd, obs, paradox, taylor]
)
def test_public_functions_go_to_other_processes(lesson):
    for value in vars(lesson).values():
        if hasattr(value, "__held__"):
            assert pickle.dumps(value)


Pair = collections.namedtuple("Pair", "a b")
RIGHT = {
    "a text of numpy": (Literal["row", "layer"], np.str_("row"), "row"),
    "a named tuple": (Sequence[int], Pair(np.int64(1), 2), (1, 2)),
    "a size": (Sequence[int], torch.Size([1, 2]), (1, 2)),
    "a range": (Sequence[int], range(2), range(2)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_taken(name):
    hint, value, want = RIGHT[name]
    assert contract.fitting("n", value, hint) == want


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 10**400),
        (Sequence[float], np.array(3.0)),
        (torch.Tensor, torch.ones(2).to(torch.float8_e4m3fn)),
    ],
)
def test_what_python_or_torch_would_trip_over_is_refused_by_name(hint, value):
    with pytest.raises((TypeError, ValueError), match="^n must be"):
        contract.fitting("n", value, hint)


def test_a_batch_may_be_the_list_that_a_loader_gives():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=9)
    (given,) = loader
    assert isinstance(given, list)
    torch.testing.assert_close(obd.scores(network(), given), obd.scores(network(), (X, Y)))


@pytest.mark.parametrize("n", [1, 6])
def test_an_accuracy_compares_each_prediction_with_its_own_target(n):
    class Grid(nn.Module):
        def forward(self, x):
            return x[:, :3, None].expand(-1, -1, self.cells)

    net, loss = Grid(), lambda z, y: f.cross_entropy(z.mean(2), y)
    net.cells = 1
    found = lab.evaluation.evaluate(net, (X[:n], Y[:n]), loss).accuracy
    assert found == pytest.approx(float((X[:n, :3].argmax(1) == Y[:n]).double().mean()))
    net.cells = 2
    with pytest.raises(ValueError, match="one for each prediction"):
        lab.evaluation.evaluate(net, (X[:n], Y[:n]), loss)


@pytest.mark.parametrize("function", [lab.evaluation.evaluate, taylor.gradient, obd.diagonal])
def test_a_model_that_gives_more_than_a_tensor_is_refused(function):
    net = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3, batch_first=True)).double()
    with pytest.raises(ValueError, match="model must give one tensor, got tuple"):
        function(net, (X[:, None], Y))
