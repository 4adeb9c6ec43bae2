"""The environment of the course is its own: foreign settings, other folders, signals, versions."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from teachkit.course import cli, pins, processes, setup
from teachkit.course.setup import ROOT, Environment, SetupError, course

LINES = [line for line in pins.FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
BOUND = pins.read(pins.FILE.read_text("utf-8"))


def wheel(folder, name="six", version="1.0"):
    """A package that pip installs without an index."""
    import zipfile

    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "WHERE = 'the index'")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A course of one small package, whose .venv is made once: that takes the longest."""
    folder = tmp_path_factory.mktemp("course")
    wheel(folder)
    text = "  - pip:\n      - -c constraints.txt\n      - six==1.0\n"
    (folder / "environment.yml").write_text(text, "utf-8")
    (folder / "pyproject.toml").write_text("", "utf-8")
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture
def checkout(place, monkeypatch):
    """The course with nothing installed yet, a real pip, and a folder of wheels that it may look into."""
    (place / "constraints.txt").write_text("six==1.0\n", "utf-8")
    (place / ".venv" / "course.json").unlink(missing_ok=True)
    for path in (place / ".venv").glob("**/site-packages/six*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    # torch, of which this course has none, is looked for alone and first
    real = Environment.pip
    monkeypatch.setattr(
        Environment, "pip", lambda self, *words: real(self, *words) if len(words) > 3 else None
    )
    monkeypatch.setattr(Environment, "_index_for", lambda self, torch: [])
    return place


WRONG = {
    "PIP_USER": "1",
    "PIP_DRY_RUN": "1",
    "PIP_TARGET": "/tmp/elsewhere",  # noqa: S108
    "PIP_PREFIX": "/tmp/elsewhere",  # noqa: S108
    "PIP_ROOT": "/tmp/elsewhere",  # noqa: S108
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_NO_DEPS": "1",
    "PIP_REQUIRE_HASHES": "1",
    "PIP_VERSION": "1",
    "PIP_PYTHON": "/usr/bin/false",
    "PIP_CONSTRAINT": "/nowhere.txt",
    "PYTHONHOME": "/nowhere",
    "PYTHONOPTIMIZE": "2",
}


def test_settings_of_pip_and_python_do_not_reach_the_set_up(checkout, monkeypatch, capsys):
    """All at once; each of the first five alone made a set-up of nothing, or one that fails."""
    foreign = checkout / "foreign"
    foreign.mkdir(exist_ok=True)
    (foreign / "six.py").write_text("WHERE = 'a foreign folder'")
    for name, value in (WRONG | {"PYTHONPATH": str(foreign)}).items():
        monkeypatch.setenv(name, value)
    environment = Environment(checkout)
    environment.ensure()
    assert environment.ready()
    env = processes.environment()
    words = [str(environment.python), "-c", "import six; print(six.WHERE)"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.stdout == "the index\n", done.stderr
    processes.say_ignored()
    said = capsys.readouterr().out
    assert all(f"Ignoring {name}=" in said for name in ("PYTHONPATH", *WRONG))


@pytest.mark.parametrize(
    ("section", "line"),
    [("install", "user = true"), ("install", "dry-run = true")],
)
def test_pips_own_file_does_not_reach_the_set_up_either(section, line, checkout, monkeypatch):
    (checkout / "pip.conf").write_text(f"[{section}]\n{line}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(checkout / "pip.conf"))
    Environment(checkout).ensure()
    assert Environment(checkout).ready()


def test_packages_sent_elsewhere_are_noticed_and_the_setting_is_quoted(checkout, monkeypatch):
    (checkout / "pip.conf").write_text(f"[install]\ntarget = {checkout / 'elsewhere'}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(checkout / "pip.conf"))
    with pytest.raises(SetupError, match=r"lacks six==1.0.*Settings of pip(?s:.*)install.target="):
        Environment(checkout).ensure()
    assert not Environment(checkout).ready()


@pytest.mark.parametrize("name", ["INDEX_URL", "CERT", "FIND_LINKS", "PROXY", "DEFAULT_TIMEOUT"])
def test_where_packages_come_from_stays_the_readers_choice(name):
    assert processes.ignored({f"PIP_{name}": "x"}) == {}
    assert processes.environment({f"PIP_{name}": "x"})[f"PIP_{name}"] == "x"


def test_a_changed_constraint_renews_the_set_up(checkout):
    Environment(checkout).ensure()
    (checkout / "constraints.txt").write_text("six==1.0\nseven==1.0\n", "utf-8")
    assert not Environment(checkout).ready()
    assert Environment(checkout, constrained=False).bounds == []


# From another folder ----------------------------------------------------------------------------


def test_the_script_is_declared_and_calls_the_commands(monkeypatch, tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"teachkit": "teachkit.course.cli:script"}
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["teachkit", "lab", "--no-browser"])
    monkeypatch.setattr(Environment, "ensure", lambda self: None)
    monkeypatch.setattr(processes, "call", lambda *args: calls.append(args) or 7)
    assert cli.script() == 7
    assert calls[0][1] == ROOT


def test_a_package_without_its_course_looks_above_and_else_says_so(checkout, tmp_path_factory):
    away = tmp_path_factory.mktemp("site-packages")
    assert course(away, checkout) == checkout
    assert course(away, checkout / "notebooks") == checkout
    with pytest.raises(SetupError, match="without its course.*Go to the folder of the course"):
        course(away, away)


def test_the_folder_of_the_package_is_no_program(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "teachkit"), "lab"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Run it in the folder of the course: 'python -m teachkit'" in done.stderr


# Signals ------------------------------------------------------------------------------------------

CHILD = """
import pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path("ended").write_text(str(number))
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, end)
pathlib.Path("started").touch()
time.sleep(60)
"""
PARENT = """
import os, sys, pathlib
from teachkit.course import processes
sys.exit(processes.call([sys.executable, "child.py"], pathlib.Path.cwd(), os.environ))
"""


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_reaches_the_child(number, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "parent.py").write_text(PARENT)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=env)
    try:
        assert until((tmp_path / "started").exists)
        parent.send_signal(number)
        assert parent.wait(60) == 7
        assert (tmp_path / "ended").read_text() == str(int(number))
    finally:
        parent.kill()


def test_handlers_are_put_back_and_a_killed_child_has_the_status_of_a_shell(tmp_path):
    before = [signal.getsignal(number) for number in processes.SIGNALS]
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    status = processes.call([sys.executable, "-c", kill], tmp_path, os.environ)
    assert status == 128 + signal.SIGTERM
    assert [signal.getsignal(number) for number in processes.SIGNALS] == before


# Versions -------------------------------------------------------------------------------------------


def test_every_installed_package_has_its_version_in_the_constraints():
    """But those the reader added: what a package of the course asks for is bound, all the way down."""
    here = {canonicalize_name(d.name): pins.public(d.version) for d in distributions()}
    packages = {name: version for name, version in here.items() if name not in pins.OURS}
    assert len(packages) > 100
    differ = {n: (v, BOUND.get(n)) for n, v in packages.items() if BOUND.get(n) != v}
    assert not differ, "run python -m teachkit pins"


def test_environment_and_constraints_agree():
    options, lines = setup.requirements((ROOT / "environment.yml").read_text("utf-8"))
    assert "-c constraints.txt" in lines
    assert options == ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert {name: BOUND[canonicalize_name(name)] for name in pinned} == pinned


def test_the_constraints_bring_no_cuda_and_no_local_version():
    assert BOUND["torch"] == "2.13.0"
    assert not [name for name in BOUND if re.match("nvidia|cuda|triton", name)]
    assert not [version for version in BOUND.values() if "+" in version]


def test_the_constraints_can_be_read_everywhere_and_name_each_package_once():
    names = [Requirement(line).name for line in LINES]
    assert names == sorted({canonicalize_name(name) for name in names})
    for line in LINES:
        (pin,) = Requirement(line).specifier
        assert pin.operator == "=="
        assert not Version(pin.version).is_prerelease


def test_the_closure_of_what_is_asked_for_is_bound_on_every_system_and_python():
    """Nothing but what only another system needs is missing here, and it is in the file."""
    asked = []

    def look_up(wanted, target):
        asked.append(canonicalize_name(wanted.name))
        return pins.Package(BOUND[asked[-1]], [])

    assert "3.11.0" in [target.first for target in pins.TARGETS]
    packages, needed = pins.closure(pins.roots(), pins.installed(), look_up)
    assert {name: package.version for name, package in packages.items()}.items() <= BOUND.items()
    assert {"pywinpty", "colorama", "appnope"} <= set(asked)
    whens = {Requirement(line).name: Requirement(line).marker for line in LINES}
    for name, targets in needed.items():
        for target in targets:
            when = whens[name]
            assert when is None or when.evaluate(target.environment()), (name, target)


def test_conditions_hold_where_a_package_is_needed_and_a_lone_system_is_named():
    import itertools

    for systems in itertools.product([0, 1], repeat=3):
        for pythons in itertools.product([0, 1], repeat=len(pins.PYTHONS)):
            chosen = {
                t
                for t in pins.TARGETS
                if systems[list(pins.SYSTEMS).index(t.system)]
                and pythons[pins.PYTHONS.index(t.python)]
            }
            when = pins.condition(chosen)
            if when:
                assert all(Marker(when).evaluate(t.environment()) for t in chosen), (when, chosen)
    mac = {t for t in pins.TARGETS if t.system == "darwin"}
    assert pins.condition(mac) == "sys_platform == 'darwin'"
    assert pins.condition(set(pins.TARGETS) - mac) == "sys_platform != 'darwin'"
    old = {t for t in pins.TARGETS if t.python == "3.11"}
    assert pins.condition(old) == "python_version <= '3.11'"


def test_the_closure_follows_markers_and_extras():
    known = {
        "a": pins.Package("1", ["b; sys_platform == 'win32'", "c[more]", "z; extra == 'other'"]),
        "c": pins.Package("2", ["d; extra == 'more'", "e; python_version < '3.12'", "a"]),
    }
    packages, needed = pins.closure(["a"], known, lambda w, t: pins.Package(f"{len(w.name)}.0", []))
    assert sorted(packages) == ["a", "b", "c", "d", "e"]
    assert pins.write(packages, needed).splitlines()[1:] == [
        "a==1",
        "b==1.0 ; sys_platform == 'win32'",
        "c==2",
        "d==1.0",
        "e==1.0 ; python_version <= '3.11'",
    ]


def test_a_version_that_the_oldest_python_refuses_is_not_bound():
    known = {"a": pins.Package("4.1.2", [], ">=3.11.5")}
    with pytest.raises(
        SetupError, match=r"a 4\.1\.2 is for Python >=3\.11\.5, and not for 3\.11\.0"
    ):
        pins.closure(["a"], known, lambda w, t: pytest.fail("a is known"))


def test_the_command_asks_pip_and_keeps_what_the_file_had(
    checkout, monkeypatch, tmp_path_factory, capsys
):
    """A real pip, without an index: what stands in the folder is found, the older one is kept."""
    wheel(checkout, "seven", "1.0")
    wheel(checkout, "seven", "2.0")
    file = tmp_path_factory.mktemp("made") / "constraints.txt"
    environment = Environment(checkout, constrained=False)
    environment.venv, environment.python = Path(sys.prefix), Path(sys.executable)
    monkeypatch.setattr(pins, "FILE", file)
    monkeypatch.setattr(pins, "Environment", lambda **_: environment)
    monkeypatch.setattr(pins, "roots", lambda: ["seven; sys_platform == 'win32'", "iniconfig"])
    for before, wanted in (("", "2.0"), ("seven==1.0\n", "1.0"), ("seven==3.0\n", "")):
        file.write_text(before)
        assert pins.main() == (0 if wanted else 1)
        if wanted:
            assert f"seven=={wanted} ; sys_platform == 'win32'" in file.read_text("utf-8")
            assert "iniconfig==" in file.read_text("utf-8")
    assert file.read_text("utf-8") == "seven==3.0\n"
    assert "pip found no package index" in capsys.readouterr().err
