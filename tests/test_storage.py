"""The forms of storage: what is written can be read back, and is what is counted."""

import gzip
import math

import numpy as np
import pytest
import torch
from coupled_networks import Residual, dice, randomised
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import masks, structured
from teachkit.lab import storage


def unpacked(content, like, form):
    """The weight that was packed, with the shape and dtype of ``like``."""
    dtype = storage._numbers(like[:0]).dtype
    flat = np.zeros((len(like), math.prod(like.shape[1:])), dtype)
    if form == "dense":
        flat[:] = np.frombuffer(content, dtype).reshape(flat.shape)
    elif form == "bitmask":
        bits = np.frombuffer(content, np.uint8, math.ceil(like.numel() / 8))
        alive = np.unpackbits(bits, count=like.numel()).astype(bool).reshape(flat.shape)
        flat[alive] = np.frombuffer(content, dtype, offset=len(bits))
    else:
        starts = np.frombuffer(content, np.int32, len(like) + 1)
        columns = np.frombuffer(content, np.int32, int(starts[-1]), offset=starts.nbytes)
        rows = np.repeat(np.arange(len(like)), np.diff(starts))
        flat[rows, columns] = np.frombuffer(content, dtype, offset=starts.nbytes + columns.nbytes)
    return torch.from_numpy(flat).view(like.dtype).reshape(like.shape)


SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(
    SHAPES | st.just([0, 3]) | st.just([2, 0]),
    st.integers(0, 99),
    st.floats(0, 1),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_every_form_gives_the_weights_back_in_the_bytes_it_counts(shape, seed, share, dtype):
    g = dice(seed)
    weight = torch.randn(shape, generator=g, dtype=dtype) * (
        torch.rand(shape, generator=g) >= share
    )
    for form in ("dense", "csr", "bitmask"):
        content = storage.packed(weight, form)
        assert torch.equal(unpacked(content, weight, form), weight)
    values, columns, starts = structured.csr_parts(weight.reshape(shape[0], math.prod(shape[1:])))
    item = weight.element_size()
    assert len(storage.packed(weight, "csr")) == item * len(values) + 4 * (
        len(columns) + len(starts)
    )
    assert len(storage.packed(weight, "bitmask")) == item * len(values) + math.ceil(
        weight.numel() / 8
    )
    assert len(storage.packed(weight, "dense")) == item * weight.numel()


def test_stored_counts_biases_and_buffers_once_and_refuses_other_forms():
    model = randomised(Residual()).float()
    rest = sum(p.numel() * 4 for n, p in model.named_parameters() if n not in masks.prunable(model))
    rest += sum(b.numel() * b.element_size() for b in model.buffers())
    for form in ("dense", "csr", "bitmask"):
        weights = masks.prunable(model).values()
        want = rest + sum(len(storage.packed(w, form)) for w in weights)
        assert storage.stored(model, form) == want
    raw = b"".join(storage.packed(w, "dense") for w in masks.prunable(model).values())
    assert storage.stored(model, "gzip") == rest + len(gzip.compress(raw, 9, mtime=0))
    assert storage.stored(model) == structured.count(model).bytes
    with pytest.raises(ValueError, match="form must be one of .* got 'zip'"):
        storage.stored(nn.ReLU(), "zip")
    assert storage.stored(nn.ReLU(), "gzip") == 0
