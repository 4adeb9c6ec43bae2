"""Refuse bad input early, by name: each error quotes what was given and what is allowed."""

import math
import sys
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor as _wrapped

from teachkit.core.types import Batch

CHANCE = 2015  # no network of the course is made with this seed


def _real(name: str, value: Any, kind: Any, low: float, high: float, *says: str) -> Any:
    """A number in [low, high]; ``says`` are the words for a wrong type and for a wrong size."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must {says[0]}, got {value!r}")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} must {says[-1]}, got {value!r}")
    return value


def fraction(name: str, value: object) -> float:
    """Return a number in [0, 1] as a float.

    >>> fraction("sparsity", 1.5)
    Traceback (most recent call last):
    ValueError: sparsity must lie in [0, 1], got 1.5
    """
    return float(_real(name, value, Real, 0, 1, "be a number in [0, 1]", "lie in [0, 1]"))


def number(name: str, value: object, low: float = 0.0) -> float:
    """Return a finite number of ``low`` or more as a float.

    >>> number("quality", -1)
    Traceback (most recent call last):
    ValueError: quality must be a finite number of 0 or more, got -1
    """
    largest = sys.float_info.max
    return float(_real(name, value, Real, low, largest, f"be a finite number of {low:g} or more"))


def positive(name: str, value: object) -> float:
    """Return a finite number above 0 as a float.

    >>> positive("temperature", 0)
    Traceback (most recent call last):
    ValueError: temperature must be a finite number above 0, got 0
    """
    if number(name, value) == 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number(name, value)


def numbers(name: str, given: Mapping[str, float], allowed: Iterable[str]) -> dict[str, float]:
    """Return numbers of 0 or more by names that are allowed.

    >>> numbers("factors", {"fc": 1.0}, ["0.weight"])
    Traceback (most recent call last):
    ValueError: factors has the key 'fc'; allowed are ['0.weight']
    """
    names = list(allowed)
    for key in given:
        if key not in names:
            raise ValueError(f"{name} has the key {key!r}; allowed are {names}")
    return {key: number(f"{name}[{key!r}]", value) for key, value in given.items()}


def whole(name: str, value: object, low: int = 0, high: float = math.inf) -> int:
    """Return a whole number in [low, high] as an int.

    >>> whole("k", 7, high=5)
    Traceback (most recent call last):
    ValueError: k must be a whole number from 0 to 5, got 7
    """
    allowed = f"be a whole number from {low}" + ("" if math.isinf(high) else f" to {high}")
    return int(_real(name, value, Integral, low, high, allowed))


def finite(name: str, tensor: object) -> Tensor:
    """Return a real tensor without NaN or infinity; on the meta device there are no values to look at."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.is_complex():
        raise TypeError(f"{name} must be real, got {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {tensor.layout}; use to_dense()")
    if tensor.is_quantized or (tensor.is_floating_point() and tensor.element_size() < 2):
        raise TypeError(f"{name} must be of 16 bits or more, got {tensor.dtype}; convert it")
    if tensor.is_meta or _wrapped(tensor):  # under vmap, too
        return tensor
    # A NaN or infinity survives every sum, so a finite sum, which is quick, proves all finite.
    if not math.isfinite(float(tensor.detach().sum())) and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} has {bad} NaN or infinite values of {tensor.numel()}")
    return tensor


def same_shape(**tensors: Tensor) -> None:
    """Refuse tensors of different shapes, which torch would spread over each other; a number may stand."""
    if len({t.shape for t in tensors.values() if t.ndim}) > 1:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"all must have one shape, got {shapes}")


def dice(generator: torch.Generator | None) -> torch.Generator:
    """The generator that a result is drawn with; without one a fresh one of seed 2015.

    So no result depends on what was drawn before it, and no network of the course has this seed.
    """
    return torch.Generator().manual_seed(CHANCE) if generator is None else generator


def has_nan(tensor: Tensor) -> bool:
    """Whether a tensor that holds values has a NaN among them; a sum, which is quick, mostly tells."""
    if tensor.is_meta or tensor.layout != torch.strided or _wrapped(tensor):
        return False
    return math.isnan(float(tensor.detach().sum())) and bool(tensor.isnan().any())


def usable(tensor: Tensor) -> Tensor:
    """The tensor, as a copy where it was made in inference mode, whose tensors autograd cannot use."""
    return tensor.clone() if tensor.is_inference() else tensor


def batch(given: object, name: str = "the batch") -> Batch:
    """Return ``(x, y)``: two non-empty tensors of one length, finite; a DataLoader gives them as a list."""
    if isinstance(given, list) and all(isinstance(part, Tensor) for part in given):
        given = tuple(given)
    if not (isinstance(given, tuple) and len(given) == 2):
        raise TypeError(f"{name} must be a tuple (x, y), got {type(given).__name__}")
    x, y = (usable(finite(f"{name}'s {part}", t)) for part, t in zip("xy", given, strict=True))
    if x.ndim == 0 or y.ndim == 0 or len(x) == 0 or len(x) != len(y):
        shapes = f"x {tuple(x.shape)} and y {tuple(y.shape)}"
        raise ValueError(f"{name} needs x and y of one length, at least 1, got {shapes}")
    labels = not y.is_floating_point() and y.dtype != torch.int64
    return x, y.long() if labels else y  # a byte would be read as a mask where it is an index


def model(given: object, x: Tensor | None = None, *, name: str = "model") -> nn.Module:
    """Return a module whose parameters are finite and, if x is given, of x's dtype."""
    if not isinstance(given, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(given).__name__}")
    for key, parameter in given.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"{name}'s parameter {key!r} has no shape yet; run the model once on data, it is lazy"
            )
        finite(f"parameter {key!r}", parameter)
        if x is not None and x.is_floating_point() and parameter.dtype != x.dtype:
            raise TypeError(
                f"the data is {x.dtype} but parameter {key!r} is {parameter.dtype}; convert one, "
                f"e.g. model.to({x.dtype})"
            )
    return given


def entries(name: str, given: object, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a dict of finite tensors whose keys and shapes are among the reference's."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a dict of tensors, got {type(given).__name__}")
    for key, tensor in given.items():
        if key not in reference:
            raise ValueError(f"{name} has the key {key!r}; allowed are {sorted(reference)}")
        if finite(f"{name}[{key!r}]", tensor).shape != reference[key].shape:
            want = tuple(reference[key].shape)
            raise ValueError(f"{name}[{key!r}] has shape {tuple(tensor.shape)}, not {want}")
        if tensor.is_meta and not reference[key].is_meta:
            raise ValueError(f"{name}[{key!r}] is on the meta device, which holds no values")
    return dict(given)


def masks(given: object, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks: boolean entries of the reference's keys and shapes."""
    found = entries("masks", given, reference)
    for key, mask in found.items():
        if mask.dtype != torch.bool:
            raise TypeError(f"masks[{key!r}] must be boolean (True keeps), got {mask.dtype}")
    return found
