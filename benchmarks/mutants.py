"""``python -m teachkit mutants [NAME …]``: break the code in small ways and see whether a test notices.

The mutations are mutmut's. Each is tried in a temporary copy of the course, by the tests that run the
mutated function, the nearest first. Who runs what is recorded once for each file of tests, in
``build/mutants/map.json``; verdicts are kept in ``results.jsonl`` beside it, so that an interrupted run
goes on. ``tests/equivalent_mutants.toml`` lists mutants that compute the same, each with the reason.
"""

import argparse
import compileall
import hashlib
import json
import os
import py_compile
import random
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks import mutation
from benchmarks.mutation import Mutant
from teachkit.core import files
from teachkit.course.setup import ROOT

FOLDER = ROOT / "build" / "mutants"
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.toml"
ELSEWHERE = ("show", "experiments", "course", "__init__", "__main__")
# Tests of the house and its commands: they read sources or start processes, and prove no number. The
# bad calls run under an alarm, which must not go off inside the recorder.
HOUSE = ("architecture", "quality", "course", "notebooks", "bench", "mutants", "show", "bad_inputs")
Chart = dict[str, tuple[float, list[str]]]  # of each test: seconds, functions it runs


def sources(names: Iterable[str]) -> list[str]:
    """The files of a lesson, a room, or a module such as core.losses; of all where no name is given."""
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / "teachkit").rglob("*.py"))]
    ours = [p.as_posix() for p in paths if p.with_suffix("").parts[1] not in ELSEWHERE]
    chosen: set[str] = set()
    for name in names:
        start = f"teachkit/{name.replace('.', '/')}"
        inside = {path for path in ours if path.startswith((f"{start}.", f"{start}/"))}
        if not inside:
            raise ValueError(f"{name!r} is no lesson and no module of core, engine or lab")
        chosen |= inside
    return sorted(chosen) or ours


def drawn(paths: Iterable[str], sample: int | None, seed: int) -> Iterator[Mutant]:
    """All mutants of some files, or so many of them at random; the same for the same seed."""
    spots = [(path, spot) for path in paths for spot in mutation.spots(ROOT / path)]
    if sample is not None:
        random.Random(seed).shuffle(spots)  # noqa: S311 -- no secret
    for path, spot in spots:
        if sample == 0:
            return
        if mutant := mutation.made(path, *spot):
            sample = None if sample is None else sample - 1
            yield mutant


def copied(folder: str) -> Path:
    """A copy of the course where code may be broken; bytecode is checked by content, not by time."""
    copy = Path(folder) / "course"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "__pycache__"))
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(copy / "teachkit", quiet=1, invalidation_mode=checked)
    return copy


def chart(copy: Path, anew: bool) -> Chart:
    """Which test runs which function; files of tests that are new or changed are recorded, or all."""
    path, tests = FOLDER / "map.json", {}
    known: dict[str, Any] = (
        json.loads(path.read_text("utf-8")) if path.exists() and not anew else {}
    )
    paths = [p for p in sorted((copy / "tests").glob("test_*.py")) if p.stem[5:] not in HOUSE]
    for name in tqdm(["teachkit", *(f"tests/{p.name}" for p in paths)], desc="who runs what"):
        text = b"" if name == "teachkit" else (copy / name).read_bytes()
        stamp = hashlib.sha256(text).hexdigest()
        if known.get(name, {}).get("sha256") != stamp:
            known[name] = {"sha256": stamp, **mutation.recorded(copy, name)}
            files.replace(path, json.dumps(known))
        tests.update(known[name]["tests"])
        mutation.load(known[name]["libraries"])
    return tests


