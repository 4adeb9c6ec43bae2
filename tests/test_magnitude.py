"""The data-free criteria."""

import pytest
import torch

from teachkit import lab, magnitude, masks


@pytest.mark.parametrize("name", lab.models.MODELS)
def test_scores_are_absolute_weights_under_the_right_keys(name):
    model = lab.models.MODELS[name]((1, 8, 8))
    weights = masks.prunable(model)
    for scores in (magnitude.scores(model), magnitude.random_scores(model, torch.Generator())):
        assert {n: s.shape for n, s in scores.items()} == {n: w.shape for n, w in weights.items()}
        assert not any(s.requires_grad for s in scores.values())
    assert all(torch.equal(s, weights[n].abs()) for n, s in magnitude.scores(model).items())


def test_random_scores_follow_their_generator_alone():
    model = lab.models.mlp()
    draws = [
        magnitude.random_scores(model, torch.Generator().manual_seed(s))["1.weight"]
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    state = torch.get_rng_state()
    magnitude.random_scores(model, torch.Generator())
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(TypeError, match="generator must be a torch.Generator, got int"):
        magnitude.random_scores(model, 3)


def test_random_scores_are_uniform():
    w = magnitude.random_scores(lab.models.lenet_300_100(), torch.Generator().manual_seed(5))[
        "1.weight"
    ]
    assert 0 <= float(w.min()) <= float(w.max()) < 1
    assert float(w.mean()) == pytest.approx(0.5, abs=5 * (1 / 12 / w.numel()) ** 0.5)
