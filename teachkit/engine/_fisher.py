"""Temporary: the Fisher diagonal from layers' inputs and output gradients, until engine.curvature."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core.layers import UncoveredError, parameter_name, patches, positions, weighted
from teachkit.core.losses import Labels, output_gradients
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Batch, Loss, Params
from teachkit.core.weights import prunable
from teachkit.engine.gradients import CHUNK


def fisher_diagonal(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Labels = "empirical",
    generator: torch.Generator | None = None,
) -> Params:
    """The diagonal of the Fisher matrix, one tensor per prunable weight.

    Raises:
        UncoveredError: a layer that is used twice, shares its weight or is of another kind.

    """
    working = copy.deepcopy(model).requires_grad_(True)
    weights = {parameter_name(name, "weight"): m.weight for name, m in weighted(working)}
    if set(weights) != set(prunable(model)):
        raise UncoveredError("two layers share a weight")
    calls: dict[str, Call] = {}

    def at_call(call: Call) -> Tensor:
        name = parameter_name(call.name, "weight")
        if name in calls:
            raise UncoveredError(f"layer {call.name!r} runs twice")
        calls[name] = call._replace(input=call.input.detach().clone())
        return call.output.clone()  # what follows may write into it

    output = record_calls(working, batch[0], at_call, graph=True)
    rows = {name: patches(call.layer, call.input) for name, call in calls.items()}
    total = {name: torch.zeros_like(w) for name, w in weights.items()}  # type: ignore[arg-type]
    if not total:
        return {}
    toward = output_gradients(output.detach(), batch[1], loss, kind, generator)
    for s in toward:
        outputs = [call.output for call in calls.values()]
        pulled = torch.autograd.grad(
            (output * s).sum(), outputs, retain_graph=True, materialize_grads=True
        )
        for (name, call), delta in zip(calls.items(), pulled, strict=True):
            squares = _squares(rows[name], positions(call.layer, delta))
            total[name] += squares.reshape(total[name].shape)
    return {name: t.detach() / (len(toward) * len(batch[0])) for name, t in total.items()}


def _squares(a: Tensor, delta: Tensor) -> Tensor:
    """Σ_n (Σ_p δ_np a_npᵀ)² for a (n, groups, positions, inputs) and δ (n, positions, outputs)."""
    delta = delta.reshape(*delta.shape[:2], a.shape[1], -1).transpose(1, 2)  # as a, by group
    if a.shape[2] == 1:
        a, delta = a[:, :, 0].transpose(0, 1), delta[:, :, 0].transpose(0, 1)
        return ((delta * delta).mT @ (a * a)).flatten(0, 1)
    rows = max(1, CHUNK // (a.shape[1] * a.shape[3] * delta.shape[3]))
    pairs = zip(torch.split(delta, rows), torch.split(a, rows), strict=True)
    return torch.stack([((d.mT @ b) ** 2).sum(0) for d, b in pairs]).sum(0).flatten(0, 1)
