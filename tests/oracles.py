"""The slow, obvious twin of every fast function that no lesson shows."""

import copy
import itertools
import math

import numpy as np
import torch

from teachkit import masks, taylor
from teachkit.hessian import of_model
from teachkit.lab.evaluation import evaluate


def gradient(model, batch, loss):
    """One backward pass, parameters flattened in order."""
    value = loss(model(batch[0]), batch[1])
    parts = torch.autograd.grad(value, list(model.parameters()), create_graph=True)
    return torch.cat([part.reshape(-1) for part in parts])


def hessian(model, batch, loss):
    """One more backward pass for each entry of the gradient."""
    rows = []
    for entry in gradient(model, batch, loss):
        parts = torch.autograd.grad(
            entry, list(model.parameters()), retain_graph=True, materialize_grads=True
        )
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def flat(tensors):
    """A dict of tensors as one vector."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def evaluation(model, batch, loss):
    """One sample at a time."""
    losses, right = [], 0
    for x, y in zip(*batch, strict=True):
        output = model(x[None])
        losses.append(float(loss(output, y[None])))
        right += int(output[0].argmax() == y)
    return sum(losses) / len(losses), right / len(losses)


def idx(images):
    """The bytes of an IDX file of an array of unsigned bytes, number by number."""
    content = bytes([0, 0, 8, images.ndim])
    for size in images.shape:
        content += int(size).to_bytes(4, "big")
    return content + bytes(int(v) for v in images.reshape(-1))


def curvature(model, batch, name, position):
    """∂²L/∂w² of one weight: differentiate twice, one number at a time."""
    w = model.get_parameter(name)
    value = torch.nn.functional.cross_entropy(model.eval()(batch[0]), batch[1])
    (g,) = torch.autograd.grad(value, w, create_graph=True)
    (row,) = torch.autograd.grad(g.reshape(-1)[position], w)
    return float(row.reshape(-1)[position])


def sample_derivatives(model, sample, loss):
    """Gradient, curvature and predicted change of one sample's loss, over the prunable weights."""
    names = list(masks.prunable(model))
    g = flat({name: taylor.gradient(model, sample, loss)[name] for name in names})
    h = of_model(model, sample, loss, names=names).diagonal()
    w = flat({name: model.get_parameter(name).detach() for name in names})
    return {"gradient": g, "curvature": h, "change": -g * w + 0.5 * h * w**2}


def constrained_minimum(H, weights, gone):
    """Least squares on the survivors: min ½ (v − w)ᵀH(v − w) with v = 0 at the removed ones."""
    L = torch.linalg.cholesky(H).T
    alive = [i for i in range(len(weights)) if i not in set(gone)]
    found = torch.zeros_like(weights)
    if alive:
        found[alive] = torch.linalg.lstsq(L[:, alive], (L @ weights)[:, None]).solution[:, 0]
    step = found - weights
    return found, float(0.5 * step @ H @ step)


def surgeon(H, weights, k):
    """Try each single removal by least squares, keep the cheapest, start again from there."""
    gone, costs = [], [0.0]
    for _ in range(k):
        left = [q for q in range(len(weights)) if q not in gone]
        best = min(left, key=lambda q: constrained_minimum(H, weights, [*gone, q])[1])
        gone.append(best)
        costs.append(constrained_minimum(H, weights, gone)[1])
    return constrained_minimum(H, weights, gone)[0], gone, np.diff(costs)


def gauss_newton(model, batch, loss, params):
    """Sample by sample: Jᵀ (∂²ℓ/∂f²) J, one backward pass per output."""
    n = sum(p.numel() for p in params)
    total = torch.zeros(n, n, dtype=torch.float64)
    for x, y in zip(*batch, strict=True):
        output = model(x[None])[0]
        rows = [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(o, params, retain_graph=True)])
            for o in output
        ]
        J = torch.stack(rows)
        free = output.detach().requires_grad_()
        at = torch.autograd.functional.hessian(lambda o, y=y: loss(o[None], y[None]), free)
        total += J.T @ at @ J
    return total / len(batch[0])


def fisher(model, batch, loss, params):
    """The mean over the samples of the gradient's outer product."""
    rows = []
    for x, y in zip(*batch, strict=True):
        parts = torch.autograd.grad(loss(model(x[None]), y[None]), params)
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows).T @ torch.stack(rows) / len(rows)


def obs_row(w, X, ridge, removals):
    """Optimal Brain Surgeon on one row: a fresh inverse at every step, nothing carried along.

    Returns the order, the losses, and the row after each removal.
    """
    w, alive = w.clone(), list(range(len(w)))
    H = X.T @ X + ridge * torch.eye(len(w), dtype=X.dtype)
    order, losses, rows = [], [], []
    for _ in range(removals):
        inverse = torch.linalg.inv(H[alive][:, alive])
        costs = [float(w[i]) ** 2 / float(inverse[p, p]) for p, i in enumerate(alive)]
        p = min(range(len(alive)), key=lambda p: costs[p])
        w[alive] = w[alive] - w[alive[p]] * inverse[:, p] / inverse[p, p]
        w[alive[p]] = 0.0
        order.append(alive.pop(p))
        losses.append(costs[p])
        rows.append(w.clone())
    return order, losses, rows


def least_squares(w, X, kept, ridge):
    """Min ‖Xw′ − Xw‖² + ridge ‖w′ − w‖² over the kept entries, as one system of numpy's."""
    n = len(w)
    A = np.vstack([X, math.sqrt(ridge) * np.eye(n)])
    found = np.zeros(n)
    columns = np.flatnonzero(kept)
    found[columns] = np.linalg.lstsq(A[:, columns], A @ np.asarray(w), rcond=None)[0]
    return found


