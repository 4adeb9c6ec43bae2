"""Everything runs on the device of the tensors that it is given."""

import pytest
import torch
from test_criteria import ALL, both, entry, small
from torch import nn

from teachkit import lab, masks, structured
from teachkit.core import losses, recorder
from teachkit.lab.evaluation import evaluate

META = torch.device("meta")
cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: the same on a GPU is not tried here"
)


def outcome(criterion, model, batch):
    """What a criterion gives, by parameter."""
    if criterion[0] == "prune":
        pruned, kept = both(criterion, model, batch)
        return dict(pruned.named_parameters()) | {f"mask of {n}": m for n, m in kept.items()}
    return entry(criterion).function(model, batch)


def close(found, want):
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(
            found[name].detach().cpu(), tensor.detach(), rtol=1e-8, atol=1e-10
        )


# A default device without values shows every tensor that is made without saying where.


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_no_criterion_relies_on_the_default_device(criterion):
    model, batch = small()
    want = outcome(criterion, model, batch)
    with META:
        found = outcome(criterion, model, batch)
    close(found, want)


def test_a_tensor_without_a_device_shows():
    with META, pytest.raises(RuntimeError, match="meta"):
        float(torch.ones(3).sum())


def test_training_and_evaluation_do_not_rely_on_the_default_device():
    model, batch = small()
    want = evaluate(
        lab.training.fit(model, batch, epochs=2, batch_size=8, progress=False)[0], batch
    )
    with META:
        fitted = lab.training.fit(model, batch, epochs=2, batch_size=8, progress=False)[0]
        assert evaluate(fitted, batch) == want


# Where values do not matter, shapes are enough: a network of any size on the meta device.


def huge():
    """A billion weights, none of them stored."""
    wide = 20_000
    layers = [nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU()]
    with META:
        return nn.Sequential(*layers, nn.Linear(wide, 10))


def test_masks_of_a_network_without_values():
    with META:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    weights = masks.prunable(model, biases=True)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {
        "0.weight": (4, 1, 3, 3),
        "0.bias": (4,),
        "3.weight": (10, 144),
        "3.bias": (10,),
    }
    kept = masks.keep_all(model)
    pruned = masks.apply(model, kept)
    for given in (kept, masks.nonzero(model), masks.combine(kept, kept), masks.change(model, kept)):
        assert all(given[name].device == META for name in masks.prunable(model))
        assert all(given[n].shape == w.shape for n, w in masks.prunable(pruned).items())
    flat = torch.empty(144 * 10 + 36, device=META)
    assert masks.split(flat, masks.prunable(model))["3.weight"].shape == (10, 144)


def test_calls_are_recorded_without_values():
    with META:
        model = lab.models.lenet5((1, 28, 28))
    shapes = []
    output = recorder.record_calls(
        model, torch.empty(2, 1, 28, 28, device=META), lambda call: shapes.append(call.output.shape)
    )
    assert output.shape == (2, 10)
    assert shapes == [(2, 20, 24, 24), (2, 50, 8, 8), (2, 500), (2, 10)]


def test_counts_and_predictions_of_a_network_without_values():
    model = huge()
    weights = sum(w.numel() for w in masks.prunable(model).values())
    assert weights == 2 * 20_000**2 + 200_000
    assert structured.count(model).parameters == weights + 2 * 20_000 + 10
    half = torch.arange(20_000, device="cpu") % 2 == 0
    keep = {"0": half, "2": half}
    left = structured.predict(model, keep)
    assert left.parameters == 10_000 * 20_001 + 10_000 * 10_001 + 10 * 10_001
    assert left == structured.count(structured.shrink(model, keep))


# The same on a GPU ---------------------------------------------------------------------------------


@cuda
@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_a_criterion_gives_the_same_on_a_gpu(criterion):
    model, (x, y) = small()
    want = outcome(criterion, model, (x, y))
    found = outcome(criterion, model.cuda(), (x.cuda(), y.cuda()))
    assert all(tensor.is_cuda for tensor in found.values())
    close(found, want)


@cuda
def test_training_on_a_gpu():
    model, (x, y) = small()
    fitted = lab.training.fit(
        model.cuda(), (x.cuda(), y.cuda()), epochs=2, batch_size=8, progress=False
    )[0]
    assert all(p.is_cuda for p in fitted.parameters())
    assert evaluate(fitted, (x.cuda(), y.cuda())).loss > 0


@cuda
@pytest.mark.parametrize("loss", [nn.functional.cross_entropy, nn.functional.mse_loss])
def test_labels_of_a_gpu_are_drawn_with_a_generator_of_the_cpu(loss):
    output = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    want = losses.drawn(output, loss, torch.Generator().manual_seed(0))
    found = losses.drawn(output.cuda(), loss, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.cpu(), want)
    assert found.is_cuda
