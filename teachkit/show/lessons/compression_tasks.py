"""Lesson 13: its exercises, one of which is an experiment."""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import compression, lab, magnitude, masks, obs
from teachkit.engine.sharing import Shared
from teachkit.lab.evaluation import accuracy
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.trials import Scored, Trial

STEPS = "prune", "share", "train", "teach"
EPOCHS = 60  # that a plan may train in all
OFTEN = 12  # steps that a plan may have
HELD_BACK = 300  # training images that nobody trains on; they judge, and the test images do not


def on_grid(w: Tensor, most: float) -> Tensor:
    """The nearest multiple of max |w| / most."""
    scale = w.abs().max() / most
    return (w / scale).round() * scale


def bits_of(rng: random.Random) -> tuple[Tensor, int]:
    """Weights, of which the largest is negative, and a number of bits."""
    w = normal(rng, 9)
    return torch.cat([w, -1.3 * w.abs().max()[None]]), rng.choice([3, 4])


def stepped(rng: random.Random) -> tuple[Tensor, Tensor, int, float]:
    """Weights, the inverse of a Hessian, which weight, and the value that it is to take."""
    A = normal(rng, 6, 4)
    w = normal(rng, 4)
    q = rng.randrange(4)
    return w, torch.linalg.inv(A.T @ A / 6 + 0.3 * torch.eye(4)), q, float(w[q]) + 0.4


def told(rng: random.Random) -> tuple[Tensor, Tensor, float]:
    """Logits of a student and of its teacher, and a temperature."""
    return uniform(rng, -3, 3, 4, 3), uniform(rng, -3, 3, 4, 3), rng.choice([2.0, 3.0, 5.0])


@cache
def whole() -> tuple[nn.Module, lab.data.Data]:
    """A network that no lesson uses, and its data; the images held back stand in place of the test's."""
    x, y = lab.data.digits().train
    parts = lab.data.Data((x[:-HELD_BACK], y[:-HELD_BACK]), (x[-HELD_BACK:], y[-HELD_BACK:]))
    net = lab.models.mlp(seed=75)
    return lab.training.fit(net, parts.train, seed=75, progress=False)[0], parts


def read(answer: Any) -> list[tuple[str, float]]:
    """The steps of a plan, each (what, how much); ValueError where it is none."""
    given = list(answer) if isinstance(answer, Sequence) and not isinstance(answer, str) else []
    pairs = [s for s in given if isinstance(s, (list, tuple)) and len(s) == 2 and s[0] in STEPS]
    if not given or len(pairs) != len(given) or len(given) > OFTEN:
        words = ", ".join(f'("{name}", …)' for name in STEPS)
        raise ValueError(f"return a list of up to {OFTEN} steps, each one of {words}")
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for _, v in pairs):
        raise ValueError("the second part of a step must be a number")
    for name, v in pairs:
        if name == "prune" and not 0 <= v < 1:
            raise ValueError(f"prune takes the share of zeros, from 0 to below 1, got {v}")
        if name != "prune" and (
            not float(v).is_integer() or not 1 <= v <= (8 if name == "share" else EPOCHS)
        ):
            raise ValueError(f"{name} takes a whole number, bits from 1 to 8 or epochs, got {v}")
    if sum(v for name, v in pairs if name in STEPS[2:]) > EPOCHS:
        raise ValueError(f"a plan may train for {EPOCHS} epochs in all")
    return [(name, float(v)) for name, v in pairs]


def carried(plan: Sequence[tuple[str, float]]) -> nn.Module:
    """The network after the steps: zeros stay zero, shared values stay shared, whoever trains them."""
    net, digits = whole()
    kept: Any = None
    books: Mapping[str, Shared] = {}
    for i, (name, v) in enumerate(plan):
        if name == "prune":
            kept = magnitude.keep_largest(net, max(v, masks.sparsity(kept) if kept else 0.0))
            net = masks.apply(net, kept)
            books = {
                n: b._replace(labels=b.labels.masked_fill(~kept[n], -1)) for n, b in books.items()
            }
        elif name == "share":
            net, books = compression.share_layers(net, int(v))
        else:
            net, books = _trained(net, books, kept, digits, int(v), 75 + i, name == "teach")
    return net


