"""Sweeps: same table whatever runs them, nothing lost, nothing computed twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweep_cells
import torch

from teachkit import lab
from teachkit.lab import sweep

GRID = {"seed": [3, 1, 2], "power": [1, 2]}


@pytest.fixture(autouse=True)
def session():
    lab.setup()


def test_rows_come_in_the_order_of_the_grid():
    rows = sweep.run(sweep_cells.draw, GRID, progress=False)
    assert [(r["seed"], r["power"]) for r in rows] == [(s, p) for s in (3, 1, 2) for p in (1, 2)]
    assert rows[1]["value"] == pytest.approx(rows[0]["value"] ** 2)


def test_processes_give_the_same_table(tmp_path):
    want = sweep.run(sweep_cells.draw, GRID, progress=False)
    assert sweep.run(sweep_cells.draw, GRID, workers=2, progress=False) == want
    file = tmp_path / "new" / "rows.jsonl"
    assert sweep.run(sweep_cells.draw, GRID, workers=2, file=file, progress=False) == want
    assert len(file.read_text("utf-8").splitlines()) == 6


def test_what_is_in_the_file_is_not_run_again(tmp_path):
    file, grid = tmp_path / "rows.jsonl", {"seed": [1, 2, 3], "folder": [str(tmp_path / "marks")]}
    Path(grid["folder"][0]).mkdir()
    rows = sweep.run(sweep_cells.slow, grid, file=file, progress=False)
    again = sweep.run(sweep_cells.slow, grid | {"seed": [3, 4, 1]}, file=file, progress=False)
    assert [r["square"] for r in again] == [9, 16, 1]
    assert again[0] == rows[2]
    assert len(list((tmp_path / "marks").iterdir())) == 4


@pytest.mark.parametrize("cut", [1, 5, 30, 44])
def test_a_damaged_line_is_computed_anew(tmp_path, cut):
    """The file ends in the middle of a line, as when the power fails."""
    file = tmp_path / "rows.jsonl"
    want = sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want
    assert sorted(r["value"] for r in sweep.load(file, list(GRID)).values()) == sorted(
        r["value"] for r in want
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def marks(folder):
    return [name.name.split("-")[0] for name in folder.iterdir()]


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="a process cannot be killed outright here"
)
def test_a_killed_client_goes_on_with_the_rest(tmp_path):
    folder, file = tmp_path / "marks", tmp_path / "rows.jsonl"
    folder.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sweep_cells; from teachkit.lab import sweep\n"
        "sweep.run(sweep_cells.slow, {'seed': list(range(12)), 'folder': [sys.argv[2]]}, file=sys.argv[3])"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), str(file)]
    client = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(marks(folder)) >= 4)
    client.kill()
    client.wait()
    finished = len(sweep.load(file, ["seed", "folder"]))
    assert 3 <= finished < 12
    grid = {"seed": list(range(12)), "folder": [str(folder)]}
    rows = sweep.run(sweep_cells.slow, grid, file=file, progress=False)
    assert [r["square"] for r in rows] == [s**2 for s in range(12)]
    assert len(marks(folder)) <= 12 + 1  # at most the one that was running is run twice


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="a process cannot be killed outright here"
)
def test_on_dask_a_killed_worker_loses_nothing(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    folder = tmp_path / "marks"
    folder.mkdir()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(host="127.0.0.1", **options) as cluster:
        monkeypatch.setenv(sweep.DASK, cluster.scheduler_address)
        want = sweep.run(sweep_cells.draw, GRID, workers=2, progress=False)
        victim = next(iter(cluster.workers.values())).pid
        killer = subprocess.Popen(
            [sys.executable, "-c", WAIT_AND_KILL, str(folder), str(victim)], stderr=subprocess.PIPE
        )
        grid = {"seed": list(range(20)), "folder": [str(folder)]}
        rows = sweep.run(sweep_cells.slow, grid, file=tmp_path / "rows.jsonl", progress=False)
        assert killer.wait(60) == 0, killer.stderr.read()
    monkeypatch.delenv(sweep.DASK)
    assert want == sweep.run(sweep_cells.draw, GRID, progress=False)
    assert [r["square"] for r in rows] == [s**2 for s in range(20)]
    assert {name.name.split("-")[1] for name in folder.iterdir()} != {str(os.getpid())}


WAIT_AND_KILL = """
import os, signal, sys, time
while not any(f"-{sys.argv[2]}-" in name for name in os.listdir(sys.argv[1])):
    time.sleep(0.02)
os.kill(int(sys.argv[2]), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({}, "the grid needs a list of values for each argument"),
        ({"seed": []}, "the grid needs a list"),
        ({"seed": [1, 1]}, "names a value twice"),
        ({"seed": [object()]}, "may hold numbers and words only"),
        ({"seed": [float("nan")]}, "may hold numbers and words only"),
    ],
)
def test_bad_grids_are_refused(grid, says):
    with pytest.raises(ValueError, match=says):
        sweep.run(sweep_cells.draw, grid, progress=False)


