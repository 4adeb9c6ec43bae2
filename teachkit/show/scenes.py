"""What the explorers draw: one function per explorer, from slider values to a Picture."""

import numpy as np
import sympy
from torch import nn

from teachkit import hessian, magnitude, masks, taylor
from teachkit.lab.evaluation import evaluate
from teachkit.lab.session import COLOURS, LINES
from teachkit.lab.types import Batch
from teachkit.show import plots
from teachkit.show.pictures import Picture

x, y = sympy.symbols("x y")
FUNCTIONS = {"sin x": sympy.sin(x), "exp x": sympy.exp(x), "log(1 + x)": sympy.log(1 + x)}


def digit(model: nn.Module, batch: Batch, number: int) -> Picture:
    """One test digit as the network sees it, and the probability it gives to each class."""
    image, label = batch[0][number], int(batch[1][number])
    probability = model(image[None]).softmax(1)[0].detach().numpy()
    figure, (left, right) = plots.canvas(2, height=2.6)
    left.imshow(image[0], cmap="gray_r")
    left.set(title=f"test digit {number}: a {label}", xticks=[], yticks=[])
    left.grid(False)
    right.bar(range(10), probability, color=COLOURS[0])
    right.set(xticks=range(10), ylim=(0, 1), xlabel="class", ylabel="probability")
    guess = int(probability.argmax())
    return Picture(figure, f"Test digit {number} shows a {label}; the network says {guess}.")


def quadratic(a: float, b: float, c: float) -> Picture:
    """Level lines of f = a x² + b x y + c y² with its D and the verdict at the origin."""
    f = sympy.nsimplify(a) * x**2 + sympy.nsimplify(b) * x * y + sympy.nsimplify(c) * y**2
    kind = hessian.kind(hessian.hessian(f, (x, y)))
    D = float(hessian.discriminant(f, (x, y)))
    point = hessian.CriticalPoint(
        {x: sympy.S.Zero, y: sympy.S.Zero}, kind, sympy.S.Zero, sympy.eye(2)
    )
    says = f"D = {D:g}, f_xx = {2 * a:g}: {kind}"
    alt = f"Level lines of f = {a:g} x² + {b:g} x y + {c:g} y². {says} at the origin."
    return plots.contours(f, (x, y), [point], alt=alt, title=says)


def polynomial(function: str, centre: float, order: int) -> Picture:
    """A function of one variable and its Taylor polynomial about a centre."""
    f = FUNCTIONS[function]
    p = taylor.polynomial(f, x, (sympy.nsimplify(centre),), order)
    grid = np.linspace(-0.9, 4, 200)
    curves = {
        function: sympy.lambdify(x, f, "numpy")(grid),
        f"order {order}": np.broadcast_to(sympy.lambdify(x, p, "numpy")(grid), grid.shape),
    }
    error = np.abs(np.subtract(*curves.values())).max()
    alt = (
        f"{function} and its Taylor polynomial of order {order} about {centre:g}; "
        f"on [-0.9, 4] they differ by at most {error:.3g}."
    )
    return plots.lines(grid, curves, xlabel="x", ylabel="value", alt=alt, ylim=(-2, 4))


def pruned(model: nn.Module, batch: Batch, sparsity: float, scope: str) -> Picture:
    """The masks of magnitude pruning, layer by layer, and what accuracy they leave."""
    kept = masks.keep_top(
        magnitude.scores(model), sparsity, "layer" if scope == "per layer" else "global"
    )
    accuracy = evaluate(masks.apply(model, kept), batch).accuracy
    shown = {f"{name}\n{int(m.sum())} of {m.numel()} kept": m.numpy() for name, m in kept.items()}
    alt = (
        f"Masks at sparsity {sparsity:g}, {scope}, black keeps; test accuracy {accuracy:.3f}. "
        + "; ".join(title.replace("\n", " ") for title in shown)
    )
    return plots.matrices(shown, alt=alt, title=f"test accuracy {accuracy:.3f}")


def steps(path: taylor.Path) -> Picture:
    """How far the first- and second-order predictions are off, against the size of the step."""
    figure, (axes,) = plots.canvas()
    for i, (label, predicted) in enumerate(
        {"gᵀδ": path.first, "gᵀδ + ½ δᵀHδ": path.second}.items()
    ):
        error = (predicted - path.actual).abs()
        axes.loglog(path.t, error, "o", color=COLOURS[i], linestyle=LINES[i], label=label)
    axes.set(xlabel="step size t", ylabel="|predicted − true change|")
    axes.legend(frameon=False, title="prediction")
    alt = (
        "Error of two predictions against the step size, both axes logarithmic: the straight line "
        "of the second order is steeper and lower for small steps."
    )
    return Picture(figure, alt)
