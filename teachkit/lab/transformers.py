"""Transformers in the least code: one block, and what is new in a Llama beside it, a few lines each.

A transformer reads whole numbers, tokens (n, T), and says at each place how likely each token is next:
logits (n, T, vocabulary). It is a chain of blocks of one shape, h → h + attention(norm(h)) and then
h → h + mlp(norm(h)). So a block can be pruned when those before it are done, on the inputs that they
give it.

Sources: Vaswani et al., NIPS 2017; Radford et al. 2019 (GPT-2); Zhang & Sennrich, NeurIPS 2019 (RMSNorm);
Shazeer 2020 (SwiGLU); Touvron et al. 2023 (Llama). Attention is in :mod:`teachkit.lab.attention`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from teachkit.core import checks, door
from teachkit.lab.attention import Attention, linear

Norm = Callable[[int], nn.Module]


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · g: as a layer norm, without the mean."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width, device=_device())), eps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; the mean is taken over the last dimension, in float32 at least."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        size = wide.square().mean(-1, keepdim=True) + self.eps
        made: Tensor = (wide * size.rsqrt()).to(x.dtype) * self.weight
        return made


class Mlp(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = linear(width, inner), linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, width) → the same shape."""
        made: Tensor = self.down(gelu(self.up(x)))
        return made


class SwiGLU(nn.Module):
    """down(silu(gate(x)) ⊙ up(x)): what goes up passes a gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = linear(width, inner), linear(width, inner)
        self.down = linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, width) → the same shape."""
        made: Tensor = self.down(silu(self.gate(x)) * self.up(x))
        return made


class Block(nn.Module):
    """h + attention(norm(h)), and of that the same with an MLP."""

    def __init__(self, attention: Attention, mlp: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.norm_attention, self.attention = norm(attention.q.in_features), attention
        self.norm_mlp, self.mlp = norm(attention.q.in_features), mlp

    @property
    def shared(self) -> int:
        """How many columns of ``o`` read from one key and value."""
        return self.attention.heads // self.attention.kv * self.attention.size

    def forward(self, h: Tensor) -> Tensor:
        """(n, T, width) → the same shape."""
        h = h + self.attention(self.norm_attention(h))
        more: Tensor = self.mlp(self.norm_mlp(h))
        return h + more


class Transformer(nn.Module):
    """Tokens (n, T) → logits (n, T, vocabulary). Without ``context`` the places are known by RoPE alone."""

    def __init__(
        self, vocabulary: int, width: int, blocks: list[Block], norm: Norm, context: int | None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.places = None
        if context is not None:
            self.places = nn.Parameter(torch.zeros(context, width, device=_device()))
        self.blocks, self.norm = nn.ModuleList(blocks), norm(width)
        self.head = linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """What follows each token, by its logits."""
        h = self.embedding(tokens)
        if self.places is not None:
            if tokens.shape[1] > len(self.places):
                raise ValueError(
                    f"at most {len(self.places)} tokens fit in, got {tokens.shape[1]} in a row"
                )
            h = h + self.places[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(self.norm(h))
        return logits


def blocks_by_name(model: nn.Module) -> dict[str, Block]:
    """The blocks of a transformer of the course; another model is refused."""
    if not isinstance(model, Transformer):
        raise TypeError(
            f"model must be a transformer of lab.transformers, got {type(model).__name__}"
        )
    found = {f"blocks.{i}": block for i, block in enumerate(model.blocks)}
    return {name: block for name, block in found.items() if isinstance(block, Block)}


def _device() -> torch.device:
    """Where torch's own layers are made, too."""
    return torch.get_default_device()


def transformer(
    vocabulary: int = 65,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    context: int = 128,
    seed: int = 0,
) -> Transformer:
    """A small GPT: layer norms, learned places, an MLP four times as wide with GELU.

    >>> sum(p.numel() for p in transformer().blocks.parameters() if p.ndim == 2)
    786432
    """
    _sizes(width=width, depth=depth, heads=heads, context=context, vocabulary=vocabulary)
    checks.whole("seed", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        attentions = [Attention(width, heads, heads, None) for _ in range(depth)]
        blocks = [Block(each, Mlp(width, 4 * width), nn.LayerNorm) for each in attentions]
        net = Transformer(vocabulary, width, blocks, nn.LayerNorm, context)
        for name, p in net.named_parameters():
            if p.ndim == 2 and name != "places":
                last = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / ((2 * depth) ** 0.5 if last else 1))
    return net


def llama(
    vocabulary: int,
    *,
    width: int,
    depth: int,
    heads: int,
    kv: int,
    inner: int,
    eps: float = 1e-5,
    base: float = 10_000.0,
) -> Transformer:
    """A Llama: RMS norms, rotated places, grouped queries, SwiGLU; the head is the embedding.

    >>> net = llama(9, width=8, depth=2, heads=4, kv=2, inner=12)
    >>> net(torch.tensor([[1, 2, 3]])).shape, net.head.weight is net.embedding.weight
    (torch.Size([1, 3, 9]), True)
    """
    _sizes(width=width, depth=depth, heads=heads, inner=inner, vocabulary=vocabulary)
    if heads % checks.whole("kv", kv, 1):
        raise ValueError(f"heads must be a multiple of kv, got {heads} and {kv}")

    def norm(size: int) -> nn.Module:
        return RMSNorm(size, checks.number("eps", eps))

    attentions = [Attention(width, heads, kv, base) for _ in range(depth)]
    blocks = [Block(each, SwiGLU(width, inner), norm) for each in attentions]
    net = Transformer(vocabulary, width, blocks, norm, None)
    net.head.weight = net.embedding.weight
    return net


def _sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        checks.whole(name, size, 1)
    if sizes["width"] % sizes["heads"]:
        raise ValueError(
            f"width must be a multiple of heads, got {sizes['width']} and {sizes['heads']}"
        )


door.hold(globals())
