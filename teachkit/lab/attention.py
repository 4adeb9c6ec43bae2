"""Attention: each place looks back at those before it, several heads side by side, and RoPE says where it is.

With fewer keys and values than heads, several heads share one: grouped queries.

Sources: Vaswani et al., NIPS 2017; Su et al. 2021 (RoPE); Ainslie et al., EMNLP 2023 (grouped queries).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from teachkit.core import checks, door


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A Linear layer without bias."""
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x: Tensor, base: float) -> Tensor:
    """RoPE: turn each pair (x₂ᵢ, x₂ᵢ₊₁) at place t by the angle t · base^(−2i/d); x is (..., T, d).

    A product of two turned vectors depends on how far apart their places are, and not on where.
    Source: Su et al. 2021, equation 15.

    >>> rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 10_000.0).round(decimals=4)
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    T, d = x.shape[-2:]
    if d % 2 or not base > 0:
        raise ValueError(f"needs an even last dimension and base > 0, got {d} and {base!r}")
    kind = torch.promote_types(x.dtype, torch.float32)
    steps = torch.arange(0, d, 2, device=x.device, dtype=kind) / d
    angle = torch.arange(T, device=x.device, dtype=kind)[:, None] * float(base) ** -steps
    c, s, (u, v) = angle.cos().to(x), angle.sin().to(x), (x[..., 0::2], x[..., 1::2])
    return torch.stack([u * c - v * s, u * s + v * c], -1).flatten(-2)


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v in each head, looking back only; several heads may share a key and a value."""

    def __init__(
        self, width: int, heads: int, kv: int, base: float | None, size: int | None = None
    ) -> None:
        super().__init__()
        self.size = width // heads if size is None else size
        self.heads, self.kv, self.base = heads, kv, base
        self.q, self.k = linear(width, heads * self.size), linear(width, kv * self.size)
        self.v, self.o = linear(width, kv * self.size), linear(heads * self.size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, width) → the same shape."""
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        if self.base is not None:
            q, k = rotate(q, self.base), rotate(k, self.base)
        shared = self.heads // self.kv
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        made: Tensor = self.o(seen.transpose(1, 2).flatten(2))
        return made

    def _split(self, y: Tensor) -> Tensor:
        """(n, T, heads · size) → (n, heads, T, size)."""
        n, T, width = y.shape
        return y.view(n, T, width // self.size, self.size).transpose(1, 2)

    @torch.no_grad()
    def only(self, keep: Tensor) -> "Attention":
        """A smaller one, with those of the keys and values (kv,) and the heads that share them."""
        checks.masks({"keep": keep}, {"keep": torch.empty(self.kv, device="meta")})
        left, shared = int(keep.sum()), self.heads // self.kv
        if not left:
            raise ValueError("keep must leave one head or more")
        small = Attention(self.q.in_features, left * shared, left, self.base, self.size)
        small = small.to(self.q.weight).train(self.training)
        rows = keep.repeat_interleave(self.size)
        wide = keep.repeat_interleave(self.size * shared)
        small.q.weight.copy_(self.q.weight[wide])
        small.k.weight.copy_(self.k.weight[rows])
        small.v.weight.copy_(self.v.weight[rows])
        small.o.weight.copy_(self.o.weight[:, wide])
        return small


door.hold(globals())