def _trained(
    net: nn.Module,
    books: Mapping[str, Shared],
    kept: Any,
    digits: lab.data.Data,
    epochs: int,
    seed: int,
    taught: bool,
) -> tuple[nn.Module, Mapping[str, Shared]]:
    options: dict[str, Any] = {"epochs": epochs, "seed": seed, "progress": False}
    if taught:
        digits = compression.soft_targets(whole()[0], digits)
        options["loss"] = compression.soft_loss()
    if books:
        made, now, _ = compression.tune(net, books, digits.train, **options)
        return made, now
    return lab.training.fit(net, digits.train, masks=kept, **options)[0], books


def smallest(answer: Any) -> Scored:
    """The bytes of the file, if the network reads as many of the images held back as before."""
    made = carried(read(answer))
    net, parts = whole()
    before, after = accuracy(net, parts.test), accuracy(made, parts.test)
    light = masks.apply(made, {}).float()
    with TemporaryDirectory() as folder:
        size = compression.save(Path(folder) / "a", light)
    says = f"On images held back {before:.3f} before, {after:.3f} after; the file has {size} bytes"
    if after < before:
        return Scored(False, f"{says}. Nothing may be lost.")
    return Scored(True, f"{says}. Score: {size} bytes, the fewer the better.")


TASKS = {
    "13.1": Task(
        draw=bits_of,
        answer=lambda w, bits: on_grid(w, 2 ** (bits - 1) - 1),
        mistakes={
            "these are the whole numbers; multiply by the scale again": lambda w, bits: (
                w / (w.abs().max() / (2 ** (bits - 1) - 1))
            ).round(),
            "one sign takes half of the values: divide by 2^(b−1) − 1": lambda w, bits: on_grid(
                w, 2**bits - 1
            ),
            "0 is one of the values, so on each side there are 2^(b−1) − 1": lambda w, bits: (
                on_grid(w, 2 ** (bits - 1))
            ),
            "this cuts off; take the nearest": lambda w, bits: (
                (s := w.abs().max() / (2 ** (bits - 1) - 1)) * (w / s).trunc()
            ),
            "the largest size decides, here that of a negative weight": lambda w, bits: (
                (s := w.max() / (2 ** (bits - 1) - 1)) * (w / s).round()
            ),
        },
    ),
    "13.2": Task(
        draw=stepped,
        answer=lambda w, P, q, v: w + compression.step(w, P, q, v),
        mistakes={
            "this is the step alone; add it to the weights": compression.step,
            "this makes weight q zero; it is to become v": lambda w, P, q, v: (
                w + obs.update(w, P, q)
            ),
            "the other weights are to make up for it": lambda w, P, q, v: torch.where(
                torch.arange(len(w)) == q, torch.full_like(w, v), w
            ),
            "the sign is wrong: weight q moves away from v": lambda w, P, q, v: (
                w - compression.step(w, P, q, v)
            ),
            "divide by P_qq": lambda w, P, q, v: w - (w[q] - v) * P[:, q],
        },
    ),
    "13.3": Task(
        draw=told,
        answer=compression.soft_gradient,
        mistakes={
            "the inner derivative, 1 / T, is missing": lambda z, v, T: (
                T * compression.soft_gradient(z, v, T)
            ),
            "the sign is wrong: the student is too sure where the slope is positive": lambda z, v, T: (
                compression.soft_gradient(v, z, T)
            ),
            "the teacher must be softened, too": lambda z, v, T: (
                ((z / T).softmax(1) - v.softmax(1)) / T
            ),
            "the classes are the last axis": lambda z, v, T: (
                ((z / T).softmax(0) - (v / T).softmax(0)) / T
            ),
            "this has the factor T² of the loss; the slope alone is asked": lambda z, v, T: (
                T**2 * compression.soft_gradient(z, v, T)
            ),
            "this is the limit for high T": compression.matched_gradient,
        },
    ),
}
TRIALS = {"13.4": Trial(ask=lambda: (), judge=smallest)}