def verdict(copy: Path, mutant: Mutant, tests: Chart, limit: float) -> dict[str, Any]:
    """Try one mutant: caught or survived, how many tests, and of how many that run the function."""
    near = [t for t, (_, runs) in tests.items() if mutant.function in runs]
    if not near:  # a constant, or a new function: all that run the file
        near = [t for t, (_, runs) in tests.items() if any(mutant.file in r for r in runs)]
    near.sort(key=lambda test: tests[test][0])
    homes = [name for name, _ in Counter(t.split("::")[0] for t in near[:50]).most_common(3)]
    first, second, spent = list[str](), list[str](), 0.0
    for test in near:
        spent += tests[test][0]
        if spent < limit:
            (first if spent < 10 and test.split("::")[0] in homes else second).append(test)
    said = "survived"
    (copy / mutant.file).write_text(mutant.code, "utf-8")
    for batch in (first, second):
        if batch and said == "survived":
            said = mutation.tried(copy, batch, 60 + 10 * sum(tests[t][0] for t in batch))
    shutil.copyfile(ROOT / mutant.file, copy / mutant.file)
    return {"said": said, "tests": len(first + second), "of": len(near)}


def brief(*words: str) -> tuple[str, ...]:
    """Changed lines without their blanks."""
    return tuple(" ".join(each.split()) for each in words)


def equivalent() -> dict[tuple[str, ...], str]:
    """The reasons of the mutants that compute the same, by file, line before and after."""
    rows = tomllib.loads(EQUIVALENT.read_text("utf-8")).get("mutant", [])
    return {brief(row["file"], row["before"], row["after"]): row["reason"] for row in rows}


def attempts(copy: Path, mutants: list[Mutant], tests: Chart, limit: float) -> list[dict[str, Any]]:
    """A row for each mutant; what survived is tried again where other tests stand than before."""
    path, rows, same = FOLDER / "results.jsonl", [], equivalent()
    state = hashlib.sha256(json.dumps([limit, *sorted(tests)]).encode()).hexdigest()
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    known = {row["key"]: row for row in map(json.loads, lines)}
    for mutant in (bar := tqdm(mutants, desc="mutants")):
        key = hashlib.sha256(f"{mutant.file} {mutant.code}".encode()).hexdigest()
        row = known.get(key, {"said": ""})
        if brief(mutant.file, mutant.before, mutant.after) in same:
            row = {"said": "equivalent", **mutant._asdict()}
        elif row["said"] != "caught" and row.get("state") != state:
            row = {**mutant._asdict(), "key": key, "state": state}
            row |= {"code": "", **verdict(copy, mutant, tests, limit)}
            known[key] = row
            files.replace(path, "".join(f"{json.dumps(each)}\n" for each in known.values()))
        rows.append(row)
        bar.set_postfix(Counter(each["said"] for each in rows))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by module, then the survivors."""
    kinds = ("caught", "survived", "equivalent")
    lines = [f"{'module':32} mutants {' '.join(kinds)}"]
    for module in [*sorted({row["file"] for row in rows}), "all"]:
        said = Counter(row["said"] for row in rows if module in ("all", row["file"]))
        counts = "".join(f"{said[kind]:{len(kind) + 1}}" for kind in kinds)
        lines.append(f"{module:32} {said.total():7}{counts}")
    for row in (row for row in rows if row["said"] == "survived"):
        lines.append(f"\n{row['file']}:{row['line']} survives {row['tests']} of {row['of']} tests")
        lines += [f"- {line}" for line in row["before"].splitlines()]
        lines += [f"+ {line}" for line in row["after"].splitlines()]
    return "\n".join(lines)


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit mutants``."""
    parser = argparse.ArgumentParser("python -m teachkit mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="obd, engine, core.losses; or all")
    parser.add_argument("--sample", type=int, metavar="N", help="so many at random, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--limit", type=float, default=120, help="seconds of tests for one mutant")
    parser.add_argument("--map", action="store_true", help="record anew which test runs what")
    given = parser.parse_args(list(arguments))
    if not hasattr(os, "fork"):
        parser.error("mutants are tried in forks of the process, which this system does not have")
    try:
        mutants = list(drawn(sources(given.names), given.sample, given.seed))
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(folder)
        try:
            rows = attempts(copy, mutants, chart(copy, given.map), given.limit)
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
            return 130
    print(table(rows))
    return int(any(row["said"] == "survived" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
