"""The saved tables are what their commands make: a part of each is run again."""

import itertools

import pytest

from teachkit import experiments, lab, magnitude, masks, structured
from teachkit.experiments import densities, granularities, han, neurons, paradox, schedules

HERE = (densities, granularities, neurons, paradox, schedules)
GRIDS = {name: table for module in HERE for name, table in module.TABLES.items()}
# On MNIST: too long, and not every machine has it.
SAVED = {
    "schedules_mnist": schedules.MNIST,
    "paradox_mnist": paradox.MNIST,
    **{f"han_{net}": han.grid(net) for net in han.SETTINGS},
    **{name: grid for name, (_, grid) in GRIDS.items()},
}


# Which rows are run again: of one seed, so that they share their networks, quick, and together
# through every branch of the cells: each shape, start, rule, method and way. What a row does not
# fix runs through all its values.
PARTS = {
    "schedules": [{"seed": 0, "budget": 10, "sparsity": 0.9}],
    "retraining": [
        {"seed": 0, "start": start, "sparsity": 0.9}
        for start in ("trained, rate / 10", "new weights")
    ],
    "densities": [{"seed": 0, "rule": "erk", "sparsity": 0.95}],
    "granularities": [{"seed": 0, "granularity": "filter"}],
    "paradox": [{"seed": 0, "net": "B"}],
    "paradox_samples": [{"seed": 0, "net": "A"}],
    "paradox_widths": [{"seed": 0, "width": width} for width in (16, 64)],
    "paradox_steps": [{"seed": 0, "steps": steps} for steps in (1, 10)],
    "neurons": [
        {"seed": 0, "net": "A", "share": 0.5},
        *({"seed": 0, "net": net, "share": 0.75, "method": "magnitude"} for net in "CD"),
    ],
    "neurons_greedy": [{"seed": 0, "net": "A", "share": 0.5}],
    "neurons_equal": [{"seed": 0, "net": "A", "share": 0.875}],
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
            assert again == pytest.approx({key: row[key] for key in again}, abs=1e-12)


def test_every_rule_keeps_what_the_table_says():
    """What is quick in a cell of densities, for all of one network's cells."""
    rows = {(r["rule"], r["sparsity"]): r for r in experiments.table("densities") if r["seed"] == 0}
    for rule, sparsity in itertools.product(densities.GRID["rule"], densities.GRID["sparsity"]):
        kept = magnitude.keep_by_rule(densities.network(0), sparsity, rule)
        assert min(int(mask.sum()) for mask in kept.values()) == rows[rule, sparsity]["smallest"]


def test_every_granularity_keeps_what_the_table_says():
    """What is quick in a cell of granularities, for all of one network's cells."""
    net, test = granularities.network(0), lab.data.digits().test
    scores = {name: magnitude.scores(net)[name] for name in granularities.LAYERS}
    for row in experiments.table("granularities"):
        if row["seed"] == 0:
            kept = structured.group_masks(scores, 0.5, row["granularity"])
            assert sum(int(mask.sum()) for mask in kept.values()) == row["left"]
            pruned = lab.evaluation.evaluate(masks.apply(net, kept), test).accuracy
            assert pruned == pytest.approx(row["pruned"], abs=1e-12)


@pytest.mark.parametrize("name", SAVED)
def test_the_table_covers_the_grid_in_order(name):
    grid = SAVED[name]
    rows = experiments.table(name)
    points = list(lab.sweep.points(grid))
    assert [{key: row[key] for key in grid} for row in rows] == points


def test_every_saved_table_has_a_grid():
    assert {path.stem for path in experiments.path("x").parent.iterdir()} == set(SAVED)


def test_an_unknown_experiment_is_quoted():
    with pytest.raises(ValueError, match=r"no experiment 'x'; there are \[.*'schedules'"):
        experiments.table("x")