def test_a_text_is_no_list_of_values():
    with pytest.raises(TypeError, match=r"grid\['seed'\] must be a list, got 'abc'"):
        sweep.run(sweep_cells.draw, {"seed": "abc"}, progress=False)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (3, "a cell must return a dict, got int at {'seed': 1}"),
        ({"seed": 2}, r"the cell returns \['seed'\], which are arguments"),
        ({"y": float("nan")}, "a row must hold finite numbers and words only"),
    ],
)
def test_bad_results_are_refused(result, says):
    with pytest.raises(ValueError, match=says):
        sweep.run(lambda seed: result, {"seed": [1]}, progress=False)


def test_a_file_of_another_experiment_is_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(ValueError, match=r"not of this experiment: it has the row \{'other': 1\}"):
        sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    file.write_text("3\n")
    with pytest.raises(ValueError, match="not of this experiment: it has the row 3"):
        sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    file.unlink()
    sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    with pytest.raises(ValueError, match='two rows for {"seed": 3}'):
        sweep.run(sweep_cells.word, {"seed": GRID["seed"]}, file=file, progress=False)


def test_each_cell_starts_from_the_set_up_with_or_without_processes():
    torch.set_default_dtype(torch.float32)
    rows = sweep.run(sweep_cells.luck, {"seed": [1, 2]}, progress=False)
    assert rows == sweep.run(sweep_cells.luck, {"seed": [1, 2]}, workers=2, progress=False)
    assert rows[0]["value"] == rows[1]["value"]
    assert torch.get_default_dtype() == torch.float64


def test_words_of_any_kind_come_back_from_the_file_as_they_went(tmp_path):
    file, grid = tmp_path / "rows.jsonl", {"seed": [1, 2]}
    rows = sweep.run(sweep_cells.word, grid, file=file, progress=False)
    assert rows == sweep.run(sweep_cells.word, grid, file=file, progress=False)
    assert rows[0]["pair"] == [1, 2]
    assert len(file.read_bytes().split(b"\n")) == 3
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex("é".encode()) + 1])  # cut inside a letter
    assert rows == sweep.run(sweep_cells.word, grid, file=file, progress=False)


