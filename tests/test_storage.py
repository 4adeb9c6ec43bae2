"""The forms of storage: what is written can be read back, and is what is counted."""

import gzip
import math

import pytest
import torch
from coupled_networks import Residual, dice, randomised
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import masks, structured
from teachkit.lab import storage

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
    for form in storage.FORMS:
        content = storage.packed(weight, form)
        assert torch.equal(storage.unpacked(content, weight, form), weight)
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
    for call in (storage.packed, lambda w, f: storage.unpacked(b"", w, f)):
        with pytest.raises(ValueError, match="form must be one of .* got 'zip'"):
            call(torch.ones(2, 2), "zip")
    with pytest.raises(ValueError, match="form must be one of .* got 'zip'"):
        storage.stored(nn.ReLU(), "zip")
    assert storage.stored(nn.ReLU(), "gzip") == 0
