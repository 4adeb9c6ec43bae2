"""The slow, obvious twin of every fast function."""

import itertools
import math

import numpy as np
import sympy
import torch

from teachkit import masks
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
    """One group of m neighbours at a time."""
    flat = score.reshape(-1).tolist()
    flags = []
    for start in range(0, len(flat), m):
        group = sorted(range(m), key=lambda i: (-flat[start + i], i))[:n]
        flags += [i in group for i in range(m)]
    return torch.tensor(flags, dtype=torch.bool).reshape(score.shape)


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
