"""What README promises holds: commands, variables, plans, what Binder reads, the package alone."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from teachkit.course import cli, pins
from teachkit.course.setup import ROOT
from teachkit.show import pages
from teachkit.show.hints import sheets

README = (ROOT / "README.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", README, re.M | re.S))
LESSONS = {it.stem[:2]: it for it in map(pages.lesson, pages.notebooks())}


# Words -----------------------------------------------------------------------------------------


def test_each_reader_finds_a_section_and_none_is_long():
    assert list(SECTIONS) == [
        "Who it is for",
        "Start",
        "Your work",
        "Lessons",
        "For lecturers",
        "Without installing",
        "For contributors",
        "Licence and citation",
    ]
    counts = {name: len(text.split()) for name, text in SECTIONS.items()}
    assert max(counts.values()) <= 450, counts


def test_the_commands_are_there():
    named = set(re.findall(r"python -m teachkit ([a-z]+)", README))
    assert named >= {"lab", "test", "progress", "notebooks", "pins", "bench", "mutants"}
    assert named <= set(cli.COMMANDS)
    for option in re.findall(r"python -m teachkit lab (--[a-z]+)", README):
        assert option in cli.parser()._subparsers._group_actions[0].choices["lab"].format_help()


def test_modules_that_are_run_by_name_are_there():
    for name in set(re.findall(r"python -m (teachkit\.[a-z.]+[a-z])", README)):
        assert importlib.util.find_spec(name), name


def test_suites_and_experiments_that_are_named_are_all():
    from benchmarks.bench import SUITES

    text = SECTIONS["For contributors"]
    assert set(SUITES) <= set(re.findall(r"[`\s]([a-z-]+)[`\s]", text))
    made = [path.stem for path in (ROOT / "teachkit" / "experiments").glob("*.py")]
    named = re.findall(r"`(\w+)`", text.partition("again, for")[2])
    assert len(named) > 5
    assert set(named) <= set(made)


@pytest.mark.parametrize("variable", re.findall(r"`(TEACHKIT_[A-Z]+)`", README))
def test_a_variable_that_is_named_is_read(variable):
    assert any(variable in path.read_text("utf-8") for path in (ROOT / "teachkit").rglob("*.py"))


def test_the_python_that_is_asked_for_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (asked,) = re.findall(r"You need Python (\S+) or newer", README)
    assert project["requires-python"] == f">={asked}"


def test_links_within_readme_lead_to_a_section():
    anchors = {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


# Plans -----------------------------------------------------------------------------------------


def plans():
    rows = re.findall(
        r"^\| (.+?) \| ([\d, ]+) \| (\d+) \| (.+?) \| (\d+) \|$", SECTIONS["For lecturers"], re.M
    )
    return {
        name: (re.findall(r"\d\d", lessons), int(minutes), exercises, int(more))
        for name, lessons, minutes, exercises, more in rows
    }


def asked(exercises, lessons):
    """The minutes of the exercises that a plan names, or of all in its lessons."""
    there = {name: it.minutes for name, it in sheets().items() if name[:2] in lessons}
    named = re.findall(r"\d\d\.\d", exercises)
    return sum(there[name] for name in named) if named else sum(there.values())


@pytest.mark.parametrize("plan", plans())
def test_a_plan_takes_the_minutes_that_its_lessons_and_exercises_state(plan):
    lessons, minutes, exercises, more = plans()[plan]
    assert lessons == sorted(lessons)
    assert minutes == sum(int(LESSONS[number].minutes) for number in lessons)
    assert more == asked(exercises, lessons)


def test_ninety_minutes_a_day_and_eight_weeks_are_what_they_are_called():
    found = plans()
    assert found["90 minutes"][1] <= 90
    assert sum(found["a day"][i] for i in (1, 3)) <= 6 * 60
    weeks = [plan for name, plan in found.items() if "week" in name]
    assert len(weeks) == 8
    assert [number for lessons, *_ in weeks for number in lessons] == sorted(LESSONS)
    assert all(minutes <= 120 for _, minutes, _, _ in weeks)


# Binder ----------------------------------------------------------------------------------------

# What repo2docker reads before environment.yml, or beside it: none may say something else.
BEFORE = ["binder", ".binder", "Dockerfile", "flake.nix", "default.nix", "Project.toml"]
BESIDE = ["apt.txt", "postBuild", "start", "runtime.txt", "requirements.txt", "Pipfile"]


def listed():
    """The lines for conda and those for pip, as a YAML parser reads them."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert set(environment) == {"name", "channels", "dependencies"}
    *plain, (nested) = environment["dependencies"]
    return plain, nested["pip"]


def test_binder_finds_one_environment_and_nothing_that_goes_before_it():
    assert [name for name in BEFORE + BESIDE if (ROOT / name).exists()] == []
    plain, lines = listed()
    assert plain == ["python=3.11", "pip"]
    assert all(isinstance(line, str) for line in lines)


def test_each_line_for_pip_can_be_resolved_under_the_constraints():
    _, lines = listed()
    bound = pins.read(pins.FILE.read_text("utf-8"))
    options = [line for line in lines if line.startswith("-")]
    assert [line.split()[0] for line in options] == ["--extra-index-url", "-c", "-e"]
    assert (ROOT / options[1].split()[1]).is_file()
    assert (ROOT / options[2].split()[1] / "pyproject.toml").is_file()
    for wanted in map(Requirement, [line for line in lines if not line.startswith("-")]):
        assert bound[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for wanted in map(Requirement, project["dependencies"]):  # of the line -e .
        assert bound[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_what_binder_opens_first_is_there():
    (first,) = re.findall(r"open `(notebooks/\S+)`", SECTIONS["Without installing"])
    assert (ROOT / first).is_file()


# The package without its course, as on Colab ---------------------------------------------------

ALONE = """
from teachkit import lab, show
from teachkit.lab import data, progress
lab.setup()
assert progress.path() is None
assert len(data.digits().train[0]) > 1000
show.quiz("02.1"), show.check("02.1", lambda g, H, delta: g @ delta)
print(show.course_map())
print(show.end("02").html)
"""


def test_the_package_alone_brings_data_questions_and_checks_and_keeps_nothing(tmp_path):
    """The files as the wheel has them: the package, and data within it as _data."""
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "teachkit", tmp_path / "site" / "teachkit", ignore=hidden)
    shutil.copytree(ROOT / "data", tmp_path / "site" / "teachkit" / "_data")
    (tmp_path / "here").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TEACHKIT_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=tmp_path / "here",
        env=kept | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "The notebooks are not installed with the package" in done.stdout
    assert "Before: 01 hessian" in done.stdout
    assert "href" not in done.stdout
    assert list((tmp_path / "here").iterdir()) == []
