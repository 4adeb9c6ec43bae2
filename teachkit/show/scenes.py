"""What the explorers draw: one function per explorer, from slider values to a Picture."""

import numpy as np
import sympy
import torch
from torch import nn

from teachkit import fisher, hessian, magnitude, masks, obs, schedule, taylor
from teachkit.core.types import Batch, Scores
from teachkit.lab.curves import spearman
from teachkit.lab.evaluation import evaluate
from teachkit.lab.session import COLOURS, LINES
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


def two_saliencies(b: float, w2: float) -> Picture:
    """A quadratic loss with its minimum at (1, w2) and what removing each weight costs.

    H = [[6, b], [b, 2]]: Optimal Brain Damage reads the diagonal, the row-sum trap the sums of rows.
    """
    H, w = np.array([[6.0, b], [b, 2.0]]), np.array([1.0, w2])
    grid = np.linspace(-1, 4, 121)
    at = np.stack(np.meshgrid(grid, grid), -1) - w
    loss = 0.5 * np.einsum("...i,ij,...j", at, H, at)
    figure, (axes,) = plots.canvas(width=5.4, height=4.4)
    axes.contour(grid, grid, loss, levels=np.arange(0.5, 30, 1.5), cmap="cividis", linewidths=1)
    ends = {"trained": w, "without w1": np.array([0, w2]), "without w2": np.array([1.0, 0])}
    for i, (label, end) in enumerate(ends.items()):
        axes.plot(*end, "ov^"[i], color=COLOURS[i], markersize=9, label=label)
    axes.set(xlabel="w1", ylabel="w2", aspect="equal", xlim=(-1, 4), ylim=(-1, 4))
    cost, rows = 0.5 * H.diagonal() * w**2, 0.5 * H.sum(1) * w**2
    says = f"removing w1 costs {cost[0]:.2f}, w2 {cost[1]:.2f}; row sums say {rows[0]:.2f}, {rows[1]:.2f}"
    axes.set_title(says, fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return Picture(
        figure, f"Level lines of a quadratic loss with b = {b:g} and w2 = {w2:g}: {says}."
    )


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


def fisher_ranking(
    model: nn.Module, batch: Batch, exact: Scores, samples: int, damping_exponent: int
) -> Picture:
    """Exact saliencies against ½ (f + λ) w² with f from the first samples and λ = 10^exponent."""
    part = (batch[0][:samples], batch[1][:samples])
    f, weights = fisher.diagonal(model, part), masks.prunable(model)
    found = {n: 0.5 * (f[n] + 10.0**damping_exponent) * w.detach() ** 2 for n, w in weights.items()}
    h, s = (torch.cat([t.reshape(-1) for t in each.values()]) for each in (exact, found))
    both = (h.argsort(descending=True)[: len(h) // 10], s.argsort(descending=True)[: len(h) // 10])
    same = np.intersect1d(*both).size / len(both[0])
    shown = (h > 1e-12) & (s > 1e-12)
    figure, (axes,) = plots.canvas(width=4.8, height=4.2)
    axes.loglog(h[shown][::3], s[shown][::3], ".", markersize=3, alpha=0.5, rasterized=True)
    axes.set(xlabel="½ h w², exact Hessian", ylabel="½ (f + λ) w²")
    decades = [1e-12, 1e-9, 1e-6, 1e-3, 1]
    axes.set(xlim=(1e-12, 1), ylim=(1e-12, 1), xticks=decades, yticks=decades)
    axes.minorticks_off()
    says = f"rank correlation {spearman(h, s):.3f}, {100 * same:.0f} % of the best tenth shared"
    axes.set_title(says, fontsize=10)
    given = f"{samples} samples, damping 10^{damping_exponent}"
    alt = f"Saliencies from the Fisher diagonal, {given}, against exact ones: {says}."
    return Picture(figure, alt)


def surgery(method: str, correlation: float, damping: float) -> Picture:
    """Two weights, the level lines of their loss, and where a pruning method moves them.

    H = [[5, c], [c, 1]] with c = correlation · √5, weights (1, 2) at the minimum.
    """
    c = correlation * 5**0.5
    H, w = torch.tensor([[5.0, c], [c, 1.0]]), torch.tensor([1.0, 2.0])
    P = obs.inverse(H, damping=damping)
    scores = {
        "magnitude": w.abs(),
        "OBD": 0.5 * H.diagonal() * w**2,
        "OBS": obs.saliencies(w, P),
    }[method]
    q = int(scores.argmin())
    step = obs.update(w, P, q) if method == "OBS" else torch.where(torch.arange(2) == q, -w, 0.0)
    rise = float(0.5 * step @ H @ step)
    grid = np.linspace(-1, 4, 101)
    u, v = np.meshgrid(grid - 1, grid - 2)
    figure, (axes,) = plots.canvas(width=5.4, height=4.0)
    loss = 2.5 * u**2 + c * u * v + 0.5 * v**2
    levels = axes.contour(grid, grid, loss, [0.1, 0.4, 1, 2, 4, 8], colors="0.6", linewidths=1)
    axes.clabel(levels, fontsize=8)
    axes.plot(*zip(w.tolist(), (w + step).tolist(), strict=True), "-", color=COLOURS[1])
    axes.plot(*w.tolist(), "o", color="black", label="minimum (1, 2)")
    axes.plot(*(w + step).tolist(), "s", color=COLOURS[1], label=f"after {method}")
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":")
    axes.axvline(0, color="0.4", linewidth=1, linestyle=":")
    says = f"{method} removes w{q + 1}; the loss rises by {rise:.2f}"
    axes.set_title(says, fontsize=10)
    axes.set(xlabel="w1", ylabel="w2", aspect="equal", xlim=(-1, 4), ylim=(-1, 4))
    axes.legend(loc="upper right", fontsize=8)
    axes.grid(False)
    end = ", ".join(f"{value:.2f}" for value in (w + step).tolist())
    alt = (
        f"Level lines of a loss of two weights with correlation {correlation:g}. {says}; "
        f"the weights move from (1, 2) to ({end})."
    )
    return Picture(figure, alt)


def schedule_curve(shape: str, final: float, warm_up: int, end: int, every: int) -> Picture:
    """The sparsity of a schedule over 20 steps, and how much of it is gone halfway."""
    make = {"linear": schedule.linear, "cubic": schedule.cubic, "exponential": schedule.exponential}
    rule = schedule.every(schedule.delayed(make[shape](0, final, 0, end), warm_up), every)
    steps = np.arange(21)
    figure, (axes,) = plots.canvas()
    levels = [rule(int(t)) for t in steps]
    axes.step(steps, levels, where="post", color=COLOURS[0], label=shape)
    axes.plot(steps, levels, "o", color=COLOURS[0], markersize=4)
    axes.set(xlabel="step", ylabel="sparsity", ylim=(-0.02, 1.02), xticks=range(0, 21, 4))
    half = levels[warm_up + end // 2] / final
    says = f"{100 * half:.0f} % of all removals are done {warm_up + end // 2} steps in"
    axes.set_title(says, fontsize=10)
    alt = (
        f"The {shape} schedule to {final:g} with a warm-up of {warm_up} steps, {end} steps long, "
        f"changing every {every}: {says}."
    )
    return Picture(figure, alt)


def quality_threshold(model: nn.Module, layer: str, quality: float) -> Picture:
    """The weights of a layer, Han's threshold of quality × σ on both sides, and what it removes."""
    w = masks.prunable(model)[layer].detach()
    w = w[w != 0]
    at = quality * float(w.std(correction=0))
    gone = float((w.abs() <= at).double().mean())
    figure, (axes,) = plots.canvas()
    axes.hist(w.numpy(), bins=60, color="0.75", edgecolor="0.45", linewidth=0.5)
    axes.axvspan(-at, at, color=COLOURS[1], alpha=0.25, label="removed")
    for side in (-at, at):
        axes.axvline(side, color=COLOURS[1], linestyle=LINES[0])
    expected = magnitude.removed_share(quality)
    says = f"{100 * gone:.0f} % removed; Gaussian weights: {100 * expected:.0f} %"
    axes.set_title(f"q = {quality:g}, threshold {at:.3f}: {says}", fontsize=10)
    axes.set(xlabel=f"weight of layer {layer}", ylabel="number of weights")
    axes.legend(frameon=False, loc="upper right")
    return Picture(
        figure, f"Histogram of the weights of {layer} with the band |w| ≤ {at:.3f} removed: {says}."
    )
