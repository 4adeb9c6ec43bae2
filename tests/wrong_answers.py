"""For every exercise: typical wrong answers, and the words that the check must find for them."""

import itertools
import math

import sympy
import torch


def hessian_kind(D, fxx):
    if D == 0:
        return "undecided"
    return "saddle" if D < 0 else "minimum" if fxx > 0 else "maximum"


def eliminated(loss, n, k):
    """Greedy backward elimination."""
    left = set(range(n))
    while len(left) > k:
        worst = min(left, key=lambda i: loss(tuple(j in left - {i} for j in range(n))))
        left.remove(worst)
    return left


def added(loss, n, k):
    """Greedy forward selection."""
    kept = set()
    while len(kept) < k:
        rest = set(range(n)) - kept
        kept.add(min(rest, key=lambda i: loss(tuple(j in kept | {i} for j in range(n)))))
    return kept


def crossed(H, w):
    return 0.5 * w @ H @ w - 0.5 * (H.diag() * w**2).sum()


def stale(w, P, pair):
    for q in pair:
        w = w - w[q] / P[q, q] * P[:, q]
    return w


def unweighted(z):
    p = z.softmax(1)
    s = p[:, None] - torch.eye(3, dtype=p.dtype)
    return torch.einsum("nci,ncj->ij", s, s) / len(z)


def one_hots(z):
    return z.softmax(0)[:, None] - torch.eye(3, dtype=z.dtype)


def likeliest(z):
    p = z.softmax(1)
    s = p - torch.eye(3, dtype=p.dtype)[z.argmax(1)]
    return s.T @ s / len(z)


def erk(sizes, keep, rounds=9):
    dense, shares = set(), []
    for _ in range(rounds):
        free = [s for i, s in enumerate(sizes) if i not in dense]
        left = keep - sum(math.prod(sizes[i]) for i in dense)
        scale = left / sum(map(sum, free))
        shares = [1.0 if i in dense else scale * sum(s) / math.prod(s) for i, s in enumerate(sizes)]
        dense |= {i for i, share in enumerate(shares) if share >= 1}
    return shares


def once(sizes, keep):
    return erk(sizes, keep, rounds=2)


def part(t, start, end):
    return min(max((t - start) / (end - start), 0), 1)


def top(scores, k):
    return torch.zeros(len(scores), dtype=torch.bool).scatter(0, scores.topk(k).indices, True)


def replaced(V, i, j, column):
    W = V.clone()
    W[:, i] = column
    return torch.cat([W[:, :j], W[:, j + 1 :]], 1)


def shifted(V, i, j, ratio):
    """The place of unit i in the smaller matrix is not thought of."""
    W = torch.cat([V[:, :j], V[:, j + 1 :]], 1)
    W[:, i % 3] += ratio * V[:, j]
    return W


def written(V, i, j, ratio):
    V[:, i] += ratio * V[:, j]
    return torch.cat([V[:, :j], V[:, j + 1 :]], 1)


def shapley(masks, values, j):
    """Teams weighed by their size."""
    size = masks.sum(1) - masks[:, j].long()
    weights = torch.tensor([1 / (4 * math.comb(3, int(s))) for s in size], dtype=values.dtype)
    return float((torch.where(masks[:, j], 1.0, -1.0) * weights * values).sum())


