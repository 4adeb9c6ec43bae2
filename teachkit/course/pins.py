"""Write constraints.txt: the version of every package of the environment, so that none drifts in years.

``python -m teachkit pins``. environment.yml pins what the course itself asks for; what those packages
ask for in turn is bound by constraints.txt, which the set-up, conda and Binder read through the line
``-c constraints.txt`` of environment.yml. For newer versions change environment.yml, delete ``.venv``
and run the command.

The versions are those installed here. What only another system or another Python needs, pip looks up
in the package index without installing it; it stands there with the condition under which it is needed.
"""

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import distributions
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from teachkit.core import files
from teachkit.course.setup import ROOT, Environment, SetupError

FILE = ROOT / "constraints.txt"
HEAD = "# Written by `python -m teachkit pins`; environment.yml reads it by its line `-c constraints.txt`.\n"
OURS = {"teachkit", "pip"}  # ourselves, and what a virtual environment brings along
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
WHEELS = {
    "linux": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "darwin": ("macosx_14_0_arm64", "macosx_11_0_arm64"),
    "win32": ("win_amd64",),
}


class Target(NamedTuple):
    """A machine of a learner."""

    system: str
    python: str

    @property
    def first(self) -> str:
        """The oldest of its Pythons, which some distributions still carry: Debian 12 has 3.11.2."""
        return f"{self.python}.0"

    def environment(self) -> dict[str, str]:
        """What a requirement's condition may ask of it."""
        return {key: str(value) for key, value in default_environment().items()} | {
            "sys_platform": self.system,
            "platform_system": SYSTEMS[self.system],
            "os_name": "nt" if self.system == "win32" else "posix",
            "platform_machine": "arm64" if self.system == "darwin" else "x86_64",
            "python_version": self.python,
            "python_full_version": self.first,
        }


class Package(NamedTuple):
    """A version, what it asks for, and for which Pythons it is (all, if it says nothing)."""

    version: str
    requires: list[str]
    pythons: str = ""


TARGETS = [Target(*each) for each in product(SYSTEMS, PYTHONS)]
LookUp = Callable[[Requirement, Target], Package]


def installed() -> dict[str, Package]:
    """Every package of the running environment but ourselves and pip, by its normalized name."""
    packages = {
        canonicalize_name(each.name): Package(
            public(each.version),
            each.requires or [],
            str(each.metadata.json.get("requires_python", "")),
        )
        for each in distributions()
    }
    return {name: package for name, package in packages.items() if name not in OURS}


def public(version: str) -> str:
    """A version without its local label, which only one index has.

    >>> public("2.13.0+cpu")
    '2.13.0'
    """
    return version.partition("+")[0]


def roots() -> list[str]:
    """What is asked for by name: environment.yml, and every optional group of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [line for line in Environment().packages if not line.startswith("-")] + optional


def closure(
    lines: Iterable[str],
    known: dict[str, Package],
    look_up: LookUp,
    targets: list[Target] = TARGETS,
) -> tuple[dict[str, Package], dict[str, set[Target]]]:
    """All packages that these requirements bring along, and which targets need each."""
    packages, needed = dict(known), {name: set[Target]() for name in known}
    for target in targets:
        environment, seen = target.environment(), set()
        waiting = [(line, "") for line in lines]
        while waiting:
            line, extra = waiting.pop()
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate(environment | {"extra": extra}):
                continue
            name = canonicalize_name(wanted.name)
            if name not in packages:
                packages[name] = look_up(wanted, target)
            if target.first not in SpecifierSet(packages[name].pythons):
                raise SetupError(
                    f"{name} {packages[name].version} is for Python {packages[name].pythons}, and not "
                    f"for {target.first}. Bind an older version in environment.yml."
                )
            needed.setdefault(name, set()).add(target)
            for asked in {"", *wanted.extras}:
                if (name, asked) not in seen:
                    seen.add((name, asked))
                    waiting += [(line, asked) for line in packages[name].requires]
    return packages, needed


def condition(needed: set[Target], targets: list[Target] = TARGETS) -> str:
    """The marker that holds on these targets; a constraint that holds on more does no harm.

    >>> condition({Target("win32", version) for version in PYTHONS})
    "sys_platform == 'win32'"
    """
    parts = []
    systems, others = ({t.system for t in group} for group in (needed, set(targets) - needed))
    if needed and len(systems) == 1 and systems != {t.system for t in targets}:
        parts.append(f"sys_platform == {min(systems)!r}")
    elif needed and len(others - systems) == 1:
        parts.append(f"sys_platform != {min(others - systems)!r}")
    pythons = sorted({t.python for t in needed})
    if pythons and pythons[-1] != PYTHONS[-1]:
        parts.append(f"python_version <= {pythons[-1]!r}")
    if pythons and pythons[0] != PYTHONS[0]:
        parts.append(f"python_version >= {pythons[0]!r}")
    return " and ".join(parts)


def read(text: str) -> dict[str, str]:
    r"""The versions that a file of constraints names, by normalized name.

    >>> read("# why\na==1 ; sys_platform == 'win32'\n")
    {'a': '1'}
    """
    lines = [re.match(r"([^#\s=]+)==([^\s;]+)", line) for line in text.splitlines()]
    return {canonicalize_name(found[1]): found[2] for found in lines if found}


def write(packages: dict[str, Package], needed: dict[str, set[Target]]) -> str:
    """The text of the file: a line for each package, in order."""
    lines = []
    for name, package in sorted(packages.items()):
        when = condition(needed[name])
        lines.append(f"{name}=={package.version}" + (f" ; {when}" if when else ""))
    return HEAD + "\n".join(lines) + "\n"


def from_index(environment: Environment, before: dict[str, str]) -> LookUp:
    """Ask pip what it would install here; a version that the file had ``before`` stays."""
    fixed = "".join(f"{name}=={package.version}\n" for name, package in installed().items())

    def look_up(wanted: Requirement, target: Target) -> Package:
        old = before.get(canonicalize_name(wanted.name))
        version = f"=={old}" if old and old in wanted.specifier else str(wanted.specifier)
        with tempfile.TemporaryDirectory() as folder:
            report, bounds = Path(folder) / "report.json", Path(folder) / "installed.txt"
            bounds.write_text(fixed, "utf-8")
            options = ["--dry-run", "--report", str(report), "-c", str(bounds)]
            if target != Target(sys.platform, "{}.{}".format(*sys.version_info)):
                options += ["--no-deps", "--only-binary=:all:", "--target", folder]
                options += ["--ignore-requires-python"]  # pip compares it with its own Python
                options += ["--python-version", target.python]
                options += [f"--platform={wheel}" for wheel in WHEELS[target.system]]
            environment.pip("install", *options, wanted.name + version)
            for each in json.loads(report.read_text("utf-8"))["install"]:
                metadata: dict[str, Any] = each["metadata"]
                if canonicalize_name(metadata["name"]) == canonicalize_name(wanted.name):
                    return Package(
                        public(metadata["version"]),
                        metadata.get("requires_dist", []),
                        metadata.get("requires_python", ""),
                    )
        raise SetupError(f"pip would not install {wanted}")

    return look_up


def main() -> int:
    """The command ``python -m teachkit pins``."""
    before = read(FILE.read_text("utf-8")) if FILE.exists() else {}
    environment = Environment(constrained=False)
    try:
        packages, needed = closure(roots(), installed(), from_index(environment, before))
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    files.replace(FILE, write(packages, needed))
    print(f"{FILE.name}: {len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
