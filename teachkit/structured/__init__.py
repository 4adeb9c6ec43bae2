"""Structured pruning: whole groups of weights, layers that really shrink, and what that saves."""

from teachkit.structured.groups import (
    GRANULARITIES,
    group_ids,
    group_masks,
    group_scores,
    keep_groups,
)
from teachkit.structured.shrinking import coupled, shrink, silence
from teachkit.structured.size import FORMS, packed, stored, unpacked
from teachkit.structured.speed import (
    BreakEven,
    break_even,
    bsr,
    crossing,
    csr,
    latencies,
    sparse_product,
    times,
)
from teachkit.structured.units import Count, count, predict, unit_scores

__all__ = [
    "FORMS",
    "GRANULARITIES",
    "BreakEven",
    "Count",
    "break_even",
    "bsr",
    "count",
    "coupled",
    "crossing",
    "csr",
    "group_ids",
    "group_masks",
    "group_scores",
    "keep_groups",
    "latencies",
    "packed",
    "predict",
    "shrink",
    "silence",
    "sparse_product",
    "stored",
    "times",
    "unit_scores",
    "unpacked",
]
