"""Leave-one-out: every layer kind that may come after, and what is refused."""

import copy

import oracles
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import neurons
from teachkit.engine import leave_one_out as engine

BATCH = (
    torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double(),
    torch.arange(9) % 2,
)
CHAINS = {
    "one layer": [nn.Linear(3, 2)],
    "works in place": [nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)],
    "two activations": [nn.Linear(3, 4), nn.Tanh(), nn.Dropout(), nn.Softplus(), nn.Linear(4, 2)],
    "batch norm behind": [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)],
    "a slope for each unit": [nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)],
    "pooling": [nn.Linear(3, 4), nn.MaxPool1d(2), nn.Linear(2, 2)],
    "ends in an activation": [nn.Linear(3, 2), nn.Sigmoid()],
    "nested": [nn.Flatten(), nn.Sequential(nn.Linear(3, 4), nn.ELU()), nn.Linear(4, 2)],
}


def chain(name):
    net = nn.Sequential(*copy.deepcopy(CHAINS[name])).double().eval()
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator).double()
    return net


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("at_once", [1, 2**16])
def test_it_is_the_loss_of_a_copy_without_the_weight(name, at_once, monkeypatch):
    monkeypatch.setattr(engine, "AT_ONCE", at_once)
    monkeypatch.setattr(engine, "STEPS", at_once)
    net, before = chain(name), BATCH[0].clone()
    found, want = engine.leave_one_out(net, BATCH), oracles.leave_one_out(net, BATCH)
    assert list(found) == list(want)
    for key, change in found.items():
        torch.testing.assert_close(change, want[key], rtol=1e-9, atol=1e-12)
        assert not change.requires_grad
    assert torch.equal(BATCH[0], before)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.GELU()])
def test_units_behind_which_a_layer_works_in_place(activation):
    layers = [nn.Linear(3, 4), activation, nn.Linear(4, 5), activation, nn.Linear(5, 2)]
    net = nn.Sequential(*layers).double()
    found, want = neurons.leave_one_out(net, BATCH), neurons.leave_one_out_naive(net, BATCH)
    for key, change in want.items():
        torch.testing.assert_close(found[key], change)


def test_training_mode_is_left_alone_and_not_used():
    net = chain("batch norm behind")
    want = engine.leave_one_out(net, BATCH)
    found = engine.leave_one_out(net.train(), BATCH)
    assert net.training
    assert all(torch.equal(found[name], change) for name, change in want.items())
    assert all(p.requires_grad for p in net.parameters())


def shared():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (nn.Sequential(nn.Conv1d(1, 1, 1), nn.Linear(3, 2)), "the model has a Conv1d"),
        (nn.Sequential(nn.ConvTranspose1d(1, 1, 1)), "the model has a ConvTranspose1d"),
        (shared(), "two layers share a weight"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)),
            "has no running statistics: it mixes the samples",
        ),
        (nn.Sequential(nn.Flatten(0), nn.Linear(27, 2)), "mixes the samples"),
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)), "Softmax is not covered"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(net, says):
    with pytest.raises(engine.UncoveredError, match=says):
        engine.leave_one_out(net.double(), BATCH)


def test_several_positions_a_sample_are_refused():
    x = torch.ones(4, 5, 3)
    for net in (nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))):
        with pytest.raises(engine.UncoveredError, match=r"puts out \(4, 5, 2\), not \("):
            engine.leave_one_out(net, (x, torch.arange(4) % 2), cross_entropy)
    with pytest.raises(engine.UncoveredError, match=r"layer '0' puts out \(4, 5, 2\), not \("):
        neurons.leave_one_out(net, (x, torch.arange(4) % 2))
