"""The commands: lab, progress, slides, site, test, notebooks, pins, bench and mutants."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from teachkit.course import jupyter, processes
from teachkit.course.setup import ROOT, Environment, SetupError, course

COMMANDS = {
    "lab": "set up, then open your copies of the lessons in JupyterLab; "
    "options go to 'jupyter lab', e.g. --no-browser",
    "progress": "say how far you have come: predictions, exercises and lessons",
    "slides": "make offline slides of the lessons, HTML and PDF; all, or those named: 02 05",
    "site": "make the course a website in build/site; all lessons, or those named: 01 03",
    "test": "set up, then run every test and notebook; options go to pytest, e.g. -k masks",
    "notebooks": "re-execute notebooks and write them in canonical form; all, or those named: 01 03",
    "pins": "write constraints.txt: the version of every package of the environment, on every system",
    "bench": "set up, fetch the libraries we compare with, then measure a suite: second-order [--quick]",
    "mutants": "set up, fetch mutmut, then break code and see who notices: obd [--sample 100 --seed 1]",
}
ALONE = ("lessons", "explorers")  # suites that compare with no other library
RESET = (
    "bring the course's own version of these lessons back, e.g. 02 05; yours are kept beside them"
)


def parser() -> argparse.ArgumentParser:
    """The command line; whatever stands behind a command is handed on."""
    top = argparse.ArgumentParser("python -m teachkit", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)
        if name == "lab":
            one.add_argument(
                "--reset", nargs="+", default=[], metavar="NN", action="extend", help=RESET
            )
    return top


def command(name: str, rest: Sequence[str], root: Path = ROOT) -> list[str]:
    """The arguments of the environment's Python for one of our commands.

    >>> command("notebooks", ["01"])
    ['-m', 'teachkit.course.notebooks', '01']
    """
    if name == "lab":
        return jupyter.command(root, rest)
    if name == "test":
        workers = str(min(os.cpu_count() or 1, 4))
        return ["-m", "pytest", "-n", workers, "--dist", "loadfile", *rest]
    module = f"benchmarks.{name}" if name in ("bench", "mutants") else f"teachkit.course.{name}"
    return ["-m", module, *rest]


def peers(environment: Environment) -> None:
    """Fetch the libraries that a benchmark compares with; without them it measures the rest."""
    try:
        environment.ensure_extra("bench")
    except SetupError as error:
        print(f"\n{error}\nGoing on without: the report says which are missing.", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Set up if needed, run one command, return its exit status."""
    given, rest = parser().parse_known_args(arguments)
    processes.say_ignored()
    try:
        # New versions are looked for without the old constraints.
        environment = Environment(course(), constrained=given.command != "pins")
        environment.ensure()
        if given.command == "bench" and rest and rest[0] not in ALONE:
            peers(environment)
        if given.command == "mutants":
            environment.ensure_extra("mutants")
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again; it goes on from here.", file=sys.stderr)
        return 130
    # One thread a process: the networks are small, and pytest already runs one process a core.
    defaults = {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    steps = [command(given.command, rest, environment.root)]
    if given.command == "lab":
        defaults |= jupyter.variables(environment.root)
        steps.insert(0, command("workbook", ["--reset", *given.reset] if given.reset else []))
    for step in steps:
        python = [str(environment.python), *step]
        print("$", *python, flush=True)
        env = {**defaults, **processes.environment()}
        if status := processes.call(python, environment.root, env):
            return status
    return 0


def script() -> int:
    """The command ``teachkit``, which finds its course from any folder."""
    return main(sys.argv[1:])
