"""The saved tables are what their commands make: a part of each is run again."""

import datetime
import itertools
import os
import random
import re

import pytest

from teachkit import experiments, lab, magnitude, masks, structured
from teachkit.experiments import (
    compression,
    compression_nets,
    densities,
    distillation,
    granularities,
    han,
    neurons,
    paradox,
    paradox_sum,
    paradox_why,
    pipeline,
    scale,
    schedules,
    smollm2,
    sparse_limits,
    sparse_mnist,
    sparse_stability,
    sparse_training,
)

HERE = (
    *(densities, granularities, neurons, paradox, paradox_sum, paradox_why, schedules),
    *(sparse_limits, sparse_stability, sparse_training, compression, distillation, pipeline, scale),
    compression_nets,
)
GRIDS = {name: table for module in HERE for name, table in module.TABLES.items()}
# On MNIST: too long, and not every machine has it.
SAVED = {
    "schedules_mnist": schedules.MNIST,
    "paradox_mnist": paradox.MNIST,
    **{name: grid for name, (_, grid) in paradox_why.ON_MNIST.items()},
    **{f"han_{net}": han.grid(net) for net in han.SETTINGS},
    **{name: grid for name, (_, grid) in sparse_training.ON_MNIST_TABLES.items()},
    **{name: grid for name, (_, grid) in sparse_limits.ON_MNIST_TABLES.items()},
    **{name: grid for name, (_, grid) in sparse_limits.LONG.items()},
    **{name: grid for name, (_, grid) in sparse_mnist.ON_MNIST_TABLES.items()},
    **{name: grid for name, (_, grid) in compression.ON_MNIST_TABLES.items()},
    **{name: grid for name, (_, grid) in compression.MEASURED.items()},  # seconds of one machine
    **{name: grid for name, (_, grid) in smollm2.TABLES.items()},
    **{name: grid for name, (_, grid) in GRIDS.items()},
}


# The rows that are run again are others each day; the environment repeats those of another day.
DAY = os.environ.get("TEACHKIT_ROWS", datetime.date.today().isoformat())
SEED = random.Random(DAY).choice([0, 1, 2, 3, 4])
AGAIN = f"rows of {DAY}: run it again with TEACHKIT_ROWS={DAY}"


def drawn(name, key):
    """One of the values that a key takes in a grid, by the day."""
    return random.Random(f"{DAY} {name} {key}").choice(GRIDS[name][1][key])


