"""Exercises that are experiments: what is measured, and what is said of answers that fail."""

import torch

from teachkit import paradox
from teachkit.show.exercises import all_trials, exercise
from teachkit.show.lessons import paradox_tasks
from teachkit.show.trials import STUB, Trial
from teachkit.show.verdicts import verdict

GOOD = ([2.0, 2.0], [[3.0, 3.0], [3.0, 3.0]], [1.0, 1.0])


def pair(*answer):
    return verdict("11.1", lambda: answer if len(answer) != 1 else answer[0])


def mend(answer):
    return verdict("11.3", lambda W, b, W_cut, x: answer)


def images(answer):
    return verdict("11.4", lambda y: answer)


def repaired():
    net, cut, digits = paradox_tasks.pruned()
    return paradox_tasks.matrices(paradox.repair(net, cut, digits.train[0][:400]), "bias")


def test_every_trial_says_stub_raise_and_nothing():
    assert {"11.1", "11.3", "11.4"} <= set(all_trials())
    for name, trial in all_trials().items():
        assert isinstance(exercise(name), Trial)
        n = len(trial.ask())
        assert verdict(name, lambda *given: ...) == STUB
        names = {0: lambda: None, 1: lambda a: None, 4: lambda a, b, c, d: None}
        assert verdict(name, names[n]).startswith("not yet: your function returns nothing")
        raising = {0: lambda: 1 / 0, 1: lambda a: 1 / 0, 4: lambda a, b, c, d: 1 / 0}
        assert "ZeroDivisionError" in verdict(name, raising[n])
        for odd in ("word", 12345.0, [], torch.tensor(float("nan")), object(), [[1, 2], [3]]):
            odds = {0: lambda o=odd: o, 1: lambda a, o=odd: o, 4: lambda a, b, c, d, o=odd: o}
            assert verdict(name, odds[n]).startswith("not yet:"), (name, odd)


def test_two_weights_are_judged_by_their_promises_and_their_sum():
    assert pair(*GOOD).startswith("correct. The promises are -0.5 and -0.5; both together")
    assert pair(GOOD).startswith("correct.")
    twos = ([2.0, 2.0], [[2.0, 2.0], [2.0, 2.0]], [1.0, 1.0])
    assert "both removals together must raise the loss" in pair(*twos)
    assert "each removal alone must promise" in pair([0.0, 2.0], GOOD[1], GOOD[2])
    assert "negative eigenvalue" in pair(GOOD[0], [[2.0, 3.0], [3.0, 2.0]], GOOD[2])
    assert "symmetric" in pair(GOOD[0], [[3.0, 2.0], [1.0, 3.0]], GOOD[2])
    assert "finite" in pair([float("nan"), 2.0], *GOOD[1:])
    assert "the shapes of g, H and w" in pair([2.0], *GOOD[1:])


def test_a_network_is_mended_by_its_biases_alone():
    assert mend(repaired()).startswith("correct. Test accuracy 0.15 before")
    before = paradox_tasks.matrices(paradox_tasks.pruned()[0], "bias")
    assert mend(before).startswith("not yet: Test accuracy 0.15 before, 0.15 with your biases")
    assert "list of three tensors" in mend(repaired()[:2])
    assert "a bias is not finite" in mend([b * float("nan") for b in repaired()])
    assert mend(repaired()).startswith(
        "correct."
    )  # nothing was moved in the network that is judged


def test_the_images_of_an_estimate_are_counted():
    assert images(range(200)).startswith("correct. T2 is broken. T2 from 200 images")
    assert images(range(1400)).startswith("not yet: T2 still wins. T2 from 1400 images")
    assert images(torch.arange(1400) < 300).endswith("Score: 300 images.")
    assert "positions must differ" in images([1, 1])
    assert "between 0 and 1399" in images([1400])
    assert "between 0 and 1399" in images([-1])
    assert "whole numbers" in images([0.5])


def test_an_endless_function_is_stopped(monkeypatch):
    monkeypatch.setattr("teachkit.show.running.LIMIT", 0.2)

    def forever():
        while True:
            pass

    assert verdict("11.1", forever).startswith("not yet: your function takes longer")
