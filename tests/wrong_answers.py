"""For every exercise: typical wrong answers, and the words that the check must find for them."""

import itertools
import math

import sympy
import torch

WRONG = {
    "00.1": [
        (lambda w: float((w != 0).sum() / w.numel()), "this is the density"),
        (lambda w: int((w == 0).sum()), "their fraction"),
        (lambda w: -float((w == 0).sum() / w.numel()), "the sign is wrong"),
        (lambda w: w == 0, "the shape differs"),
    ],
    "01.1": [
        (lambda a, b, c: a * b + c * c, "minus sign"),
        (lambda a, b, c: a * b - c, "twice"),
        (lambda a, b, c: c * c - a * b, "the sign is wrong"),
        (lambda a, b, c: 2 * (a * b - c * c), "factor of 2"),
        (lambda a, b, c: (a * b - c * c) / 2, "factor of ½"),
    ],
    "01.2": [
        (lambda D, fxx: "saddle" if D < 0 else "minimum" if fxx > 0 else "maximum", "undecided"),
        (
            lambda D, fxx: "saddle" if D <= 0 else "minimum" if fxx > 0 else "maximum",
            "not a saddle",
        ),
        (
            lambda D, fxx: (
                "undecided"
                if D == 0
                else "saddle"
                if D < 0
                else "minimum"
                if fxx < 0
                else "maximum"
            ),
            "swapped",
        ),
        (lambda D, fxx: "min", "the answer differs"),
        (lambda D, fxx: 1, "the type differs"),
    ],
    "01.3": [
        (lambda f, v, w: f.diff(v, 2) * f.diff(w, 2) - f.diff(v, w) ** 2, "discriminant"),
        (lambda f, v, w: sympy.diag(f.diff(v, 2), f.diff(w, 2)), "mixed derivatives"),
        (lambda f, v, w: sympy.Matrix([f.diff(v), f.diff(w)]), "the shape differs"),
        (lambda f, v, w: -sympy.hessian(f, (v, w)), "the sign is wrong"),
        (lambda f, v, w: f, "a matrix of shape"),
    ],
    "01.4": [
        (lambda f, x, h: (f(x + h) - 2 * f(x) + f(x - h)) / h, "h²"),
        (lambda f, x, h: (f(x + h) - f(x) + f(x - h)) / h**2, "counts twice"),
        (lambda f, x, h: (f(x + h) - f(x - h)) / (2 * h), "first derivative"),
    ],
    "02.1": [
        (lambda g, H, d: g @ d + d @ H @ d, "½"),
        (lambda g, H, d: -g @ d + 0.5 * d @ H @ d, "sign of the first-order term"),
        (lambda g, H, d: g @ d, "quadratic term is missing"),
        (lambda g, H, d: g * d + 0.5 * d * (H @ d), "the shape differs"),
    ],
    "02.2": [
        (lambda f, v, a, k: f.diff(v, k).subs(v, a), "k!"),
        (lambda f, v, a, k: f.diff(v, k).subs(v, a) / k, "factorial"),
        (lambda f, v, a, k: -f.diff(v, k).subs(v, a) / sympy.factorial(k), "the sign is wrong"),
    ],
    "02.3": [
        (lambda g, h, w: g * w + 0.5 * h * w**2, "δ = −w"),
        (lambda g, h, w: -g * w + h * w**2, "½"),
        (lambda g, h, w: (-g * w + 0.5 * h * w**2).sum(), "the shape differs"),
    ],
    "02.4": [
        (lambda f, at, v: torch.func.hessian(f)(at).sum(1), "row sums"),
        (lambda f, at, v: torch.func.hessian(f)(at).diagonal() * v, "diagonal"),
        (lambda f, at, v: torch.func.grad(f)(at), "gradient"),
    ],
    "03.1": [
        (lambda s, k: s >= s.sort(descending=True).values[k - 1], "ties"),
        (lambda s, k: s > s.sort(descending=True).values[k - 1], "ties"),
        (
            lambda s, k: (
                ~torch.zeros_like(s)
                .bool()
                .scatter(0, s.argsort(descending=True, stable=True)[:k], True)
            ),
            "inverted",
        ),
        (lambda s, k: torch.arange(len(s)) < k, "not the right weights"),
        (lambda s, k: s * 0, "must be boolean"),
        (lambda s, k: torch.ones_like(s).bool(), "instead of exactly"),
    ],
    "03.2": [
        (lambda m: (int(m.sum()), int(m.sum())), "r − 1"),
        (lambda m: (int(m.sum()), int(m.sum()) - len(m)), "not −1"),
    ],
    "03.3": [
        (lambda n, k: k * math.log10(n), "order"),
        (lambda n, k: math.log(math.comb(n, k)), "natural logarithm"),
        (math.comb, "its logarithm"),
    ],
    "03.4": [
        (
            lambda L, n, k: set(
                sorted(range(n), key=lambda i: L(tuple(j == i for j in range(n))))[:k]
            ),
            "one at a time",
        ),
        (
            lambda L, n, k: set(
                max(
                    itertools.combinations(range(n), k),
                    key=lambda c: L(tuple(i in c for i in range(n))),
                )
            ),
            "worst",
        ),
        (lambda L, n, k: [0, 1], "the type differs"),
    ],
    "04.1": [
        (lambda h, w: h * w**2, "½"),
        (lambda h, w: 0.5 * h * w, "squared"),
        (lambda h, w: (0.5 * h * w**2).abs(), "may be negative"),
        (lambda h, w: -0.5 * h * w**2, "the sign is wrong"),
    ],
    "04.2": [
        (lambda f, at: torch.func.hessian(f)(at).sum(0), "row sums"),
        (lambda f, at: torch.func.grad(f)(at), "once more"),
        (lambda f, at: torch.func.hessian(f)(at), "only its diagonal"),
    ],
    "04.3": [
        (lambda a, p: (p - p**2).T @ (a * a), "divide by the number of samples"),
        (lambda a, p: (p - p**2).T @ a / len(a), "must be squared"),
        (lambda a, p: p.T @ a**2 / len(a), "not p_i"),
        (lambda a, p: (a**2).T @ (p - p**2) / len(a), "the shape differs"),
    ],
    "04.4": [
        (lambda H, w, keep: 0.5 * (w * ~keep) @ H @ (w * ~keep), "take the saliencies off"),
        (lambda H, w, keep: 0.5 * (H.diagonal() * w**2 * ~keep).sum(), "missing from them"),
        (
            lambda H, w, keep: (
                0.5 * (w * keep) @ H @ (w * keep) - 0.5 * (H.diagonal() * (w * keep) ** 2).sum()
            ),
            "True where a weight stays",
        ),
    ],
    "05.1": [
        (lambda w, P: w**2 / P.diagonal(), "½"),
        (lambda w, P: w**2 * P.diagonal() / 2, "multiplies by the diagonal"),
        (lambda w, P: w**2 * torch.linalg.inv(P).diagonal() / 2, "OBD"),
    ],
    "05.2": [
        (lambda w, P, q: -w[q] * P[:, q], "divide by"),
        (lambda w, P, q: w[q] * P[:, q] / P[q, q], "sign"),
        (lambda w, P, q: w - w[q] * P[:, q] / P[q, q], "new weights"),
    ],
    "05.3": [
        (lambda P, q: P - torch.outer(P[:, q], P[q]), "divide"),
        (lambda P, q: P + torch.outer(P[:, q], P[q]) / P[q, q], "subtract"),
    ],
    "05.4": [
        (
            lambda w, P, pair: w - sum(w[q] * P[:, q] / P[q, q] for q in pair),
            "each spoils",
        ),
        (
            lambda w, P, pair: torch.where(torch.isin(torch.arange(4), torch.tensor(pair)), 0.0, w),
            "do not move",
        ),
    ],
    "06.1": [
        (lambda G: G.T @ G, "number of gradients"),
        (lambda G: torch.outer(G.mean(0), G.mean(0)), "average the products"),
        (lambda G: torch.cov(G.T, correction=0), "covariance"),
        (lambda G: G @ G.T / len(G), "pairs weights"),
        (lambda G: (G * G).mean(0), "the shape differs"),
    ],
    "06.2": [
        (lambda d, a: (d.T @ a / len(a)) ** 2, "square before"),
        (lambda d, a: (d**2).T @ a**2, "number of samples"),
        (lambda d, a: d.T @ a / len(a), "not squared yet"),
        (lambda d, a: (a**2).T @ d**2 / len(a), "the shape differs"),
    ],
    "06.3": [
        (
            lambda z: torch.diag(
                (z.softmax(1) * (1 - z.softmax(1))).mean(0),
            ),
            "between classes",
        ),
        (
            lambda z: (
                len(z) * (torch.diag(z.softmax(1).mean(0)) - z.softmax(1).T @ z.softmax(1) / len(z))
            ),
            "number of samples",
        ),
        (lambda z: -torch.cov(z.softmax(1).T), "the values differ"),
    ],
    "06.4": [
        (lambda A, g, m: A - torch.outer(A @ g, A @ g) / (1 + g @ A @ g), "m stands where"),
        (lambda A, g, m: A + torch.outer(A @ g, A @ g) / (m + g @ A @ g), "the sign is wrong"),
        (lambda A, g, m: A - torch.outer(A @ g, A @ g) / m, "beside m"),
        (lambda A, g, m: A + torch.outer(g, g) / m, "its inverse"),
    ],
    "07.1": [
        (lambda w, q: w.abs() > q * w.std(correction=0), "zeros of earlier rounds"),
        (lambda w, q: w > q * w[w != 0].std(correction=0), "absolute value"),
        (lambda w, q: w.abs() > q * w[w != 0].var(correction=0), "variance"),
        (lambda w, q: w.abs() <= q * w[w != 0].std(correction=0), "inverted"),
        (lambda w, q: w * (w.abs() > q), "boolean"),
    ],
    "07.2": [
        (lambda q: 0.6826894921370859 * q, "not proportional"),
        (lambda q: math.erf(q), "normal distribution"),
        (lambda q: 0.5 + math.erf(q / math.sqrt(2)) / 2, "one side"),
        (lambda q: math.erfc(q / math.sqrt(2)), "the values differ"),
    ],
    "07.3": [
        (lambda w: w**2 / (w**2).sum(), "not by all"),
        (
            lambda w: torch.stack([v**2 / (w[w.abs() <= v.abs()] ** 2).sum() for v in w]),
            "the larger ones",
        ),
        (
            lambda w: torch.stack([v**2 / (w[w.abs() > v.abs()] ** 2).sum() for v in w]),
            "itself belongs",
        ),
        (lambda w: w.abs(), "the values differ"),
    ],
    "07.4": [
        (
            lambda sizes, keep: [
                keep / sum(a + b for a, b in sizes) * (a + b) / (a * b) for a, b in sizes
            ],
            "cannot exceed 1",
        ),
        (
            lambda sizes, keep: [
                min(1.0, keep / sum(a + b for a, b in sizes) * (a + b) / (a * b)) for a, b in sizes
            ],
            "go to the others",
        ),
        (
            lambda sizes, keep: [keep / sum(a * b for a, b in sizes)] * len(sizes),
            "uniform rule",
        ),
    ],
    "08.1": [
        (lambda p, s: math.ceil(s / p), "of what is left"),
        (lambda p, s: int(math.log(1 - s) / math.log(1 - p)), "round up"),
        (lambda p, s: math.log(1 - s, 1 - p), "whole: round up"),
    ],
    "08.2": [
        (lambda t, a, b, i, j: a + (b - a) * min(max((t - i) / (j - i), 0), 1), "power 3"),
        (lambda t, a, b, i, j: a + (b - a) * min(max((t - i) / (j - i), 0), 1) ** 3, "1 − u"),
    ],
    "08.3": [
        (lambda n, rule, steps: [round(n * rule(t)) for t in range(1, steps + 1)], "totals"),
        (lambda n, rule, steps: [round(n * rule(t)) for t in range(steps)], "after the step"),
    ],
    "08.4": [
        (lambda scores, alive, k: scores >= scores.sort().values[-k], "came back"),
        (lambda scores, alive, k: scores <= scores[alive].sort().values[k - 1], "smallest"),
    ],
    "09.1": [
        (lambda W: W.norm(dim=0), "norms of the columns"),
        (lambda W: W.abs().sum(1), "L1 norm"),
        (lambda W: (W**2).sum(1), "square root"),
        (lambda W: W.norm(), "the shape differs"),
    ],
    "09.2": [
        (lambda keep, places: keep.repeat(places), "neighbours"),
        (lambda keep, places: ~keep.repeat_interleave(places), "inverted"),
        (lambda keep, places: keep, "the shape differs"),
    ],
    "09.3": [
        (lambda m, v: int(m.sum()) * v, "needs its column"),
        (lambda m, v: int(m.sum()) * (v + 4), "where each row begins"),
        (lambda m, v: int(m.sum()) * (v + 4) + 4 * len(m), "one more than the rows"),
        (lambda m, v: int((~m).sum()) * (v + 4) + 4 * (len(m) + 1), "True keeps"),
    ],
    "09.4": [
        (lambda V, b, keep: b + V[:, ~keep].sum(1), "½"),
        (lambda V, b, keep: b + 0.5 * V[:, keep].sum(1), "units that stay"),
        (lambda V, b, keep: b - 0.5 * V[:, ~keep].sum(1), "must be added"),
        (lambda V, b, keep: 0.5 * V[:, ~keep].sum(1), "return the new bias"),
    ],
    "11.1": [
        (
            lambda g, H, w, gone: -(g * w)[gone].sum() + 0.5 * (w * gone) @ H @ (w * gone),
            "leaves the cross terms out",
        ),
        (lambda g, H, w, gone: (g * w + 0.5 * H.diag() * w**2)[gone].sum(), "wrong sign"),
        (lambda g, H, w, gone: (-g * w + 0.5 * H.diag() * w**2)[~gone].sum(), "those that stay"),
    ],
    "11.2": [
        (
            lambda g, H, w, gone: -(g * w)[gone].sum() + 0.5 * (w * gone) @ H @ (w * gone),
            "take the promise off",
        ),
        (
            lambda g, H, w, gone: (
                0.5 * (H.diag() * w**2)[gone].sum() - 0.5 * (w * gone) @ H @ (w * gone)
            ),
            "turned round",
        ),
    ],
    "11.3": [
        (lambda c: c.sum(1).std(correction=0), "divide by the root"),
        (lambda c: c.sum(1).std(correction=0) / c.std(0, correction=0).sum(), "variances add"),
        (lambda c: c.sum(1).var() / c.var(0).sum(), "take the root"),
    ],
    "11.4": [
        (lambda c, dial: c.mean(0), "add λ"),
        (lambda c, dial: c.mean(0) + dial * c.var(0, correction=0), "not the variance"),
        (lambda c, dial: c.mean(0) + dial * c.std(0), "correction=0"),
        (lambda c, dial: c.mean(1) + dial * c.std(1, correction=0), "over the samples"),
    ],
    "12.1": [
        (lambda V, i, j, r: torch.cat([V[:, :j], V[:, j + 1 :]], 1), "this deletes the unit"),
        (
            lambda V, i, j, r: (V + V[:, j, None] * torch.eye(4)[i])[
                :, [k for k in range(4) if k != j]
            ],
            "by the ratio",
        ),
        (
            lambda V, i, j, r: (V + V[:, j, None] / r * torch.eye(4)[i])[
                :, [k for k in range(4) if k != j]
            ],
            "upside down",
        ),
        (
            lambda V, i, j, r: (V + r * V[:, i, None] * torch.eye(4)[j])[
                :, [k for k in range(4) if k != i]
            ],
            "unit j goes",
        ),
        (lambda V, i, j, r: V, "the shape differs"),
    ],
    "12.2": [
        (lambda A, V, keep: V[:, keep], "the old weights"),
        (
            lambda A, V, keep: (
                torch.linalg.lstsq(A[:, keep], A[:, ~keep] @ V[:, ~keep].T).solution.T
            ),
            "all units said together",
        ),
        (lambda A, V, keep: V, "the shape differs"),
    ],
    "12.3": [
        (lambda V, H: (V**2).sum(0) * H.diagonal(), "inverse of the diagonal"),
        (lambda V, H: 1 / torch.linalg.inv(H).diagonal(), "forgets the outgoing"),
        (lambda V, H: V.norm(dim=0) / torch.linalg.inv(H).diagonal(), "square the length"),
        (lambda V, H: (V**2).sum() / torch.linalg.inv(H).diagonal(), "each unit has its own"),
        (lambda V, H: (V**2).sum(0) / torch.linalg.inv(H).diagonal() / 2, "factor of ½"),
    ],
    "12.4": [
        (lambda m, v, j: float(v[-1] - v[15 - 2 ** (3 - j)]), "leave-one-out"),
        (lambda m, v, j: float(v[~m[:, j]].mean() - v[m[:, j]].mean()), "other way round"),
        (lambda m, v, j: float(v[m[:, j]].mean()), "without the unit"),
    ],
}