# Which rows are run again: of one seed, so that they share their networks, quick, and together
# through every branch of the cells: each shape, start, rule, method and way. What a row does not
# fix runs through all its values.
PARTS = {
    "schedules": [{"seed": SEED, "budget": 10, "sparsity": drawn("schedules", "sparsity")}],
    "retraining": [
        {"seed": SEED, "start": start, "sparsity": drawn("retraining", "sparsity")}
        for start in ("trained, rate / 10", "new weights")
    ],
    "densities": [{"seed": SEED, "rule": "erk", "sparsity": drawn("densities", "sparsity")}],
    "granularities": [{"seed": SEED, "granularity": "filter"}],
    "paradox": [{"seed": SEED, "net": "B"}],
    "paradox_samples": [{"seed": SEED, "net": "A"}],
    "paradox_widths": [{"seed": SEED, "width": width} for width in (16, 64)],
    "paradox_steps": [{"seed": SEED, "steps": steps} for steps in (1, 10)],
    "paradox_repairs": [{"seed": SEED, "net": drawn("paradox_repairs", "net")}],
    "paradox_parts": [{"seed": SEED, "net": "width 16"}],
    "paradox_growth": [{"seed": SEED, "net": "B"}],
    "paradox_tests": [{"seed": SEED, "net": "B"}],
    "paradox_known": [{"seed": SEED, "net": "B"}],
    "paradox_law": [{"seed": SEED, "net": net} for net in ("A, standardised", "GELU", "1D")],
    "paradox_sum": [
        {"seed": SEED, "net": "width 32", "way": way} for way in paradox_sum.SUMS["way"]
    ],
    "paradox_together": [{"seed": SEED, "at_once": 65}],
    "paradox_rounds": [{"seed": SEED, "criterion": name} for name in ("T2", "magnitude")],
    "neurons": [
        {"seed": SEED, "net": "A", "share": 0.5},
        *({"seed": SEED, "net": net, "share": 0.75, "method": "magnitude"} for net in "CD"),
    ],
    "neurons_greedy": [{"seed": SEED, "net": "A", "share": 0.5}],
    "neurons_equal": [{"seed": SEED, "net": "A", "share": 0.875}],
    "sparse_frontier": [{"seed": SEED, "level": drawn("sparse_frontier", "level")}],
    "sparse_faster": [{"seed": SEED, "level": drawn("sparse_faster", "level")}],
    "sparse_units": [{"seed": SEED, "level": drawn("sparse_units", "level")}],
    "sparse_estimators": [{}],
    "sparse_gradients": [{"seed": SEED, "depth": 2}],
    "sparse_depth": [{"seed": SEED, "depth": 2}],
    "sparse_matched": [{"seed": SEED, "level": drawn("sparse_matched", "level"), "method": "L0"}],
    "sparse_powers": [{"seed": SEED, "depth": 2, "width": 64}],
    "sparse_trained_power": [{"seed": SEED, "width": 16}],
    "sparse_widths": [{"seed": SEED, "width": 16, "kind": drawn("sparse_widths", "kind")}],
    "sparse_starts": [{"seed": SEED, "initial": 0.9, "strength": 0.1}],
    "sparse_causes": [
        {"seed": SEED, "way": way} for way in ("1 draw", "each sample", "halved, no noise")
    ],
    "compression_rounding": [{"seed": SEED, "net": "A", "per": "channel"}],
    "compression_rounding_conv": [
        {"seed": SEED, "bits": drawn("compression_rounding_conv", "bits")}
    ],
    "compression_rounding_text": [{"seed": 0, "bits": drawn("compression_rounding_text", "bits")}],
    "compression_formats": [{"seed": SEED, "sparsity": drawn("compression_formats", "sparsity")}],
    "distillation": [
        {"seed": SEED, "share": drawn("distillation", "share"), "way": way}
        for way in ("teacher, T = 2", "units, labels", "weights, teacher")
    ],
    "distillation_few": [
        {"seed": SEED, "samples": 100, "way": drawn("distillation_few", "way")},
        {"seed": SEED, "samples": drawn("distillation_few", "samples"), "way": "labels"},
    ],
    "distillation_1d": [{"seed": SEED, "way": "teacher, T = 4"}],
    "distillation_longer": [{"seed": SEED, "epochs": 30, "way": "labels"}],
    "distillation_ranking": [
        {"seed": SEED, "criterion": name} for name in ("random", "OBS in one pass")
    ],
    "compression_orders": [
        {"seed": SEED, "level": drawn("compression_orders", "level"), "order": order}
        for order in ("PDQ", "QPD")
    ],
    "compression_smallest": [
        {"seed": SEED, "taught": taught, "sparsity": 0.9, "bits": 3}
        for taught in (drawn("compression_smallest", "taught"),)
    ],
    # Of seed 0, whose weights come with the course; others would be trained first.
    "scale_inputs": [{"seed": 0, "layer": drawn("scale_inputs", "layer")}],
    "scale_outliers": [
        {"seed": 0, "size": drawn("scale_outliers", "size"), "way": way}
        for way in ("magnitude", drawn("scale_outliers", "way"))
    ],
    "scale_spreads": [{"seed": 0, "spread": drawn("scale_spreads", "spread"), "way": "magnitude"}],
    "scale_damped": [{"seed": 0, "damping": drawn("scale_damped", "damping")}],
    "scale_units": [{"seed": 0, "part": part, "left": 0.5} for part in ("mlp", "attention")],
    "scale_calibrated": [
        {"seed": 0, "windows": 1, "on": on} for on in ("devil", "letters by chance")
    ],
    "scale_methods": [
        {"seed": 0, "sparsity": sparsity, "way": way}
        for sparsity in (0.5, "2:4")
        for way in ("magnitude", "SparseGPT")
    ],
    "sparse_repairs": [{"seed": SEED, "repair": drawn("sparse_repairs", "repair")}],
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_part_of_the_grid_gives_the_saved_rows(name):
    cell, grid = GRIDS[name]
    rows = experiments.table(name)
    for part in PARTS[name]:
        chosen = [row for row in rows if part.items() <= row.items()]
        assert chosen, part
        for row in chosen:
            lab.setup()
            again = cell(**{key: row[key] for key in grid})
            assert set(again) == set(row) - set(grid)
            assert again == pytest.approx({key: row[key] for key in again}, abs=1e-12), AGAIN


def test_every_rule_keeps_what_the_table_says():
    """What is quick in a cell of densities, for all of one network's cells."""
    rows = {
        (r["rule"], r["sparsity"]): r for r in experiments.table("densities") if r["seed"] == SEED
    }
    for rule, sparsity in itertools.product(densities.GRID["rule"], densities.GRID["sparsity"]):
        kept = magnitude.keep_by_rule(densities.network(SEED), sparsity, rule)
        assert min(int(mask.sum()) for mask in kept.values()) == rows[rule, sparsity]["smallest"], (
            AGAIN
        )


def test_every_granularity_keeps_what_the_table_says():
    """What is quick in a cell of granularities, for all of one network's cells."""
    net, test = granularities.network(SEED), lab.data.digits().test
    scores = {name: magnitude.scores(net)[name] for name in granularities.LAYERS}
    for row in experiments.table("granularities"):
        if row["seed"] == SEED:
            kept = structured.group_masks(scores, 0.5, row["granularity"])
            assert sum(int(mask.sum()) for mask in kept.values()) == row["left"], AGAIN
            pruned = lab.evaluation.evaluate(masks.apply(net, kept), test).accuracy
            assert pruned == pytest.approx(row["pruned"], abs=1e-12), AGAIN


@pytest.mark.parametrize("name", SAVED)
def test_the_table_covers_the_grid_in_order(name):
    grid = SAVED[name]
    rows = experiments.table(name)
    points = list(lab.sweep.points(grid))
    assert [{key: row[key] for key in grid} for row in rows] == points


def test_every_saved_table_has_a_grid():
    assert {path.stem for path in experiments.path("x").parent.iterdir()} == set(SAVED)


def test_every_saved_table_is_what_its_command_left():
    assert experiments.manifest() == {name: experiments.digest(name) for name in SAVED}


def test_a_command_enters_its_table_and_refuses_a_changed_one(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    monkeypatch.setattr(
        experiments, "path", lambda name: tmp_path / "experiments" / f"{name}.jsonl"
    )
    tables = {"squares": (square, {"x": [1, 2, 3]})}
    experiments.write(tables)
    assert experiments.manifest() == {"squares": experiments.digest("squares")}
    line = (tmp_path / "experiments.sha256").read_text("utf-8")
    assert re.fullmatch(r"[0-9a-f]{64}  experiments/squares\.jsonl\n", line)
    experiments.write(tables)  # nothing to do
    file = experiments.path("squares")
    text = file.read_text("utf-8")
    file.write_text(text.replace("4", "4.02"), "utf-8")
    with pytest.raises(ValueError, match=r"squares.jsonl was changed after its command made it"):
        experiments.write(tables)
    file.write_text("".join(text.splitlines(keepends=True)[:2]), "utf-8")
    experiments.write(tables)  # interrupted: it goes on
    assert file.read_text("utf-8") == text


def square(x):
    return {"y": x * x}


def test_an_unknown_experiment_is_quoted():
    with pytest.raises(ValueError, match=r"no experiment 'x'; there are \[.*'schedules'"):
        experiments.table("x")
