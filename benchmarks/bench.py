"""``python -m teachkit bench SUITE``: measure the modules of a suite and leave a report."""

import argparse
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks import cases, lessons, report
from benchmarks.cases import Case, Row, Section, Table, measure
from teachkit import lab
from teachkit.course.setup import ROOT

SUITES: dict[str, tuple[str, ...]] = {
    "second-order": ("second_order", "layers", "fisher"),
    "magnitude": ("magnitude",),
    "structured": ("structured",),
    "paradox": ("paradox",),
    "lessons": ("lessons",),
    "explorers": ("explorers",),
}
FOLDER = ROOT / "build" / "bench"


def sections(
    suite: str, *, only: str | None = None, quick: bool = False, progress: bool = True
) -> list[Section]:
    """Measure every module of a suite that is there, or only one of them."""
    measured = []
    for name in SUITES[suite] if only is None else (only,):
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        title = (module.__doc__ or name).strip().splitlines()[0].rstrip(".")
        work: list[Case] = module.cases(quick)
        rows: list[Row] = []
        bar = tqdm(work, desc=title, disable=not progress, leave=False)
        with bar, warnings.catch_warnings(action="ignore"):  # peers warn about their own insides
            for case in bar:
                rows += measure(case, quick=quick, bar=bar.set_postfix_str)
        tables: list[Table] = module.tables(quick) if hasattr(module, "tables") else []
        measured.append(Section(name, title, rows, tables))
    return measured


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit bench``."""
    parser = argparse.ArgumentParser("python -m teachkit bench", description=cases.__doc__)
    parser.add_argument("suite", choices=sorted(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run?")
    every = [name for names in SUITES.values() for name in names]
    parser.add_argument("--only", choices=every, metavar="SECTION", help=", ".join(every))
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the report is saved")
    parser.add_argument("--write", action="store_true", help="lessons: keep data/seconds.toml")
    given = parser.parse_args(list(arguments))
    if given.write and (given.quick or given.suite != "lessons"):
        parser.error("--write goes with the suite lessons alone, and not with --quick")
    lab.setup()
    torch.set_default_dtype(getattr(torch, given.dtype))
    for name in report.missing_peers():
        how = 'pip install -e ".[bench]" brings it'
        print(f"{name} is not installed ({how}); its rows say so.", file=sys.stderr)
    if given.only not in (None, *SUITES[given.suite]):
        parser.error(f"{given.suite} has the sections {', '.join(SUITES[given.suite])}")
    measured = sections(given.suite, only=given.only, quick=given.quick)
    if given.write:
        lessons.write(lessons.measured(quick=False))
    name = given.suite if given.only is None else f"{given.suite}-{given.only}"
    print(report.save(name, measured, given.folder, quick=given.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
