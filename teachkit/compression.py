"""The neighbours of pruning: fewer bits for a weight, fewer bytes for a file, a small network that is taught.

Pruning sets a weight to zero; quantization sets it to one of a few values, and the surgeon of lesson 05 knows
what the others should do then: :func:`step` to another value than 0. The plain algorithms stand here; the
fast ones, on whole networks, come from the engine: ``grids``, ``rounding`` (GPTQ), ``sharing`` (k-means),
``codes`` (Huffman), ``formats`` and ``archive`` (files); ``lab.teaching`` distils.

Sources: Han, Mao & Dally, Deep Compression, ICLR 2016; Frantar, Ashkboos, Hoefler & Alistarh, GPTQ, ICLR
2023; Huffman, Proceedings of the IRE 1952; Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural
Network, 2015.
"""

import heapq
from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import softmax

from teachkit import obs
from teachkit.core import checks, door
from teachkit.core.types import Batch, Data
from teachkit.engine.archive import load, save
from teachkit.engine.formats import Packed, bound, pack, smallest, unpack
from teachkit.engine.forms import FORMS as PAIRS
from teachkit.engine.grids import Grid, Quantized, dequantize, grid, quantize, rounded
from teachkit.engine.rounding import gptq, round_layers
from teachkit.engine.sharing import Shared, found, kmeans, share_layers, sharing
from teachkit.lab.teaching import distil, soft_loss, soft_targets
from teachkit.lab.training import History, fit

FORMS = tuple(PAIRS)
__all__ = [
    "FORMS", "Grid", "Packed", "Quantized", "Shared", "bound", "dequantize", "distil", "gptq", "grid",
    "kmeans", "load", "pack", "quantize", "round_layers", "rounded", "save", "share_layers", "smallest",
    "soft_loss", "soft_targets", "unpack",
]  # fmt: skip

# --- Fewer bits for a weight. ---


class Spacing(NamedTuple):
    """The values scale · (q − zero) for the whole numbers q from low to high."""

    scale: float
    zero: int
    low: int
    high: int


def grid_naive(
    w: Sequence[float], bits: int, kind: Literal["symmetric", "affine"] = "symmetric"
) -> Spacing:
    """Evenly spaced values over a list of weights: around 0, or from the smallest to the largest.

    Symmetric: scale = max |w| / (2^(b−1) − 1), one value fewer than b bits can tell apart. Affine: scale =
    (max − min) / (2^b − 1), and zero is the whole number that means 0: a weight of 0 stays exactly 0.

    >>> grid_naive([-0.5, 1.5], 2), grid_naive([-0.5, 1.0], 2, "affine")
    (Spacing(scale=1.5, zero=0, low=-1, high=1), Spacing(scale=0.5, zero=1, low=0, high=3))
    """
    checks.whole("bits", bits, 2, 16)
    low, high = min(*w, 0.0), max(*w, 0.0)
    if kind == "symmetric":
        most = 2 ** (bits - 1) - 1
        return Spacing(max(-low, high) / most or 1.0, 0, -most, most)
    scale = (high - low) / (2**bits - 1) or 1.0
    return Spacing(scale, min(round(-low / scale), 2**bits - 1), 0, 2**bits - 1)


def round_naive(w: Sequence[float], to: Spacing) -> list[float]:
    """Each weight to its nearest value: q = round(w / scale) + zero, held within low and high.

    >>> round_naive([-0.6, 0.2, 1.5], Spacing(0.5, 0, -3, 3))
    [-0.5, 0.0, 1.5]
    """
    q = [min(max(round(each / to.scale) + to.zero, to.low), to.high) for each in w]
    return [(each - to.zero) * to.scale for each in q]


def step(weights: Tensor, inverse: Tensor, q: int, value: float | Tensor) -> Tensor:
    """δ = −((w_q − v) / P_qq) P e_q: weight q goes to the value v at the least cost, (..., n).

    P = H⁻¹. With v = 0 it is ``obs.update``, word for word: pruning is rounding to a grid that holds only
    0. The loss rises by (w_q − v)² / (2 P_qq). Source: Frantar & Alistarh, OBC, NeurIPS 2022, section 5.

    >>> w, P = Tensor([1.0, 1.0]), Tensor([[1.0, -1.0], [-1.0, 2.0]])
    >>> step(w, P, 1, 0.5).tolist(), step(w, P, 1, 0).tolist(), obs.update(w, P, 1).tolist()
    ([0.25, -0.5], [0.5, -1.0], [0.5, -1.0])
    """
    short = weights.clone()
    short[..., q] = weights[..., q] - value
    return obs.update(short, inverse, q)


def gptq_naive(W: Tensor, inputs: Tensor, to: Grid, *, damping: float = 1e-2) -> Tensor:
    """GPTQ as lesson 05 would write it: round input j, let all further ones move, take j out of H⁻¹.

    W (out, in), inputs X (n, in); λ = damping times the mean of H's diagonal. :func:`gptq` is the fast one.
    A weight that is zero stays zero.
    """
    H = (inputs.T @ inputs).double()
    P = obs.inverse(H, damping=damping)
    moved = W.double().clone()
    for j in range(W.shape[1]):
        value = rounded(moved.to(W.dtype), to).double()[:, j].masked_fill(W[:, j] == 0, 0.0)
        for i in range(len(W)):
            moved[i] += step(moved[i], P, j, value[i])
        moved[:, j], P = value, obs.downdate(P, j)
    return moved.to(W.dtype)


