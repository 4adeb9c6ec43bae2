"""Train the small language model of the course, and others from other seeds.

``python -m teachkit.experiments.characters`` writes data/characters.safetensors; six minutes on one core.
"""

from functools import cache, partial
from math import cos, pi
from pathlib import Path
from typing import Any

import pooch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from teachkit.core import files
from teachkit.lab import data, language, matrices, transformers
from teachkit.lab.tokens import Characters
from teachkit.lab.training import fit

LENGTH, BATCH, STEPS, RATE, DECAY = 128, 32, 1000, 2e-3, 0.1


def loss(logits: Tensor, following: Tensor) -> Tensor:
    """The cross-entropy of each next token, averaged over places and samples."""
    return cross_entropy(logits.flatten(0, 1), following.flatten())


def rate(step: int, steps: int = STEPS, warm: int = 100) -> float:
    """Up in a line, then down along a cosine to a tenth."""
    return min(1.0, (step + 1) / warm) * (0.1 + 0.45 * (1 + cos(pi * min(step / steps, 1.0))))


def stepped(groups: Any) -> torch.optim.Optimizer:
    """AdamW whose rate moves with each step."""
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))
    schedule = LambdaLR(optimizer, rate)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def decaying(net: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay, all else does not."""
    flat = [p for p in net.parameters() if p.ndim < 2]
    wide = [p for p in net.parameters() if p.ndim == 2]
    return [{"params": wide, "weight_decay": DECAY}, {"params": flat, "weight_decay": 0.0}]


def trained(seed: int) -> dict[str, Tensor]:
    """The weights of a transformer that has read a thousand batches, rounded to half precision."""
    letters = Characters(language.text("shakespeare"))
    tokens = language.halves(letters.encode(language.text("shakespeare")))[0]
    dice = torch.Generator().manual_seed(seed)
    seen = language.windows(tokens, LENGTH + 1, BATCH * STEPS, dice)
    net = transformers.transformer(len(letters.known), context=LENGTH, seed=seed).float()
    run = partial(fit, epochs=1, batch_size=BATCH, optimizer=stepped, groups=decaying, loss=loss)
    made, _ = run(net, (seen[:, :-1], seen[:, 1:]), seed=seed)
    return {name: p.detach().half() for name, p in made.named_parameters()}


def weights(seed: int) -> dict[str, Tensor]:
    """What :func:`trained` gives; it takes minutes, so it is kept in the user's cache."""
    settings = {"steps": STEPS, "batch": BATCH, "length": LENGTH, "rate": RATE, "decay": DECAY}
    known = {name: str(value) for name, value in settings.items()}
    folder = matrices.Folder(Path(pooch.os_cache("teachkit")) / "characters", known)
    return folder(seed, partial(trained, seed))


@cache
def network(seed: int) -> nn.Module:
    """The course's own model for seed 0, and its siblings, in torch's default float type."""
    return language.loaded(weights(seed)) if seed else language.shakespeare().model


if __name__ == "__main__":
    about = {"made by": "python -m teachkit.experiments.characters"}
    files.replace(data.folder() / language.WEIGHTS, matrices.packed(weights(0), about))
