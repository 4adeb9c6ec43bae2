"""Lesson 11: its exercises, three of which are experiments."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from teachkit import lab, magnitude, masks, paradox
from teachkit.lab.evaluation import accuracy
from teachkit.show.exercises import Task, normal
from teachkit.show.trials import Scored, Trial

DRAWS = 20
ENOUGH = 0.75  # test accuracy of a repaired network


def agreement(push: Tensor) -> Tensor:
    """Σ over the units of |Σ of the pushes| in units of Σ |push|."""
    return push.sum(1).abs().sum() / push.abs().sum()


def two_weights(answer: Any) -> Scored:
    """Each alone must promise a decrease, both together raise a loss that has no negative curvature."""
    parts = list(answer) if isinstance(answer, (tuple, list)) else []
    if len(parts) != 3:
        raise ValueError("return three things: g, H and w")
    g, H, w = (torch.as_tensor(part, dtype=torch.float64) for part in parts)
    shapes = [tuple(t.shape) for t in (g, H, w)]
    if shapes != [(2,), (2, 2), (2,)]:
        raise ValueError(
            f"the shapes of g, H and w must be (2,), (2, 2) and (2,), they are {shapes}"
        )
    if not all(bool(t.isfinite().all()) for t in (g, H, w)) or not torch.equal(H, H.T):
        raise ValueError("all numbers must be finite, and H symmetric")
    if float(torch.linalg.eigvalsh(H)[0]) < -1e-9:
        raise ValueError("H has a negative eigenvalue; a squared error has none")
    alone = -g * w + 0.5 * H.diagonal() * w**2
    both = float(alone.sum() + H[0, 1] * w[0] * w[1])
    told = f"The promises are {alone[0]:.4g} and {alone[1]:.4g}; both together change the loss by {both:.4g}."
    if not bool((alone < 0).all()):
        return Scored(False, f"each removal alone must promise a decrease. {told}")
    if both <= 0:
        return Scored(False, f"both removals together must raise the loss. {told}")
    return Scored(True, f"{told} Score: {both / -float(alone.sum()):.2g} times what was promised.")


@cache
def pruned() -> tuple[nn.Module, nn.Module, lab.data.Data]:
    """A network that no lesson uses, and what is left of it when T2 takes 10 %."""
    digits = lab.data.digits()
    net = lab.training.fit(lab.models.mlp(seed=71), digits.train, seed=71, progress=False)[0]
    return (
        net,
        masks.apply(net, masks.keep_top(paradox.second_order(net, digits.train), 0.1)),
        digits,
    )


def matrices(net: nn.Module, kind: str) -> list[Tensor]:
    """The weights or the biases of its layers, in order."""
    return [p.detach().clone() for name, p in net.named_parameters() if name.endswith(kind)]


def ask_to_mend() -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """Weights and biases before, weights after, and 400 inputs without labels."""
    net, cut, digits = pruned()
    x = digits.train[0][:400].flatten(1)
    return matrices(net, "weight"), matrices(net, "bias"), matrices(cut, "weight"), x


def mended(answer: Any, *inputs: Any) -> Scored:
    """Test accuracy of the pruned network with these biases."""
    _, cut, digits = pruned()
    wanted = matrices(cut, "bias")
    given = list(answer) if isinstance(answer, Sequence) else []
    shapes = [tuple(getattr(b, "shape", ())) for b in given]
    if shapes != [tuple(b.shape) for b in wanted]:
        sizes = ", ".join(str(len(b)) for b in wanted)
        raise ValueError(f"return a list of three tensors, the new biases of {sizes} units")
    if not all(bool(torch.isfinite(b).all()) for b in given):
        raise ValueError("a bias is not finite")
    trial = masks.apply(cut, {})
    biases = [p for name, p in trial.named_parameters() if name.endswith("bias")]
    with torch.no_grad():
        for old, new in zip(biases, given, strict=True):
            old.copy_(new)
    before, after = accuracy(cut, digits.test), accuracy(trial, digits.test)
    told = f"Test accuracy {before:.2f} before, {after:.2f} with your biases"
    if after < ENOUGH:
        return Scored(False, f"{told}; {ENOUGH} is asked for.")
    return Scored(True, f"{told}.")


@cache
def settled() -> tuple[nn.Module, lab.data.Data, float]:
    """A network whose training has come to rest, and its accuracy without a random 5 %."""
    digits, dice = lab.data.digits(), torch.Generator().manual_seed(72)
    net, _ = lab.training.fit(
        lab.models.mlp(seed=72),
        digits.train,
        epochs=60,
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        scheduler=partial(CosineAnnealingLR, T_max=60),
        seed=72,
        progress=False,
    )
    draws = [masks.keep_top(magnitude.random_scores(net, dice), 0.05) for _ in range(DRAWS)]
    return net, digits, sum(accuracy(masks.apply(net, kept), digits.test) for kept in draws) / DRAWS


def broken(answer: Any, y: Tensor) -> Scored:
    """Does T2, estimated on these images, lose to random at 5 %? The more images, the better."""
    net, digits, chance = settled()
    rows = torch.as_tensor(answer)
    if rows.dtype == torch.bool:
        rows = rows.nonzero()
    rows = rows.reshape(-1)
    if rows.is_floating_point() or not len(rows):
        raise ValueError("return the positions of some images: whole numbers, or a mask")
    if int(rows.min()) < 0 or int(rows.max()) >= len(y) or len(set(rows.tolist())) < len(rows):
        raise ValueError(f"positions must differ and lie between 0 and {len(y) - 1}")
    some = (digits.train[0][rows], digits.train[1][rows])
    kept = masks.keep_top(paradox.second_order(net, some), 0.05)
    reached = accuracy(masks.apply(net, kept), digits.test)
    told = f"T2 from {len(rows)} images: test accuracy {reached:.3f}; random {chance:.3f}."
    if reached >= chance:
        return Scored(False, f"T2 still wins. {told}")
    return Scored(True, f"T2 is broken. {told} Score: {len(rows)} images.")


TASKS = {
    "11.2": Task(
        draw=lambda rng: (normal(rng, 4, 6) * (normal(rng, 4, 6) > -0.5),),
        answer=agreement,
        mistakes={
            "this adds the pushes of different units, too; take the absolute value of each unit's sum": (
                lambda push: push.sum().abs() / push.abs().sum()
            ),
            "add up over the inputs of a unit, the last axis": (
                lambda push: push.sum(0).abs().sum() / push.abs().sum()
            ),
            "this is 1 whatever the pushes are: add up before the absolute value": (
                lambda push: push.abs().sum(1).abs().sum() / push.abs().sum()
            ),
            "divide by the sum of all |push|": lambda push: push.sum(1).abs().sum(),
            "one number for all units is asked, not the mean over the units": (
                lambda push: (push.sum(1).abs() / push.abs().sum(1)).mean()
            ),
            "keep the size of the pushes; this counts signs only": (
                lambda push: agreement(push.sign())
            ),
        },
    ),
}
TRIALS = {
    "11.1": Trial(ask=lambda: (), judge=two_weights),
    "11.3": Trial(ask=ask_to_mend, judge=mended),
    "11.4": Trial(ask=lambda: (settled()[1].train[1],), judge=broken),
}