def cheapest_fronts(losses, k):
    """Take k removals from several rows' lists, each time the row whose next one is cheapest."""
    taken = [0] * len(losses)
    for _ in range(k):
        row = min(
            (r for r in range(len(losses)) if taken[r] < len(losses[r])),
            key=lambda r: losses[r][taken[r]],
        )
        taken[row] += 1
    return taken


def fisher_matrix(gradients, damping=0.0):
    """Add up g gᵀ / m, one gradient at a time."""
    F = damping * torch.eye(gradients.shape[1], dtype=gradients.dtype)
    for g in gradients:
        F = F + torch.outer(g, g) / len(gradients)
    return F


def knocked_out(model, x, keep):
    """The output with the channels of these modules set to zero as they come out."""
    hooks = []
    for name, mask in keep.items():

        def zero(module, inputs, output, mask=mask):
            return output * mask.to(output).reshape(1, -1, *[1] * (output.ndim - 2))

        hooks.append(model.get_submodule(name).register_forward_hook(zero))
    result = model.eval()(x)
    for hook in hooks:
        hook.remove()
    return result.detach()


def han(w, quality):
    """Compare each weight with the quality times the spread of the nonzero ones."""
    alive = [v for v in w if v != 0]
    mean = math.fsum(alive) / max(len(alive), 1)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in alive) / max(len(alive), 1))
    return [abs(v) > quality * spread for v in w]


def hidden_layers(model):
    """Positions of the Linear layers that have a Linear layer behind them, and of those."""
    linear = [i for i, layer in enumerate(model) if isinstance(layer, torch.nn.Linear)]
    return list(itertools.pairwise(linear))


def unit_fit(net, model, maker, reader, x, kept, damping):
    """Least squares with a row for every sample and every damped weight: its error, W and units."""
    with torch.no_grad():
        said, before = net[:reader](x), model[:reader](x)
        target = model[reader](before)
        X, W = said, net[reader].weight
        if net[reader].bias is not None:
            X = torch.cat([said, torch.ones(len(said), 1)], 1)
            W = torch.cat([W, net[reader].bias[:, None]], 1)
        columns = [*kept, *range(said.shape[1], X.shape[1])]
        energy = float((X**2).sum(0).mean())
        stiff = math.sqrt(damping * (energy if energy > 0 else 1)) * torch.eye(X.shape[1])
        left = torch.cat([X, stiff])
        right = torch.cat([target, stiff @ W.T])
        found = torch.linalg.lstsq(left[:, columns], right, driver="gelsd").solution
        error = float(((left[:, columns] @ found - right) ** 2).sum())
    return error, found.T, columns


def unit_repair(model, x, keep, damping):
    """The repaired network at full size, silenced units still there but not listened to."""
    net = copy.deepcopy(model)
    for maker, reader in hidden_layers(model):
        kept = keep[str(maker)].nonzero()[:, 0].tolist()
        _, W, columns = unit_fit(net, model, maker, reader, x, kept, damping)
        layer, units = net[reader], net[reader].in_features
        layer.weight.data.zero_()
        for column, values in zip(columns, W.T, strict=True):
            if column < units:
                layer.weight.data[:, column] = values
            else:
                layer.bias.data = values
    return net


def unit_errors(net, model, maker, reader, x, alive, damping):
    """For each unit alive: the error of the least-squares fit without it."""
    return {
        j: unit_fit(net, model, maker, reader, x, [k for k in alive if k != j], damping)[0]
        for j in alive
    }


def unit_merge(model, x, count, by):
    """The outputs of the network after merging pairs in its one hidden layer, in plain loops."""
    first, second = model[0], model[2]
    A = model[:2](x).detach()
    units = list(range(first.out_features))
    w = [[*row.tolist(), b] for row, b in zip(first.weight, first.bias.tolist(), strict=True)]
    V, c = second.weight.detach().clone(), second.bias.detach().clone()
    loud = [(A[:, j].var(correction=0) * (V[:, j] ** 2).sum()).item() for j in units]
    for _ in range(count):
        best = (-2.0, 0, 0)
        for i, j in itertools.combinations(units, 2):
            if by == "weights":
                a, b = torch.tensor(w[i]), torch.tensor(w[j])
                like = float(a @ b / (a.norm() * b.norm()))
            else:
                like = abs(float(torch.corrcoef(A[:, [i, j]].T)[0, 1]))
            best = max(best, (like, i, j), key=lambda found: found[0])
        _, i, j = best
        size = [math.hypot(*row) for row in w] if by == "weights" else loud
        if size[i] < size[j]:
            i, j = j, i
        if by == "weights":
            slope, level = size[j] / size[i], 0.0
        else:
            line = torch.stack([A[:, i], torch.ones(len(A))], 1)
            slope, level = torch.linalg.lstsq(line, A[:, j, None]).solution[:, 0].tolist()
        V[:, i] += slope * V[:, j]
        c += level * V[:, j]
        units.remove(j)
    return A[:, units] @ V[:, units].T + c


def leave_one_out(model, batch, loss=torch.nn.functional.cross_entropy):
    """L(θ − w_i e_i) − L(θ), measured: a copy of the network without w_i for every weight."""
    before = evaluate(model, batch, loss).loss
    measured = {}
    for name, w in masks.prunable(model).items():
        alone = ~torch.eye(w.numel(), dtype=torch.bool, device=w.device)
        nets = (masks.apply(model, {name: mask.reshape(w.shape)}) for mask in alone)
        rises = [evaluate(net, batch, loss).loss - before for net in nets]
        measured[name] = w.new_tensor(rises).reshape(w.shape)
    return measured
