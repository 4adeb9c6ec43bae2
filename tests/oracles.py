"""The slow, obvious twin of every fast function."""

import copy
import itertools
import math

import numpy as np
import sympy
import torch

from teachkit import masks, taylor
from teachkit.hessian import of_model
from teachkit.lab.evaluation import evaluate


def keep_top(scores, sparsity):
    """Sort (score, position) in Python and keep the first ones."""
    flat = [
        (-float(v), i) for i, v in enumerate(torch.cat([s.reshape(-1) for s in scores.values()]))
    ]
    kept = {i for _, i in sorted(flat)[: len(flat) - round(sparsity * len(flat))]}
    flags = iter([i in kept for i in range(len(flat))])
    return {
        n: torch.tensor([next(flags) for _ in range(s.numel())]).reshape(s.shape)
        for n, s in scores.items()
    }


def keep_n_of_m(score, n, m):
    """One group of m neighbouring inputs (o, i, place) at a time."""
    mask = torch.zeros(score.shape, dtype=torch.bool)
    places = itertools.product(*(range(size) for size in score.shape[2:]))
    for place, o, start in itertools.product(
        places, range(score.shape[0]), range(0, score.shape[1], m)
    ):
        group = sorted(range(start, start + m), key=lambda i: (-float(score[o, i, *place]), i))
        for i in group[:n]:
            mask[o, i, *place] = True
    return mask


def linear_operations(weight, mask, bias, rows):
    """Walk through every output of every row and count."""
    multiplications = additions = 0
    for _, o in itertools.product(range(rows), range(weight.shape[0])):
        terms = sum(bool(mask[o, i]) for i in range(weight.shape[1]))
        multiplications += terms
        additions += max(terms - 1, 0) + (1 if bias and terms else 0)
    return multiplications, additions


def conv_operations(layer, mask, x):
    """As linear_operations, at every output pixel."""
    n, _, height, width = layer(x).shape
    flat = mask.reshape(len(mask), -1)
    return linear_operations(flat, flat, layer.bias is not None, n * height * width)


def log10_subsets(n, k):
    """The exact integer's logarithm."""
    return math.log10(math.comb(n, k))


def subset_losses(model, batch, k):
    """Apply every mask to a copy of the model and evaluate it."""
    weights = masks.prunable(model)
    n = sum(w.numel() for w in weights.values())
    found = []
    for kept in itertools.combinations(range(n), k):
        flat = torch.tensor([i in kept for i in range(n)])
        found.append(evaluate(masks.apply(model, masks.split(flat, weights)), batch).loss)
    return found


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


def taylor_polynomial(f, variables, point, order):
    """The sum over all multi-indices of ∂^α f(a) (x − a)^α / α!."""
    total = sympy.Integer(0)
    at = dict(zip(variables, point, strict=True))
    for alpha in itertools.product(range(order + 1), repeat=len(variables)):
        if sum(alpha) > order:
            continue
        term = f
        for v, times in zip(variables, alpha, strict=True):
            term = sympy.diff(term, v, times) if times else term
        term = term.subs(at)
        for v, times in zip(variables, alpha, strict=True):
            term *= (v - at[v]) ** times / sympy.factorial(times)
        total += term
    return total


def eigenvalue_signs(H):
    """Solve for the eigenvalues numerically."""
    values = np.linalg.eigvalsh(np.array(H.tolist(), float))
    return int((values > 1e-9).sum()), int((values < -1e-9).sum())


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