def row_by_row(f, at, v):
    at = at.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(at), at, create_graph=True)
    return torch.stack([torch.autograd.grad(e, at, retain_graph=True)[0] @ v for e in g])


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
        (lambda w, P: w**2 * P.diagonal() / 2, "upside down"),
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
        (lambda q: 1 - math.erf(q), "the values differ"),
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
    "10.1": [
        (lambda w, t, d: torch.where(w.abs() > t, w, 0.0) / (1 + d), "hard threshold"),
        (lambda w, t, d: (w.abs() - t).clamp(min=0) / (1 + d), "the sign is lost"),
        (lambda w, t, d: (w - t * w.sign()) / (1 + d), "below the threshold"),
        (lambda w, t, d: w / (1 + d), "makes no zero"),
        (lambda w, t, d: w.sign() * (w.abs() - t).clamp(min=0), "is left out"),
        (lambda w, t, d: w.sign() * (w.abs() / (1 + d) - t).clamp(min=0), "all that is left"),
    ],
    "10.2": [
        (lambda a, u, beta: 1.2 * torch.sigmoid((u.logit() + a) / beta) - 0.1, "cut off"),
        (lambda a, u, beta: torch.sigmoid((u.logit() + a) / beta), "stretch first"),
        (lambda a, u, beta: (1.2 * torch.sigmoid(u.logit() + a) - 0.1).clamp(0, 1), "temperature"),
        (lambda a, u, beta: (1.2 * torch.sigmoid(a) - 0.1).clamp(0, 1), "u is missing"),
    ],
    "10.3": [
        (lambda W, t: W.sign() * (W.abs() - t).clamp(min=0), "a row goes as a whole"),
        (lambda W, t: W * (1 - t / W.norm(dim=1, keepdim=True)).clamp(min=0), "root of the size"),
        (lambda W, t: W * (1 - 2 * t / W.norm(dim=0)).clamp(min=0), "the units are the rows"),
    ],
    "11.2": [
        (lambda push: push.sum().abs() / push.abs().sum(), "each unit's sum"),
        (lambda push: push.sum(0).abs().sum() / push.abs().sum(), "the last axis"),
        (lambda push: push.abs().sum(1).abs().sum() / push.abs().sum(), "this is 1 whatever"),
        (lambda push: push.sum(1).abs().sum(), "divide by the sum"),
        (
            lambda push: (push.sum(1).abs() / push.abs().sum(1)).mean(),
            "not the mean over the units",
        ),
        (
            lambda push: push.sign().sum(1).abs().sum() / push.sign().abs().sum(),
            "counts signs only",
        ),
        (lambda push: push.sum(1).abs() / push.abs().sum(), "the shape differs"),
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

# Three more for each: what a learner may well write.
MORE = {
    "00.1": [
        (lambda w: float(100 * (w == 0).sum() / w.numel()), "in per cent"),
        (lambda w: float((w <= 0).sum() / w.numel()), "the values differ"),
        (lambda w: float((w.abs() < 1e-3).sum() / w.numel()), "same amount everywhere: 0.067"),
        (lambda w: float((w == 0).sum() / len(w)), "the same factor everywhere: 5"),
        (lambda w: round(float((w == 0).sum() / w.numel()), 2), "rounded"),
        (lambda w: (w == 0).double().mean(0), "the shape differs"),
    ],
    "01.1": [
        (lambda a, b, c: a * c - b * b, "the values differ"),
        (lambda a, b, c: abs(a * b - c * c), "the sign is wrong for some inputs"),
        (lambda a, b, c: a * b - abs(c), "the values differ"),
        (lambda a, b, c: a * b - 2 * c * c, "the values differ"),
    ],
    "01.2": [
        (lambda D, fxx: hessian_kind(D, fxx).capitalize(), "small letters"),
        (lambda D, fxx: "minimum" if D > 0 else "saddle" if D < 0 else "undecided", "alone is not"),
        (lambda D, fxx: "undecided" if D <= 0 else hessian_kind(D, fxx), "the answer differs"),
        (
            lambda D, fxx: "undecided" if D == 0 else "minimum" if fxx > 0 else "maximum",
            "the answer differs",
        ),
        (lambda D, fxx: hessian_kind(int(D), fxx), "the answer differs"),
        (lambda D, fxx: hessian_kind(D, fxx - 1), "the answer differs"),
        (lambda D, fxx: hessian_kind(0 if abs(D) < 0.1 else D, fxx), "the answer differs"),
    ],
    "01.3": [
        (lambda f, v, w: sympy.hessian(f, (w, v)), "the expressions differ"),
        (lambda f, v, w: sympy.hessian(f, (v, w)) / 2, "factor of ½"),
        (lambda f, v, w: sympy.hessian(f, sympy.symbols("x y")), "the expressions differ"),
        (lambda f, v, w: str(sympy.hessian(f, (v, w))), "the type differs: str"),
        (lambda f, v, w: f.diff(v, 2), "a matrix of shape"),
    ],
    "01.4": [
        (lambda f, x, h: (f(x + h) - f(x)) / h, "a slope"),
        (lambda f, x, h: (f(x + 2 * h) - 2 * f(x + h) + f(x)) / h**2, "the places"),
        (lambda f, x, h: 4 * (f(x + h / 2) - 2 * f(x) + f(x - h / 2)) / h**2, "step h"),
        (lambda f, x, h: f(x + h) - 2 * f(x) + f(x - h), "the values differ"),
        (lambda f, x, h: (2 * f(x) - f(x + h) - f(x - h)) / h**2, "the sign is wrong"),
    ],
    "02.1": [
        (lambda g, H, d: g @ d + 0.5 * (H.diagonal() * d * d).sum(), "diagonal of H"),
        (lambda g, H, d: 0.5 * (g @ d + d @ H @ d), "½ belongs"),
        (lambda g, H, d: g @ d + 0.5 * (H.sum(1) * d * d).sum(), "the values differ"),
        (lambda g, H, d: 0.5 * d @ H @ d, "linear term"),
        (lambda g, H, d: g @ d - 0.5 * d @ H @ d, "the values differ"),
    ],
    "02.2": [
        (lambda f, v, a, k: f.diff(v, k) / sympy.factorial(k), "with .subs"),
        (lambda f, v, a, k: f.diff(v, k).subs(v, 0) / sympy.factorial(k), "about a"),
        (
            lambda f, v, a, k: f.diff(v, k - 1).subs(v, a) / sympy.factorial(k),
            "the values differ|factor of ½",
        ),
        (
            lambda f, v, a, k: f.diff(v, k).subs(v, a) / sympy.factorial(k) * (v - a) ** k,
            "with .subs",
        ),
        (lambda f, v, a, k: str(f.diff(v, k).subs(v, a) / sympy.factorial(k)), "the type differs"),
    ],
    "02.3": [
        (lambda g, h, w: g * w - 0.5 * h * w**2, "the sign is wrong"),
        (lambda g, h, w: -g * w + 0.5 * h.abs() * w**2, "the values differ"),
        (lambda g, h, w: -g * w + 0.5 * h * w, "the values differ"),
        (lambda g, h, w: -g * w, "first order only"),
        (lambda g, h, w: 0.5 * h * w**2, "the gradient is missing"),
    ],
    "02.4": [
        (lambda f, at, v: torch.func.hessian(f)(at) @ at, "the vector is v"),
        (lambda f, at, v: torch.func.grad(f)(at + v) - torch.func.grad(f)(at), "the values differ"),
        (lambda f, at, v: torch.func.grad(f)(at) @ v, "the shape differs"),
        (lambda f, at, v: torch.func.hessian(f)(v) @ v, "the values differ"),
        (
            lambda f, at, v: (torch.func.grad(f)(at + 1e-5 * v) - torch.func.grad(f)(at)) / 1e-5,
            "nearly: it is off by|the values differ",
        ),
        (lambda f, at, v: torch.func.hessian(f)(at) @ v, "the whole of H"),
        (lambda f, at, v: row_by_row(f, at, v), "the whole of H"),
        (
            lambda f, at, v: (torch.eye(3, dtype=at.dtype)) @ torch.func.hessian(f)(at) @ v,
            "with 50 it raises",
        ),
    ],
    "03.1": [
        (
            lambda s, k: torch.zeros_like(s).bool().scatter(0, s.topk(k).indices, True),
            "topk keeps any",
        ),
        (
            lambda s, k: (
                torch.zeros_like(s)
                .bool()
                .scatter(0, len(s) - 1 - s.flip(0).argsort(descending=True, stable=True)[:k], True)
            ),
            "not the last",
        ),
        (
            lambda s, k: torch.zeros_like(s).bool().scatter(0, s.argsort(stable=True)[:k], True),
            "smallest",
        ),
        (lambda s, k: s.argsort(descending=True, stable=True)[:k], "the shape differs"),
        (
            lambda s, k: (
                torch.zeros_like(s)
                .bool()
                .scatter(0, s.argsort(descending=True, stable=True)[: k - 1], True)
            ),
            "instead of exactly",
        ),
    ],
    "03.2": [
        (lambda m: (int((m.sum(1) - 1).clamp(min=0).sum()), int(m.sum())), "multiplications first"),
        (lambda m: (int(m.sum()), int((m.sum(0) - 1).clamp(min=0).sum())), "not a column"),
        (lambda m: (m.numel(), m.numel() - len(m)), "the values differ"),
        (lambda m: int(m.sum()), "the shape differs"),
    ],
    "03.3": [
        (lambda n, k: math.log2(math.comb(n, k)), "same factor everywhere: 3.32193"),
        (lambda n, k: math.log10(math.perm(n, k)), "divide by k!, too"),
        (lambda n, k: (math.lgamma(n + 1) - math.lgamma(k + 1)) / math.log(10), "(n − k)!"),
        (
            lambda n, k: (math.lgamma(n) - math.lgamma(k) - math.lgamma(n - k)) / math.log(10),
            "lgamma(n + 1)",
        ),
        (lambda n, k: math.floor(math.log10(math.comb(n, k))), "cut off to whole numbers"),
    ],
    "03.4": [
        (lambda L, n, k: {0, 1}, "the answer differs"),
        (lambda L, n, k: set(range(k)), "the answer differs"),
        (lambda L, n, k: eliminated(L, n, k), "removed one by one"),
        (lambda L, n, k: added(L, n, k), "the answer differs"),
        (
            lambda L, n, k: (
                set(range(n))
                - set(
                    min(
                        itertools.combinations(range(n), k),
                        key=lambda c: L(tuple(i in c for i in range(n))),
                    )
                )
            ),
            "those that stay",
        ),
    ],
    "04.1": [
        (lambda h, w: 0.5 * h.clamp(min=0) * w**2, "keep negative"),
        (lambda h, w: 0.5 * w**2, "the curvature is missing"),
        (lambda h, w: 0.5 * h**2 * w, "the values differ"),
        (lambda h, w: w**2 / (2 * h), "the values differ"),
    ],
    "04.2": [
        (lambda f, at: torch.func.grad(f)(at) ** 2, "squared gradient"),
        (lambda f, at: torch.func.hessian(f)(at).diagonal() / 2, "factor of ½"),
        (lambda f, at: torch.func.hessian(f)(at).trace(), "the shape differs"),
        (
            lambda f, at: torch.func.hessian(f)(at).diagonal().abs(),
            "the sign of some|sign is wrong",
        ),
        (lambda f, at: torch.linalg.eigvalsh(torch.func.hessian(f)(at)), "the values differ"),
    ],
    "04.3": [
        (
            lambda a, p: torch.outer((p - p**2).mean(0), (a**2).mean(0)),
            "product of two averages",
        ),
        (lambda a, p: ((p - p**2).T @ a / len(a)) ** 2, "the values differ"),
        (lambda a, p: (p - p**2).T @ a**2 / p.shape[1], "same factor everywhere: 1.25"),
        (lambda a, p: (1 - p).T @ a**2 / len(a), "the values differ"),
        (lambda a, p: (p**2 - p).T @ a**2 / len(a), "the sign is wrong"),
    ],
    "04.4": [
        (lambda H, w, keep: crossed(H, w * ~keep) / 2, "factor of ½"),
        (lambda H, w, keep: 2 * crossed(H, w * ~keep), "factor of 2"),
        (lambda H, w, keep: -crossed(H, w * ~keep), "turned round"),
        (lambda H, w, keep: crossed(H, w), "the values differ"),
    ],
    "05.1": [
        (lambda w, P: w / (2 * P.diagonal()), "squared"),
        (lambda w, P: w**2 / (2 * P), "the shape differs"),
        (lambda w, P: w**2 / 2, "the values differ"),
        (lambda w, P: w**2 / (2 * torch.linalg.inv(P).diagonal()), "the values differ"),
    ],
    "05.2": [
        (
            lambda w, P, q: -w[q] / torch.linalg.inv(P)[q, q] * torch.linalg.inv(P)[:, q],
            "that of its inverse",
        ),
        (lambda w, P, q: torch.where(torch.arange(4) == q, -w, 0.0), "do not move"),
        (lambda w, P, q: -w * P[:, q] / P[q, q], "the values differ"),
        (lambda w, P, q: -w[q] * P[:, q] / P.diagonal(), "the values differ"),
    ],
    "05.3": [
        (
            lambda P, q: P * (torch.arange(4) != q) * (torch.arange(4) != q)[:, None],
            "crossed out",
        ),
        (
            lambda P, q: (P - torch.outer(P[:, q], P[q]) / P[q, q])[torch.arange(4) != q][
                :, torch.arange(4) != q
            ],
            "keep the shape",
        ),
        (lambda P, q: P - torch.outer(P[:, q], P[q]) / P[q, q] ** 2, "the values differ"),
        (lambda P, q: P, "the values differ"),
    ],
    "05.4": [
        (lambda w, P, pair: w - stale(w, P, pair), "the values differ"),
        (lambda w, P, pair: stale(w, P, pair), "stale inverse"),
        (
            lambda w, P, pair: -P[:, pair] @ torch.linalg.solve(P[pair][:, pair], w[pair]),
            "this is the step",
        ),
        (
            lambda w, P, pair: w + P[:, pair] @ torch.linalg.solve(P[pair][:, pair], w[pair]),
            "the values differ",
        ),
        (lambda w, P, pair: stale(w, P, pair).index_fill(0, torch.tensor(pair), 0.0), "differ"),
    ],
    "06.1": [
        (lambda G: G.T @ G / (len(G) - 1), "not by m − 1"),
        (lambda G: torch.diag((G**2).mean(0)), "the diagonal alone"),
        (lambda G: G.T @ G / G.shape[1], "same factor everywhere: 1.66667"),
        (lambda G: torch.cov(G.T), "the values differ"),
    ],
    "06.2": [
        (lambda d, a: (d**2).T @ a / len(a), "square the inputs"),
        (lambda d, a: d.T @ a**2 / len(a), "square the output gradients"),
        (lambda d, a: torch.outer((d**2).mean(0), (a**2).mean(0)), "product of two averages"),
        (lambda d, a: ((d**2).T @ a**2 / len(a)).sqrt(), "the values differ"),
    ],
    "06.3": [
        (lambda z: unweighted(z), "its probability"),
        (lambda z: likeliest(z), "the likeliest one alone"),
        (
            lambda z: (
                torch.einsum("nc,nci,ncj->ij", z.softmax(0), one_hots(z), one_hots(z)) / len(z)
            ),
            "the last axis",
        ),
        (lambda z: z.softmax(1).T @ z.softmax(1) / len(z), "the values differ"),
    ],
    "06.4": [
        (lambda A, g, m: A - torch.outer(A @ g, A @ g) / (m + g @ g), "not gᵀg"),
        (lambda A, g, m: A - torch.outer(g, g) / (m + g @ A @ g), "the values differ"),
        (
            lambda A, g, m: A - torch.outer(A @ g, A @ g) / (m * (1 + g @ A @ g)),
            "the values differ",
        ),
        (lambda A, g, m: A, "the values differ"),
    ],
    "07.1": [
        (lambda w, q: w.abs() > q * w[w != 0].std(), "not by n − 1"),
        (lambda w, q: w.abs() > q * (w[w != 0] ** 2).mean().sqrt(), "about the mean"),
        (lambda w, q: w.abs() > q, "instead of exactly|not the right weights"),
        (lambda w, q: (w - w[w != 0].mean()).abs() > q * w[w != 0].std(correction=0), "weights"),
    ],
    "07.2": [
        (lambda q: 0.68 * q, "at q = 2"),
        (lambda q: 100 * math.erf(q / math.sqrt(2)), "in per cent"),
        (lambda q: math.erf(q / math.sqrt(2)) / 2, "factor of ½"),
        (lambda q: math.erfc(q / math.sqrt(2)), "that stays"),
        (lambda q: round(math.erf(q / math.sqrt(2)), 3), "rounded"),
    ],
    "07.3": [
        (
            lambda w: torch.stack([v**2 / (w[w >= v] ** 2).sum() for v in w]),
            "larger in size",
        ),
        (
            lambda w: torch.stack([v.abs() / w[w.abs() >= v.abs()].abs().sum() for v in w]),
            "take the squares",
        ),
        (
            lambda w: torch.stack(
                [v**2 / (w[w.abs() >= v.abs()] ** 2).sum() for v in w[w.abs().argsort()]]
            ),
            "at the place of its weight",
        ),
        (lambda w: w**2, "the values differ"),
    ],
    "07.4": [
        (lambda sizes, keep: once(sizes, keep), "share again"),
        (lambda sizes, keep: [100 * d for d in erk(sizes, keep)], "in per cent"),
        (
            lambda sizes, keep: [
                d * a * b for d, (a, b) in zip(erk(sizes, keep), sizes, strict=True)
            ],
            "fractions are asked",
        ),
        (lambda sizes, keep: [round(d, 2) for d in erk(sizes, keep)], "rounded"),
        (lambda sizes, keep: sum(erk(sizes, keep)), "the shape differs"),
    ],
    "08.1": [
        (lambda p, s: round(math.log(1 - s) / math.log(1 - p)), "not to the nearest"),
        (lambda p, s: int(math.log(1 - s) / math.log(1 - p)) + 1, "no further one"),
        (lambda p, s: math.ceil(math.log(s) / math.log(p)), "the values differ"),
        (
            lambda p, s: math.ceil(math.log(1 - s) / math.log(1 - p)) + 1,
            "same amount everywhere: 1|the values differ",
        ),
    ],
    "08.2": [
        (
            lambda t, a, b, i, j: b + (a - b) * (1 - (t - i) / (j - i)) ** 3,
            "before start and after",
        ),
        (
            lambda t, a, b, i, j: b + (a - b) * (1 - min((t - i) / (j - i), 1)) ** 3,
            "the values differ",
        ),
        (
            lambda t, a, b, i, j: b + (a - b) * (1 - max((t - i) / (j - i), 0)) ** 3,
            "the values differ",
        ),
        (lambda t, a, b, i, j: b - b * (1 - part(t, i, j)) ** 3, "begins at low"),
        (lambda t, a, b, i, j: a + (b - a) * (1 - part(t, i, j)) ** 3, "changed places"),
        (lambda t, a, b, i, j: b + (a - b) * (1 - part(t, i, j)) ** 2, "the values differ"),
        (lambda t, a, b, i, j: b + (a - b) * (1 - part(t, 0, j)) ** 3, "the values differ"),
        (
            lambda t, a, b, i, j: 0 if t < i else b + (a - b) * (1 - part(t, i, j)) ** 3,
            "the values differ",
        ),
    ],
    "08.3": [
        (
            lambda n, rule, steps: [
                int(n * rule(t)) - int(n * rule(t - 1)) for t in range(1, steps + 1)
            ],
            "do not cut off",
        ),
        (
            lambda n, rule, steps: [
                round(n * (rule(t) - rule(t - 1))) for t in range(1, steps + 1)
            ],
            "round the totals",
        ),
        (
            lambda n, rule, steps: [n * (rule(t) - rule(t - 1)) for t in range(1, steps + 1)],
            "the values differ|nearly",
        ),
        (
            lambda n, rule, steps: [
                round(n * rule(t)) - round(n * rule(t - 1)) for t in range(1, steps)
            ],
            "the shape differs",
        ),
        (
            lambda n, rule, steps: [
                round(n * rule(t + 1)) - round(n * rule(t)) for t in range(1, steps + 1)
            ],
            "the values differ",
        ),
    ],
    "08.4": [
        (lambda scores, alive, k: top(scores * alive, k), "came back"),
        (lambda scores, alive, k: top(scores, k) & alive, "too few stay"),
        (lambda scores, alive, k: alive, "all that were alive"),
        (
            lambda scores, alive, k: top(scores.abs().masked_fill(~alive, -1.0), k),
            "smallest|weights",
        ),
        (
            lambda scores, alive, k: (
                torch.arange(8).unsqueeze(1).eq(scores[alive].topk(k).indices).any(1)
            ),
            "weights",
        ),
        (
            lambda scores, alive, k: top(scores.masked_fill(~alive, -9.0), k - 1),
            "too few stay|instead of exactly",
        ),
        (
            lambda scores, alive, k: (
                torch.zeros(8).bool().scatter(0, scores.argsort(descending=True)[1 : k + 1], True)
            ),
            "weights",
        ),
    ],
    "09.1": [
        (lambda W: (W**2).mean(1).sqrt(), "do not average"),
        (lambda W: W.abs().amax(1), "the values differ"),
        (lambda W: W.sum(1).abs(), "the values differ"),
        (lambda W: (W.T @ W).diagonal().sqrt(), "norms of the columns"),
    ],
    "09.2": [
        (lambda keep, places: keep.repeat_interleave(places).float(), "must be boolean"),
        (lambda keep, places: keep.repeat(places, 1), "the shape differs"),
        (lambda keep, places: keep.repeat_interleave(places**2), "the shape differs"),
        (lambda keep, places: keep.repeat_interleave(places).roll(1), "not the right weights"),
    ],
    "09.3": [
        (lambda m, v: int(m.sum()) * 2 * v + 4 * (len(m) + 1), "whatever the number takes"),
        (lambda m, v: int(m.sum()) * (v + 4) + 4 * (m.shape[1] + 1), "not for each column"),
        (lambda m, v: m.numel() * v, "dense matrix"),
        (lambda m, v: int(m.sum()) * (v + 8), "the values differ"),
        (lambda m, v: int(m.sum()) * (v + 4) + v * (len(m) + 1), "the values differ"),
    ],
    "09.4": [
        (lambda V, b, keep: b + 0.5 * V.sum(1), "only the units that are gone"),
        (lambda V, b, keep: b + 0.5 * V[:, ~keep].mean(1), "not a mean"),
        (lambda V, b, keep: b + V[:, ~keep].mean(1), "the values differ"),
        (lambda V, b, keep: 0.5 * (b + V[:, ~keep].sum(1)), "the values differ"),
        (lambda V, b, keep: b, "the values differ"),
    ],
    "12.1": [
        (lambda V, i, j, r: written(V, i, j, r), "work on a copy"),
        (
            lambda V, i, j, r: replaced(V, i, j, r * V[:, j]),
            "what unit i has already",
        ),
        (
            lambda V, i, j, r: replaced(V, i, j, (1 + r) * V[:, i]),
            "the values differ",
        ),
        (
            lambda V, i, j, r: replaced(V, i, j, V[:, i] + r * V[:, j]).roll(1, 1),
            "in another order",
        ),
        (
            lambda V, i, j, r: shifted(V, i, j, r),
            "the values differ",
        ),
    ],
    "12.2": [
        (
            lambda A, V, keep: torch.linalg.lstsq(A[:, keep], A @ V.T).solution,
            "the shape differs|rows and columns|torch stores|the values differ",
        ),
        (
            lambda A, V, keep: torch.zeros_like(V).masked_scatter(
                keep, torch.linalg.lstsq(A[:, keep], A @ V.T).solution.T
            ),
            "leave their columns out",
        ),
        (lambda A, V, keep: V[:, keep] * len(keep) / keep.sum(), "the values differ"),
        (lambda A, V, keep: torch.linalg.lstsq(A, A @ V.T).solution.T[:, keep], "the old weights"),
    ],
    "12.3": [
        (lambda V, H: (V**2).sum(0) / H.diagonal(), "invert H first"),
        (lambda V, H: (V**2).sum(0) * torch.linalg.inv(H).diagonal(), "upside down"),
        (
            lambda V, H: (V**2).mean(0) / torch.linalg.inv(H).diagonal(),
            "same factor everywhere: 0.333333",
        ),
        (lambda V, H: (V**2).sum(1), "the shape differs"),
    ],
    "12.4": [
        (lambda m, v, j: float(v[m[:, 3 - j]].mean() - v[~m[:, 3 - j]].mean()), "from the left"),
        (lambda m, v, j: float(v[m[:, j]].sum() - v[~m[:, j]].sum()), "means, not sums"),
        (lambda m, v, j: float(v[m[:, j]].median() - v[~m[:, j]].median()), "the values differ"),
        (lambda m, v, j: float(v[m[:, j]].mean() - v.mean()), "factor of ½"),
        (lambda m, v, j: shapley(m, v, j), "the values differ"),
    ],
}
for name, pairs in MORE.items():
    WRONG[name].extend(pairs)
