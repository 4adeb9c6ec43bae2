"""The paradox: cost of leave-one-out and of moments over samples, and how sweeps scale."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import PASS, one_pass
from teachkit import lab, masks, obd, paradox
from teachkit.core.types import Batch
from teachkit.experiments import schedules
from teachkit.lab import sweep, timing
from teachkit.lab.evaluation import evaluate

NETS = {"A, 64-64-32-10": (64, 32), "C, 64-256-128-10": (256, 128)}


def cases(quick: bool) -> list[Case]:
    """In units of one forward and backward pass over the digits' training data."""
    train = lab.data.digits().train
    batch = tuple(part[:20] if quick else part for part in train)
    return [
        case(title, lab.models.mlp(hidden=(8,) if quick else hidden), (batch[0], batch[1]))
        for title, hidden in NETS.items()
    ]


def case(title: str, net: nn.Module, batch: Batch) -> Case:
    """Moments; on net A exact leave-one-out too, and by a loop of which ten weights are timed."""
    n = sum(w.numel() for w in masks.prunable(net).values())
    ways = {
        PASS: Competitor(partial(one_pass, net, batch)),
        "moments of g, h and c (obd.per_sample)": Competitor(
            lambda: obd.per_sample(net, batch).change.sd
        ),
    }
    if title.startswith("A"):  # minutes for the wide network
        ways["leave-one-out (paradox.leave_one_out)"] = Competitor(
            partial(paradox.leave_one_out, net, batch)
        )
        ways["leave-one-out, a loop"] = Competitor(
            partial(loop, net, batch, 10), factor=n / 10, note=f"10 of {n:,} weights, scaled up"
        )
    return Case(f"{title}, N = {len(batch[0])}", PASS, ways)


def loop(net: nn.Module, batch: Batch, count: int) -> None:
    """Zero one weight of the first layer in a copy, measure, and do the same with the next."""
    name, w = next(iter(masks.prunable(net).items()))
    for i in range(count):
        mask = torch.ones(w.numel(), dtype=torch.bool).index_fill(0, torch.tensor([i]), False)
        evaluate(masks.apply(net, {name: mask.reshape(w.shape)}), batch)


def tables(quick: bool) -> list[Table]:
    """Wall time of one sweep: here, in processes, and on a Dask cluster of this machine."""
    seeds = list(range(2 if quick else 8))
    grid: dict[str, list[Any]] = {"seed": seeds, "shape": ["cubic"], "sparsity": [0.9]}
    epochs = 10 if quick else 100
    rows = []
    for name, workers in (("this process", 1), ("processes", 2), ("Dask", 1), ("Dask", 2)):
        with cluster(workers) if name == "Dask" else nullcontext():
            run = partial(sweep.run, schedules.gradual, workers=workers, progress=False)
            run(grid | {"budget": [1]})  # workers start, import and train the dense networks
            work = partial(run, grid | {"budget": [epochs]})
            waited = timing.seconds(work, now=time.perf_counter)  # others do the work
            rows.append([name, str(workers), f"{waited:.1f}"])
    text = f"{len(seeds)} cells, each {epochs} epochs of gradual pruning; workers were warm."
    return [Table("A sweep of networks", ["where", "workers", "seconds"], rows, text)]


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """A Dask cluster of processes on loopback, named to the sweep as a learner would."""
    from distributed import LocalCluster  # only where a cluster is used

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **options) as found:  # type: ignore[no-untyped-call]
        os.environ[sweep.DASK] = found.scheduler_address
        try:
            yield
        finally:
            del os.environ[sweep.DASK]