def test_tables_are_cut_and_written_whole(tmp_path):
    rows = sweep.run(sweep_cells.draw, GRID, progress=False)
    values = sweep.column(rows, "value", by="power", over="seed")
    assert values[2][1] == sweep.select(rows, seed=2, power=2)[0]["value"]
    with pytest.raises(ValueError, match="select first"):
        sweep.column(rows, "value", by="power", over="power")
    sweep.tidy(tmp_path / "a" / "t.jsonl", rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert list(sweep.load(tmp_path / "a" / "t.jsonl", list(GRID)).values()) == rows != shuffled
    with pytest.raises(ValueError, match="finite numbers and words only"):
        sweep.tidy(tmp_path / "a" / "t.jsonl", [{"x": float("inf")}])
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["t.jsonl"]


# --- What goes wrong in a cell, in a worker, in the file --------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_cell_and_keeps_its_type_and_cause(workers, tmp_path):
    file, grid = tmp_path / "rows.jsonl", {"seed": [1, 2, 3]}
    with pytest.raises(KeyError, match="weights") as caught:
        sweep.run(sweep_cells.fails, grid, workers=workers, file=file, progress=False)
    assert caught.value.__notes__ == ["at the grid point {'seed': 2}"]
    if workers == 1:
        assert isinstance(caught.value.__cause__, OSError)
        assert [row["seed"] for row in sweep.load(file, ["seed"]).values()] == [1]
    else:  # the traceback of the worker stands in the cause
        assert "no disk" in str(caught.value.__cause__)
    assert list(tmp_path.iterdir()) == [file]  # no claim is left


def test_an_error_that_cannot_travel_comes_in_words():
    grid = {"seed": [1, 2], "odd": [True]}
    with pytest.raises(RuntimeError, match="OddError: this and that") as caught:
        sweep.run(sweep_cells.fails, grid, workers=2, progress=False)
    assert caught.value.__notes__ == ["at the grid point {'seed': 2, 'odd': True}"]
    assert 'raise OddError("this", "that")' in str(caught.value.__cause__)
    with pytest.raises(sweep_cells.OddError):
        sweep.run(sweep_cells.fails, grid, progress=False)


@pytest.mark.parametrize("bad", ["folder", "no folder"])
def test_a_target_that_cannot_be_written_is_noticed_before_the_first_cell(tmp_path, bad):
    (tmp_path / "a").mkdir() if bad == "folder" else (tmp_path / "a").write_text("")
    file, calls = tmp_path / "a" if bad == "folder" else tmp_path / "a" / "rows.jsonl", []
    with pytest.raises(OSError, match="a"):
        sweep.run(lambda seed: calls.append(seed) or {"y": 1}, {"seed": [1]}, file=file)
    assert calls == []


def test_a_finished_table_need_not_be_writable(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    want = sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    monkeypatch.setattr(sweep.Table, "open", None)
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want


@pytest.mark.parametrize(
    "line",
    [
        '{"seed": 3, "power": 1, "value": NaN}',
        '{"seed": 3, "power": 1, "value": [1, {"deep": -Infinity}]}',
        '{"seed": 3, "power": 1, "value": 1e999}',
        '{"seed": 3, "power": 1}',
        '{"seed": 3, "power": 1, "value": 0.5',
        "\0\0\0\0",
        "[" * 10000,
    ],
)
def test_a_row_without_its_result_is_not_finished(tmp_path, line):
    file = tmp_path / "rows.jsonl"
    file.write_text(line)
    want = sweep.run(sweep_cells.draw, GRID, progress=False)
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want


@pytest.mark.parametrize(
    "result", [{}, {"y": float("inf")}, {"y": time.gmtime}, {"y": torch.ones(2)}, {"y": {1, 2}}]
)
def test_a_result_that_is_no_row_leaves_the_file_readable(tmp_path, result):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="'seed': 2"):
        sweep.run(lambda seed: {"y": 1} if seed == 1 else result, {"seed": [1, 2]}, file=file)
    rows = sweep.run(lambda seed: {"y": seed}, {"seed": [1, 2]}, file=file, progress=False)
    assert [row["y"] for row in rows] == [1, 2]


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_process_of_ours_loses_its_cells_once(tmp_path, times):
    file, grid = tmp_path / "rows.jsonl", {"seed": list(range(8)), "folder": [str(tmp_path)]}
    grid["times"] = [times]
    run = {"workers": 2, "file": file, "progress": False}
    if times == 2:
        with pytest.raises(RuntimeError, match="killed twice, .* nothing but the cell .*'seed': 2"):
            sweep.run(sweep_cells.deadly, grid, **run)
    rows = sweep.run(sweep_cells.deadly, grid, **run)
    assert [row["square"] for row in rows] == [s**2 for s in range(8)]
    calls = [name for name in marks(tmp_path) if name.isdigit()]
    assert len(calls) <= 8 + 2 * times  # those under way beside it are run again too


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="a process cannot be killed outright here"
)
def test_clients_of_one_file_share_the_work_also_that_of_a_killed_one(tmp_path):
    folder, file, cells = tmp_path / "marks", tmp_path / "rows.jsonl", 24
    folder.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sweep_cells; from teachkit.lab import sweep\n"
        f"grid = {{'seed': list(range({cells})), 'folder': [sys.argv[2]]}}\n"
        "open(sys.argv[2] + '/ready-' + sys.argv[4], 'w')\n"
        "import os, time\n"
        "while len([n for n in os.listdir(sys.argv[2]) if 'ready' in n]) < 3: time.sleep(0.02)\n"
        "print(sweep.run(sweep_cells.timed, grid, file=sys.argv[3], progress=False))"
    )
    here = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), str(file)]
    started = [
        subprocess.Popen([*here, str(i)], stdout=subprocess.PIPE, text=True) for i in range(3)
    ]
    victim = f"-{started[0].pid}-"
    wait_for(lambda: len([path for path in folder.iterdir() if victim in path.name]) >= 2)
    started[0].kill()
    tables = [client.communicate(timeout=100)[0] for client in started]
    assert [client.returncode for client in started[1:]] == [0, 0]
    assert tables[1] == tables[2]  # though a cell gives another number each time
    calls = [name for name in marks(folder) if name.isdigit()]
    assert set(map(int, calls)) == set(range(cells))
    assert len(calls) <= cells + 1  # only what the killed one had under way is run again
    assert len(sweep.load(file, ["seed", "folder"])) == cells
    assert sorted(path.name for path in tmp_path.iterdir()) == ["marks", "rows.jsonl"]


def test_a_point_gets_one_row_though_two_have_computed_it(tmp_path):
    """As where a file system knows no locks: the row that is there first stays."""
    file, point = tmp_path / "rows.jsonl", {"seed": 1}
    tables = [sweep.Table(file, ["seed"]) for _ in range(2)]
    for table, value in zip(tables, (1, 2), strict=True):
        table.add(point | {"value": value}, point)
    assert [table.rows[sweep.key(point)]["value"] for table in tables] == [1, 1]
    assert file.read_text() == '{"seed": 1, "value": 1}\n'


def test_trouble_while_claiming_is_raised(tmp_path):
    file = tmp_path / "rows.jsonl"
    table, stranger = sweep.Table(file, ["seed"]), {"other": 1}
    table.open()
    sweep.tidy(file, [stranger])
    assert list(table.claimed([{"seed": 1}])) == []
    with pytest.raises(ValueError, match="not of this experiment"):
        table.check()
