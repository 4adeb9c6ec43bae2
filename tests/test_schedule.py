"""Schedules, the prune-retrain loop, and the search within a bound."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit import lab, magnitude, masks, obd, schedule

levels = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted)
spans = st.tuples(st.integers(0, 20), st.integers(1, 30)).map(lambda t: (t[0], t[0] + t[1]))
SHAPES = [schedule.linear, schedule.cubic, schedule.exponential]


@given(st.sampled_from(SHAPES), levels, spans)
def test_schedules_rise_from_start_to_end_and_stay_there(make, level, span):
    (low, high), (start, end) = level, span
    rule = make(low, high, start, end)
    steps = [rule(t) for t in range(end + 3)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(steps))
    assert set(steps[: start + 1]) == {low}
    assert set(steps[end:]) == {high}


@given(levels, spans, st.floats(0, 1))
def test_each_shape_is_its_formula(level, span, u):
    (low, high), (start, end) = level, span
    t = start + u * (end - start)
    u = (t - start) / (end - start)
    assert schedule.linear(low, high, start, end)(t) == pytest.approx(low * (1 - u) + high * u)
    zhu = high + (low - high) * (1 - (t - start) / (end - start)) ** 3
    assert schedule.cubic(low, high, start, end)(t) == pytest.approx(zhu)
    left = (1 - low) ** (1 - u) * (1 - high) ** u
    assert schedule.exponential(low, high, start, end)(t) == pytest.approx(1 - left)


@given(levels, st.integers(1, 10), st.integers(0, 7))
def test_warm_up_and_steps_compose(level, dt, wait):
    rule = schedule.cubic(*level, 0, 12)
    held = schedule.every(rule, dt)
    for t in range(30):
        assert held(t) == rule(t - t % dt)
        assert schedule.delayed(rule, wait)(t) == rule(max(0, t - wait))


def test_the_exponential_removes_the_same_share_of_the_rest_each_time():
    rule = schedule.exponential(0, 1 - 0.8**5, 0, 5)
    left = [1 - rule(t) for t in range(6)]
    assert [b / a for a, b in itertools.pairwise(left)] == pytest.approx([0.8] * 5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: schedule.cubic(0.5, 0.2, 0, 1), "must not fall, got initial=0.5 and final=0.2"),
        (lambda: schedule.linear(0, 1.2, 0, 1), r"final must lie in \[0, 1\], got 1.2"),
        (lambda: schedule.linear(0, 0.5, 3, 3), "needs 0 <= start < end, got start=3 and end=3"),
        (
            lambda: schedule.linear(0, 0.5, -1, 3),
            "start must be a finite number of 0 or more, got -1",
        ),
        (lambda: schedule.exponential(0, 1.0, 0, 3), "never reaches it"),
        (lambda: schedule.every(schedule.constant(0.5), 0), "steps must be a whole number from 1"),
        (lambda: schedule.one_shot(math.nan), r"final must lie in \[0, 1\], got nan"),
        (lambda: schedule.one_shot(0.9, math.nan), "start must be a finite number .* got nan"),
        (lambda: schedule.cubic(0, 0.9, 0, math.inf), "end must be a finite number .* got inf"),
        (lambda: schedule.delayed(schedule.constant(0.5), -2), "steps must be .* got -2"),
    ],
)
def test_bad_schedules_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("make", [schedule.delayed, schedule.every])
def test_a_schedule_is_a_function(make):
    with pytest.raises(TypeError, match=r"schedule must be a function of the step, got 0.5"):
        make(0.5, 2)


def by_magnitude(model, batch, loss):
    return magnitude.scores(model)


def few():
    data = lab.data.digits()
    data = lab.data.Data(tuple(p[:300] for p in data.train), tuple(p[:100] for p in data.test))
    return data, lab.training.fit(lab.models.mlp(hidden=(16,)), data, epochs=10, progress=False)[0]


def options(**more):
    return {"steps": 3, "epochs": 7, "progress": False, **more}


def test_the_loop_follows_the_schedule_and_spends_the_budget(monkeypatch):
    data, net = few()
    spent, fit = [], lab.rounds.fit
    monkeypatch.setattr(
        lab.rounds,
        "fit",
        lambda *a, epochs, **k: spent.append(epochs) or fit(*a, epochs=epochs, **k),
    )
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rule = schedule.linear(0, 0.9, 0, 3)
    run = schedule.gradual(net, data, by_magnitude, rule, **options())
    assert spent == [2, 2, 3]
    assert [s.sparsity for s in run.steps] == pytest.approx([0.3, 0.6, 0.9], abs=1 / 592)  # weights
    n = sum(m.numel() for m in run.masks.values())
    assert sum(int((~m).sum()) for m in run.masks.values()) == masks.removed(n, 0.9)
    assert all(torch.equal(m, run.model.get_parameter(k) != 0) for k, m in run.masks.items())
    assert run.steps[-1].retrained == lab.evaluation.evaluate(run.model, data.test).accuracy
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def largest_first(model, batch, loss):
    return {name: -score for name, score in magnitude.scores(model).items()}


def test_what_is_gone_stays_gone_whatever_the_criterion_gives_a_zero():
    data, net = few()
    rule, plan = schedule.linear(0, 0.6, 0, 2), {"epochs": 2, "progress": False}
    first = schedule.gradual(net, data, largest_first, schedule.constant(0.3), steps=1, **plan)
    both = schedule.gradual(net, data, largest_first, rule, steps=2, **plan)
    n = sum(m.numel() for m in both.masks.values())
    assert all(bool((both.masks[k] <= m).all()) for k, m in first.masks.items())
    assert sum(int((p == 0).sum()) for p in masks.prunable(both.model).values()) == masks.removed(
        n, 0.6
    )


def test_each_step_takes_the_next_seed(monkeypatch):
    data, net = few()
    seeds, fit = [], lab.rounds.fit
    monkeypatch.setattr(
        lab.rounds, "fit", lambda *a, seed, **k: seeds.append(seed) or fit(*a, seed=seed, **k)
    )
    schedule.gradual(net, data, by_magnitude, schedule.constant(0.5), **options(seed=5, epochs=3))
    obd.recipe(net, data, [0.5, 0.6], epochs=1, criterion=by_magnitude, seed=2, progress=False)
    assert seeds == [5, 6, 7, 2, 3]


def test_one_step_is_one_shot_and_constant_keeps_the_first_mask():
    data, net = few()
    once = schedule.gradual(net, data, obd.scores, schedule.constant(0.8), **options(steps=1))
    _, kept = obd.prune(net, data.train, 0.8)
    assert all(torch.equal(m, kept[n]) for n, m in once.masks.items())
    held = schedule.gradual(net, data, obd.scores, schedule.constant(0.8), **options(epochs=2))
    assert all(torch.equal(m, kept[n]) for n, m in held.masks.items())


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_loop_goes_on_to_the_same_result(tmp_path, after, monkeypatch):
    data, net = few()
    rule, file = schedule.cubic(0, 0.9, 0, 3), tmp_path / "deep" / "run.pt"
    want = schedule.gradual(net, data, by_magnitude, rule, **options())
    calls, scores = [], magnitude.scores

    def stops(model):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return scores(model)

    given = options(file=file, seed=np.int64(0), epochs=np.int64(7))
    monkeypatch.setattr(magnitude, "scores", stops)
    with pytest.raises(KeyboardInterrupt):
        schedule.gradual(net, data, by_magnitude, rule, **given)
    monkeypatch.setattr(magnitude, "scores", scores)
    found = schedule.gradual(net, data, by_magnitude, rule, **given)
    assert found.steps == want.steps
    assert all(
        torch.equal(p, want.model.state_dict()[n]) for n, p in found.model.state_dict().items()
    )
    monkeypatch.setattr(lab.rounds, "fit", None)  # a finished run trains nothing more
    assert schedule.gradual(net, data, by_magnitude, rule, **options(file=file)).steps == want.steps
    assert [p.name for p in file.parent.iterdir()] == ["run.pt"]


def test_a_file_of_another_run_is_refused(tmp_path):
    data, net = few()
    file = tmp_path / "run.pt"
    schedule.gradual(
        net, data, by_magnitude, schedule.constant(0.5), **options(file=file, epochs=0)
    )
    for change in (
        {"seed": 1},
        {"scope": "layer"},
        {"batch_size": 32},
        {"epochs": 3},
        {"loss": torch.nn.functional.nll_loss},
        {"optimizer": functools.partial(torch.optim.SGD, lr=9)},
        {"optimizer": torch.optim.SGD},
    ):
        with pytest.raises(ValueError, match="is of another run: "):
            schedule.gradual(
                net,
                data,
                by_magnitude,
                schedule.constant(0.5),
                **options(file=file, **{"epochs": 0, **change}),
            )
    other = lab.models.mlp(hidden=(16,), seed=4)
    less = lab.data.Data(data.train, tuple(part[:99] for part in data.test))
    for run in (
        (other, data, by_magnitude),
        (net, less, by_magnitude),
        (net, data, largest_first),
    ):
        with pytest.raises(ValueError, match="is of another run: "):
            schedule.gradual(*run, schedule.constant(0.5), **options(file=file, epochs=0))


@pytest.mark.parametrize("content", [b"", b"not a run", None])
def test_a_file_that_is_no_run_is_refused_in_words(tmp_path, content):
    data, net = few()
    file = tmp_path / "run.pt"
    file.write_bytes(content) if content is not None else torch.save(net.state_dict(), file)
    with pytest.raises(ValueError, match=r"run.pt is not a run of gradual"):
        schedule.gradual(
            net, data, by_magnitude, schedule.constant(0.5), **options(file=file, epochs=0)
        )


def test_more_zeros_than_asked_for_stay_zero():
    data, net = few()
    sparse, kept = obd.prune(net, data.train, 0.7)
    run = schedule.gradual(
        sparse, data, by_magnitude, schedule.constant(0.3), **options(steps=2, epochs=2)
    )
    assert all(torch.equal(mask, kept[name]) for name, mask in run.masks.items())
    assert masks.sparsity(masks.nonzero(run.model)) == run.steps[-1].sparsity
    assert run.steps[-1].sparsity == pytest.approx(0.7, abs=1e-3)


def test_the_loop_passes_on_what_it_is_asked(monkeypatch):
    data, net = few()
    seen, fit = [], lab.rounds.fit
    monkeypatch.setattr(lab.rounds, "fit", lambda *a, **k: seen.append(k) or fit(*a, **k))
    losses = []

    def doubled(output, target):
        return 2 * torch.nn.functional.cross_entropy(output, target)

    def by_layer_size(model, batch, loss):
        losses.append(loss)
        return {n: s + len(s) for n, s in magnitude.scores(model).items()}

    given = options(
        batch_size=30, scope="layer", loss=doubled, optimizer=torch.optim.Adagrad, steps=1, epochs=1
    )
    run = schedule.gradual(net, data, by_layer_size, schedule.constant(0.5), **given)
    assert seen[0]["batch_size"] == 30
    assert (seen[0]["loss"], seen[0]["optimizer"], losses) == (
        doubled,
        torch.optim.Adagrad,
        [doubled],
    )
    assert [masks.sparsity({n: m}) for n, m in run.masks.items()] == [0.5, 0.5]
    with pytest.raises(TypeError, match=r"data must be lab.data.Data\(train, test\), got tuple"):
        schedule.gradual(net, data.train, by_magnitude, schedule.constant(0.5), **options())


def test_bfloat16_networks_are_pruned_too(tmp_path):
    data, net = few()
    x, y = data.train
    half = lab.data.Data((x.bfloat16(), y), (data.test[0].bfloat16(), data.test[1]))
    given = options(file=tmp_path / "run.pt", steps=1, epochs=0)
    run = schedule.gradual(net.bfloat16(), half, by_magnitude, schedule.constant(0.5), **given)
    assert masks.sparsity(run.masks) == 0.5


def test_a_falling_schedule_is_refused():
    data, net = few()
    with pytest.raises(ValueError, match="must not fall, got 0.5 and then 0.25"):
        schedule.gradual(net, data, by_magnitude, lambda t: 0.5**t, **options())
    with pytest.raises(ValueError, match=r"schedule\(1\) must lie in \[0, 1\], got 2"):
        schedule.gradual(net, data, by_magnitude, lambda t: 2, **options())


@given(st.floats(0, 1), st.sampled_from([0.1, 0.01, 0.003]))
def test_bisection_finds_the_edge(edge, tolerance):
    """A network is its sparsity here, and keeps accuracy 1 up to the edge."""
    found = schedule.within_bound(lambda s: s, lambda s: float(s <= edge), 0.5, tolerance=tolerance)
    assert found.sparsity <= edge <= found.sparsity + tolerance
    assert found.accuracy == 1
    assert len(found.runs) <= 2 + math.ceil(math.log2(1 / tolerance))
    assert found.model == found.sparsity


def test_a_bound_that_never_holds_is_said():
    with pytest.raises(ValueError, match="at sparsity 0.5 the accuracy is 0.1, below 0.9"):
        schedule.within_bound(lambda s: s, lambda s: 0.1, 0.9, low=0.5)
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"tolerance must be .* got {bad}"):
            schedule.within_bound(lambda s: s, lambda s: 1.0, 0.9, tolerance=bad)
    with pytest.raises(ValueError, match="got low=0.9 and high=0.2"):
        schedule.within_bound(lambda s: s, lambda s: 1.0, 0.9, low=0.9, high=0.2)
    with pytest.raises(ValueError, match=r"the accuracy must lie in \[0, 1\], got nan"):
        schedule.within_bound(lambda s: s, lambda s: math.nan if s else 1.0, 0.9)


def test_an_accuracy_at_the_floor_is_within_the_bound_and_the_search_ends():
    found = schedule.within_bound(lambda s: s, lambda s: 0.9, 0.9, tolerance=1e-17)
    assert found.sparsity > 1 - 1e-15
    assert len(found.runs) < 100
    assert (
        len(schedule.within_bound(lambda s: s, lambda s: 0.9, 0.9, low=0.5, tolerance=0.5).runs)
        == 1
    )
