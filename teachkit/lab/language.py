"""Texts, the small language model that comes with the course, and windows of tokens to show it.

The small model reads characters. It was trained by ``python -m teachkit.experiments.characters``; its
weights are kept in half precision.
"""

import lzma
from collections.abc import Mapping
from math import exp

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.objective import eval_mode
from teachkit.lab import matrices, transformers
from teachkit.lab.data import shipped
from teachkit.lab.fetching import DataError, verified
from teachkit.lab.tokens import Characters, Language

TEXTS = {  # SHA-256 of the packed file, and of the text itself
    "shakespeare": (
        "tinyshakespeare.txt.xz",
        "21b40ccf4999c004256d116655824719001352dbc22636354d9cd0c645d03a4a",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "devil": (
        "devils_dictionary.txt.xz",
        "1f6662d8afedc3612529d9ef39d947a4951ca0eb8719f11ad335a97e635f69b3",
        "703d1225d2fb927653bfd8b00e4e96938e0b630c6023edd26702ac6ed50383f8",
    ),
    "python": (
        "python_topics.txt.xz",
        "01e5ded05cdb3ac9aa239cf62a7015264b3068259039190ed8858c3666fbf242",
        "71f2ff5d99bdc1f9c48c5c2353ad138201c5ca1c377e0226857ef8fa89b8bcee",
    ),
}
WEIGHTS = "characters.safetensors"
WEIGHTS_SHA256 = "d38d933dd38995499bdc5c8825552ed5d22365900857e166687830ab4406ded4"
SHARE = 0.9  # of a text is for training and calibration


def text(name: str) -> str:
    """One of the three texts: "shakespeare", "devil" or "python".

    Karpathy's Tiny Shakespeare, 40,000 lines of the plays; Ambrose Bierce, The Devil's Dictionary,
    1911; the topics of Python's own help.

    >>> text("shakespeare")[:14], len(text("shakespeare"))
    ('First Citizen:', 1115394)
    """
    if name not in TEXTS:
        raise ValueError(f"name must be one of {list(TEXTS)}, got {name!r}")
    file, packed, plain = TEXTS[name]
    content = verified(name, lzma.decompress(shipped(f"text/{file}", packed)), plain)
    return content.decode("utf-8")


def halves(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The first nine tenths of a text's tokens, to learn from, and the rest, to be judged on.

    >>> halves(torch.arange(10))[1]
    tensor([9])
    """
    at = int(SHARE * len(_row(tokens)))
    return tokens[:at], tokens[at:]


def windows(
    tokens: Tensor, length: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """So many pieces of a text, (count, length), each from a place drawn at random.

    >>> windows(torch.arange(100), 3, 2).diff().tolist()
    [[1, 1], [1, 1]]
    """
    most = len(_row(tokens)) - checks.whole("length", length, 1, len(tokens))
    dice = checks.dice(generator)
    at = torch.randint(
        0, most + 1, (checks.whole("count", count, 1), 1), generator=dice, device=dice.device
    )
    return tokens[at.to(tokens.device) + torch.arange(length, device=tokens.device)]


def pieces(tokens: Tensor, length: int, count: int) -> Tensor:
    """So many pieces of a text, (count, length), spread evenly over it.

    >>> pieces(torch.arange(10), 2, 3)
    tensor([[0, 1],
            [4, 5],
            [8, 9]])
    """
    most = len(_row(tokens)) - checks.whole("length", length, 1, len(tokens))
    starts = [round(i * most / max(count - 1, 1)) for i in range(checks.whole("count", count, 1))]
    return torch.stack([tokens[at : at + length] for at in starts])


def shakespeare() -> Language:
    """A transformer of 0.8 million weights that has read Tiny Shakespeare, a character a token.

    In torch's default float type.
    """
    letters = Characters(text("shakespeare"))
    net = loaded(matrices.read(WEIGHTS, shipped(WEIGHTS, WEIGHTS_SHA256)))
    return Language(net, letters.encode, letters.decode)


def loaded(weights: Mapping[str, Tensor]) -> transformers.Transformer:
    """The small transformer with these weights, in torch's default float type."""
    kind = torch.get_default_dtype()
    net = transformers.transformer().to(kind)
    try:
        net.load_state_dict({name: w.to(kind) for name, w in weights.items()})
    except RuntimeError as error:
        raise DataError(f"the weights are of another network: {error}") from error
    return net.eval().requires_grad_(False)


@torch.no_grad()
def perplexity(model: nn.Module, tokens: Tensor, *, chunk: int = 8) -> float:
    """exp of the mean cross-entropy of each next token: among how many the model is as if in doubt.

    Tokens are (n, T); each row is judged from its second token on. A model that takes all V tokens for
    equally likely has V.

    >>> always = nn.Embedding.from_pretrained(torch.zeros(5, 5))
    >>> round(perplexity(always, torch.tensor([[0, 1, 2, 3]])), 4)
    5.0
    """
    at, total = next(checks.model(model).parameters(), tokens).device, 0.0
    with eval_mode(model):
        for some in torch.split(_rows(tokens, 2), checks.whole("chunk", chunk, 1)):
            logits = _logits(model(some.to(at)), some)[:, :-1].flatten(0, 1)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            following = some[:, 1:].flatten().to(at)
            total += float(cross_entropy(wide, following, reduction="sum"))
    return exp(total / tokens[:, 1:].numel())


@torch.no_grad()
def says(language: Language, prompt: str, count: int = 40, context: int = 128) -> str:
    """What a model goes on with: ``count`` tokens, each time the likeliest, from the last ``context``."""
    at = next(checks.model(language.model).parameters()).device
    tokens = language.encode(prompt).tolist()
    if not tokens:
        raise ValueError("prompt must not be empty")
    for _ in range(checks.whole("count", count)):
        recent = torch.tensor([tokens[-checks.whole("context", context, 1) :]], device="cpu")
        tokens.append(int(language.model(recent.to(at))[0, -1].argmax()))
    return language.decode(tokens)


def _rows(tokens: Tensor, least: int = 1) -> Tensor:
    if tokens.ndim < 2 or not len(tokens) or tokens.shape[1] < least:
        raise ValueError(
            f"tokens must be (n, T) with n ≥ 1 and T ≥ {least}, got {tuple(tokens.shape)}"
        )
    return tokens


def _logits(output: object, tokens: Tensor) -> Tensor:
    """(n, T, V); also of a model that gives them with a name."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.shape[:-1] != tokens.shape:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model must give logits (n, T, V) of tokens {tuple(tokens.shape)}, got {what}"
        )
    return logits


def _row(tokens: Tensor) -> Tensor:
    if tokens.ndim != 1 or tokens.is_floating_point() or not len(tokens):
        raise ValueError(
            f"tokens must be whole numbers (n,), got {tuple(tokens.shape)} of {tokens.dtype}"
        )
    return tokens


door.hold(globals())