def fisher_gradients(model, batch, loss):
    """One backward pass for each sample, at its label."""
    rows = []
    for x, y in zip(*batch, strict=True):
        value = loss(model(x[None]), y[None])
        parts = torch.autograd.grad(value, list(masks.prunable(model).values()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def fisher_matrix(gradients, damping=0.0):
    """Add up g gᵀ / m, one gradient at a time."""
    F = damping * torch.eye(gradients.shape[1], dtype=gradients.dtype)
    for g in gradients:
        F = F + torch.outer(g, g) / len(gradients)
    return F


def fisher_true(model, batch, loss):
    """Σ_n Σ_c p_c g_nc g_ncᵀ / N with the gradient at every class in turn."""
    x, y = batch
    p = model(x).detach().softmax(1)
    total = 0.0
    for c in range(p.shape[1]):
        G = fisher_gradients(model, (x, torch.full_like(y, c)), loss)
        total = total + (p[:, c, None, None] * G[:, :, None] * G[:, None]).sum(0) / len(x)
    return total


def fisher_step(F, w, damping, remove, block):
    """Prune once with explicit inverses of the blocks: the mask, and the weights left."""
    n, saliency = len(w), torch.zeros(len(w), dtype=w.dtype)
    F = F + damping * torch.eye(n, dtype=w.dtype)
    ranges = [range(i, min(i + block, n)) for i in range(0, n, block)]
    for part in ranges:
        A = torch.linalg.inv(F[np.ix_(part, part)])
        for i, q in enumerate(part):
            saliency[q] = w[q] ** 2 / (2 * A[i, i])
    gone = sorted(range(n), key=lambda q: (float(saliency[q]), -q))[:remove]
    left = w.clone()
    for part in ranges:
        Q, S = [q for q in part if q in gone], [q for q in part if q not in gone]
        if Q and S:
            left[S] += torch.linalg.inv(F[np.ix_(S, S)]) @ F[np.ix_(S, Q)] @ w[Q]
    left[gone] = 0.0
    return left


def group_of(index, granularity, block, shape):
    """The name of the group that one weight belongs to."""
    o, i, *place = index
    flat = i * math.prod(shape[2:]) + int(np.ravel_multi_index(place, shape[2:]) if place else 0)
    return {
        "connection": index,
        "row": (o,),
        "filter": (o,),
        "column": (i,),
        "channel": (i,),
        "kernel": (o, i),
        "position": tuple(place),
        "block": (o // block[0], flat // block[1]),
    }[granularity]


def groups(score, granularity, block):
    """Walk through all weights and put each into its group: {name: [(index, score), ...]}, sorted."""
    found = {}
    for index in itertools.product(*map(range, score.shape)):
        name = group_of(index, granularity, block, score.shape)
        found.setdefault(name, []).append((index, float(score[index])))
    return dict(sorted(found.items()))


def without_units(chain, x, keep):
    """A chain of layers rebuilt number by number, with the lists of what is still alive."""
    alive, made = None, []
    for name, layer in chain.named_children():
        new = layer
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            inputs = range(layer.weight.shape[1]) if alive is None else alive
            outputs = [o for o in range(len(layer.weight)) if name not in keep or keep[name][o]]
            if isinstance(layer, torch.nn.Linear):
                new = torch.nn.Linear(len(inputs), len(outputs), bias=layer.bias is not None)
            else:
                new = torch.nn.Conv2d(
                    len(inputs),
                    len(outputs),
                    layer.kernel_size,
                    padding=layer.padding,
                    bias=layer.bias is not None,
                )
            new = new.to(layer.weight.dtype)
            for a, o in enumerate(outputs):
                for b, i in enumerate(inputs):
                    new.weight.data[a, b] = layer.weight.data[o, i]
                if layer.bias is not None:
                    new.bias.data[a] = layer.bias.data[o]
            alive = outputs
        elif isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            new = type(layer)(len(alive)).to(layer.weight.dtype)
            for kind in ("weight", "bias", "running_mean", "running_var"):
                values = [float(getattr(layer, kind).detach()[c]) for c in alive]
                getattr(new, kind).data.copy_(torch.tensor(values, dtype=torch.float64))
        after = layer.eval()(x)
        if isinstance(layer, torch.nn.Flatten) and alive is not None:
            places = x.shape[2] * x.shape[3]
            alive = [c * places + p for c in alive for p in range(places)]
        x = after.detach()
        made.append(new)
    return torch.nn.Sequential(*made).eval()


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


def csr_parts(matrix):
    """Row by row: the numbers that are not zero, their columns, and where each row begins."""
    values, columns, starts = [], [], [0]
    for row in matrix.tolist():
        for column, value in enumerate(row):
            if value != 0:
                values.append(value)
                columns.append(column)
        starts.append(len(values))
    return values, columns, starts


def han(w, quality):
    """Compare each weight with the quality times the spread of the nonzero ones."""
    alive = [v for v in w if v != 0]
    mean = math.fsum(alive) / max(len(alive), 1)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in alive) / max(len(alive), 1))
    return [abs(v) > quality * spread for v in w]


def leave_one_out(model, batch, name):
    """Set one weight of a copy to zero, measure, and do the same with the next."""
    before = evaluate(model, batch).loss
    found = []
    for i in range(model.get_parameter(name).numel()):
        mask = torch.ones(model.get_parameter(name).numel(), dtype=torch.bool)
        mask[i] = False
        cut = masks.apply(model, {name: mask.reshape(model.get_parameter(name).shape)})
        found.append(evaluate(cut, batch).loss - before)
    return torch.tensor(found, dtype=torch.float64)


def hidden_layers(model):
    """Positions of the Linear layers that have a Linear layer behind them, and of those."""
    linear = [i for i, layer in enumerate(model) if isinstance(layer, torch.nn.Linear)]
    return list(itertools.pairwise(linear))


def without_unit(model, reader, j):
    """A copy whose layer ``reader`` does not listen to unit j."""
    deaf = copy.deepcopy(model)
    deaf[reader].weight.data[:, j] = 0
    return deaf


def unit_leave_one_out(model, batch, loss):
    """Silence one unit after the other in a copy of the network."""
    whole = loss(model(batch[0]), batch[1]).item()
    found = {}
    for maker, reader in hidden_layers(model):
        deaf = [without_unit(model, reader, j) for j in range(model[maker].out_features)]
        found[str(maker)] = [loss(net(batch[0]), batch[1]).item() - whole for net in deaf]
    return found


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


def banzhaf(value, n, keep=0.5):
    """The mean of what a unit adds, over every team of the others; value maps a set to a number."""
    worth = []
    for j in range(n):
        others = [k for k in range(n) if k != j]
        total = 0.0
        for size in range(n):
            chance = keep**size * (1 - keep) ** (n - 1 - size)
            for team in itertools.combinations(others, size):
                total += chance * (value[frozenset({*team, j})] - value[frozenset(team)])
        worth.append(total)
    return worth


def shapley(value, n):
    """The mean of what a unit adds when it joins, over all orders."""
    worth = [0.0] * n
    for order in itertools.permutations(range(n)):
        team = frozenset()
        for j in order:
            worth[j] += (value[team | {j}] - value[team]) / math.factorial(n)
            team |= {j}
    return worth
