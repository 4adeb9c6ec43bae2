"""The saved tables are what their commands make: a small random part of each is run again."""

import random

import pytest

from teachkit import experiments, lab
from teachkit.experiments import densities, granularities, han, neurons, paradox, schedules

GRIDS = {
    "schedules": (schedules.gradual, schedules.SCHEDULES),
    "retraining": (schedules.retraining, schedules.RETRAINING),
    "densities": (densities.cell, densities.GRID),
    "granularities": (granularities.cell, granularities.GRID),
    **paradox.TABLES,
    **neurons.TABLES,
}
# On MNIST: too long, and not every machine has it.
SAVED = {
    "schedules_mnist": schedules.MNIST,
    "paradox_mnist": paradox.MNIST,
    **{f"han_{net}": han.grid(net) for net in han.SETTINGS},
    **{name: grid for name, (_, grid) in GRIDS.items()},
}


# Cells that take longer than a few seconds are left to the command.
QUICK = {
    "paradox": lambda row: row["net"] in "BD",
    "paradox_samples": lambda row: row["net"] == "A",
    "paradox_steps": lambda row: row["steps"] <= 10,
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_part_of_the_grid_gives_the_saved_rows(name):
    lab.setup()
    cell, grid = GRIDS[name]
    rows = experiments.table(name)
    quick = [row for row in rows if QUICK.get(name, bool)(row)]
    for row in random.Random(name).sample(quick, 2):
        again = cell(**{key: row[key] for key in grid})
        assert again == pytest.approx({key: row[key] for key in again}, abs=1e-12)


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