def kmeans_naive(values: Sequence[float], k: int, rounds: int = 300) -> list[float]:
    """Weight sharing: k centres, from even distances; each value to its nearest, each centre to the mean.

    >>> [round(centre, 4) for centre in kmeans_naive([0.0, 0.1, 0.9, 1.0], 2)]
    [0.05, 0.95]
    """
    few = sorted(set(values))
    if len(few) <= checks.whole("k", k, 1):
        return few
    low, high = few[0], few[-1]
    centres = [low + (high - low) * i / max(k - 1, 1) for i in range(k)]
    for _ in range(rounds):
        groups: list[list[float]] = [[] for _ in centres]
        for v in values:
            groups[min(range(k), key=lambda i: abs(v - centres[i]))].append(v)
        centres = [sum(g) / len(g) if g else c for g, c in zip(groups, centres, strict=True)]
    return centres


def tune(
    model: nn.Module, shared: Mapping[str, Shared], data: Data | Batch, **options: Any
) -> tuple[nn.Module, dict[str, Shared], History]:
    """Train the values that are shared: a centre's gradient is the sum of its weights' gradients.

    Which weight takes which centre stays, and zeros stay; biases are trained along. ``shared`` is what
    :func:`share_layers` has made of this model, the options are those of ``lab.training.fit``.
    """
    trained, history = fit(sharing(model, dict(shared)), data, **options)
    made, now, _ = found(trained, dict(shared))  # type: ignore[arg-type]
    return made.eval(), now, history


# --- Fewer bytes for a number. ---


def entropy(counts: Sequence[int]) -> float:
    """H = Σ p log₂ (1/p) bits a symbol, p = counts / Σ counts: no code of one word a symbol needs less.

    >>> entropy([4, 2, 1, 1])
    1.75
    """
    n = sum(checks.whole("each count", count) for count in counts)
    return sum(count / n * log2(n / count) for count in counts if count)


def huffman_naive(counts: Mapping[Any, int]) -> dict[Any, str]:
    """Huffman's words: join the two rarest into one, again and again; each joining puts a bit in front.

    No word begins another, so they need no commas; the mean length lies from H up to, not at, H + 1.

    >>> huffman_naive({"a": 4, "b": 2, "c": 1, "d": 1})
    {'a': '0', 'b': '10', 'c': '110', 'd': '111'}
    """
    heap = [(checks.whole("each count", n, 1), i, [s]) for i, (s, n) in enumerate(counts.items())]
    heapq.heapify(heap)
    words = dict.fromkeys(counts, "0" if len(counts) == 1 else "")
    while len(heap) > 1:
        rare, next_rare = heapq.heappop(heap), heapq.heappop(heap)
        for bit, (_, _, symbols) in zip("01", (rare, next_rare), strict=True):
            words |= {symbol: bit + words[symbol] for symbol in symbols}
        heapq.heappush(heap, (rare[0] + next_rare[0], rare[1], rare[2] + next_rare[2]))
    return words


def relative_naive(values: Sequence[float], bits: int) -> list[tuple[int, float]]:
    """(zeros before it, number) for each number that is not zero; a run too long for b bits gets a filler 0.

    Source: Han, Mao & Dally 2016, figure 2.

    >>> relative_naive([0, 0, 3.0, 0, 0, 0, 0, 0, 1.0], 2)
    [(2, 3.0), (3, 0.0), (1, 1.0)]
    """
    pairs, run, most = [], 0, 2 ** checks.whole("bits", bits, 1, 24) - 1
    for v in values[: max((i + 1 for i, v in enumerate(values) if v), default=0)]:
        if v or run == most:
            pairs.append((run, float(v)))
        run = 0 if v or run == most else run + 1
    return pairs


# --- A small network that is taught. ---


def soften(z: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature: softmax(z / T). T = 1 is softmax; the higher T, the more equal.

    >>> soften(Tensor([[2.0, 0.0]]), 2).round(decimals=3)
    tensor([[0.7310, 0.2690]])
    """
    return softmax(z / checks.positive("temperature", temperature), dim=-1)


def soft_gradient(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """∂/∂z of the cross-entropy to the teacher's soft targets: (softmax(z / T) − softmax(v / T)) / T, (n, C).

    Source: Hinton, Vinyals & Dean 2015, equation 2. It falls with T², hence the factor T² in the loss.
    """
    checks.same_shape(z=z, teacher=teacher)
    return (soften(z, temperature) - soften(teacher, temperature)) / temperature


def matched_gradient(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The limit of :func:`soft_gradient` at high T: (z − v) / (C T²), each less its mean over the C classes.

    There distillation matches logits, ½ (z − v)². Source: Hinton, Vinyals & Dean 2015, equations 3 and 4.
    """
    checks.same_shape(z=z, teacher=teacher)
    gap = z - teacher
    return (gap - gap.mean(-1, keepdim=True)) / (
        z.shape[-1] * checks.positive("temperature", temperature) ** 2
    )


door.hold(globals())
