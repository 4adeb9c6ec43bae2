"""Make ``.venv`` from environment.yml: quick when it stands, repaired when it is half made.

Standard library only, because this runs before anything is installed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from teachkit.core import files
from teachkit.course import jupyter, processes

ROOT = Path(__file__).resolve().parents[2]
NEEDED_GB = 3.0  # the finished .venv is about 1.6 GB; pip unpacks wheels beside it
NETWORK = re.compile(
    r"connection|timed? ?out|resolve|resolution|unreachable|proxy|ssl|"
    r"no matching distribution|could not find a version",
    re.IGNORECASE,
)
MISSING = """
import sys
from importlib.metadata import PackageNotFoundError, version
for line in sys.argv[1:]:
    name, _, wanted = line.partition("==")
    if line[0] != "-":
        try:
            if wanted and version(name).partition("+")[0] != wanted:
                print(line)
            version(name)
        except PackageNotFoundError:
            print(line)
"""  # run by the environment's Python: which of these requirements does it not have?


class SetupError(Exception):
    """The set-up cannot go on; the message says what the reader can do about it."""


def requirements(text: str) -> tuple[list[str], list[str]]:
    r"""Split the pip list of an environment.yml into its option lines and its requirements.

    >>> requirements("  - pip:\n      - --extra-index-url u  # why\n      - a==1\n")
    (['--extra-index-url', 'u'], ['a==1'])
    """
    block = re.search(r"^ *- pip:\n((?: {4,}(?:- .+|#.*)(?:\n|$))+)", text, re.MULTILINE)
    if not block:
        raise SetupError("environment.yml has no '- pip:' list; restore it with git checkout.")
    lines = re.findall(r"^ *- (.+?) *(?: #.*)?$", block.group(1), re.MULTILINE)
    options = [word for line in lines if line.startswith("--") for word in line.split()]
    return options, [line for line in lines if not line.startswith("--")]


def course(package: Path = ROOT, here: Path | None = None) -> Path:
    """The folder of the course: where the package stands, else the working folder or one above it."""
    here = here or Path.cwd()
    for folder in (package, here, *here.parents):
        if all(
            (folder / name).exists() for name in ("environment.yml", "pyproject.toml", "notebooks")
        ):
            return folder
    raise SetupError(
        f"teachkit is installed in {package} without its course, and neither {here} nor a folder above "
        "it is one. Go to the folder of the course, which holds environment.yml, and run it there."
    )


class Environment:
    """The course's own virtual environment in ``root/.venv``, beside environment.yml.

    Every version is bound by the file that its ``-c`` names, unless it is not to be ``constrained``.
    """

    def __init__(self, root: Path = ROOT, *, constrained: bool = True) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.stamp = self.venv / "course.json"
        self.options, self.packages = requirements((root / "environment.yml").read_text("utf-8"))
        bounds = [line for line in self.packages if line.startswith("-c")]
        if not constrained:
            self.packages = [line for line in self.packages if line not in bounds]
        self.bounds = [word for line in bounds for word in line.split()] if constrained else []
        self.torch = [line for line in self.packages if re.match(r"torch\b", line)]

    def wanted(self) -> str:
        """What the stamp says of a finished environment: its place and what it was made from."""
        made_from = [str(self.venv), *self.options, *self.packages]
        for name in ("pyproject.toml", *self.bounds[1::2]):
            made_from.append((self.root / name).read_text("utf-8"))
        return json.dumps({"sha256": hashlib.sha256("\n".join(made_from).encode()).hexdigest()})

    def ready(self) -> bool:
        """True when the set-up was finished from today's environment.yml and its Python starts."""
        return self._stamped(self.stamp) and self._starts()

    def ensure(self) -> None:
        """Create or complete the environment; a no-op when it is ready."""
        if self.ready():
            jupyter.settle(self.venv)  # they may be newer than the environment
            return
        print(f"Setting up {self.venv} (once; a few minutes).", flush=True)
        self._check_disk()
        self.stamp.unlink(missing_ok=True)
        if not self._starts("-m", "pip", "--version"):
            self._create()
        # torch comes first and alone: with it in place no later step looks for another build of it.
        self.pip("install", *self._index_for(self.torch), *self.bounds, *self.torch)
        self.pip("install", *(word for line in self.packages for word in line.split()))
        self._verify()
        jupyter.settle(self.venv)
        files.replace(self.stamp, self.wanted())
        print("The set-up is done.", flush=True)

    def ensure_extra(self, extra: str) -> None:
        """Install an optional group of pyproject.toml; a no-op when it was installed before.

        All pinned packages are named again, so that a peer's wish for another torch gives way to ours.
        """
        stamp = self.venv / f"course-{extra}.json"
        if self._stamped(stamp):
            return
        print(f"Installing the optional group '{extra}' of pyproject.toml (once).", flush=True)
        pinned = [word for line in self.packages if line[:2] != "-e" for word in line.split()]
        self.pip("install", *self._index_for(self.torch), *pinned, "-e", f".[{extra}]")
        files.replace(stamp, self.wanted())

    def _stamped(self, stamp: Path) -> bool:
        with contextlib.suppress(OSError):
            return stamp.read_text("utf-8") == self.wanted()
        return False

    def _starts(self, *arguments: str) -> bool:
        """True when the environment's Python runs with these arguments."""
        command = [str(self.python), *(arguments or ("-c", ""))]
        with contextlib.suppress(OSError):
            return self._run(*command).returncode == 0
        return False

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = processes.environment()
        return subprocess.run(command, capture_output=True, cwd=self.root, env=env, text=True)

    def _verify(self) -> None:
        """Look whether pip did what it was told: a setting of its own may send packages elsewhere."""
        done = self._run(str(self.python), "-I", "-c", MISSING, *self.packages)
        if done.stdout or done.returncode:
            settings = self._run(str(self.python), "-m", "pip", "config", "list").stdout
            lacks = ", ".join(done.stdout.split()) or done.stderr.strip()
            raise SetupError(
                f"pip said that it is done, but {self.venv} lacks {lacks}. Settings of pip may send "
                f"packages elsewhere or nowhere; take out what does, then run the same command "
                f"again.\n{settings}".rstrip()
            )

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.root).free / 1e9
        if free < NEEDED_GB and not self.venv.exists():
            raise SetupError(
                f"The set-up needs about {NEEDED_GB:.0f} GB of disk, and {self.root} has "
                f"{free:.1f} GB free. Free some space and run the same command again."
            )

    def _create(self) -> None:
        try:
            import venv

            venv.create(self.venv, with_pip=True, clear=True)
        except (ImportError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"{sys.executable} cannot make a virtual environment with pip ({error}). "
                "On Debian or Ubuntu install it with 'sudo apt install python3-venv'; elsewhere "
                "install Python from https://www.python.org/downloads/. Then run the same command again."
            ) from error
        except OSError as error:
            raise SetupError(
                f"{self.venv} cannot be written: {error}. Check the permissions of the folder and "
                "the free space, then run the same command again."
            ) from error

    def _index_for(self, torch: list[str]) -> list[str]:
        """The extra index is needed on Linux only, where the default torch brings CUDA along."""
        if not sys.platform.startswith("linux"):
            return []
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            dry = ["install", "--quiet", "--dry-run", "--no-deps", "--report", str(report)]
            done = self._run(str(self.python), "-m", "pip", *dry, *torch)
            if done.returncode == 0:
                wheels = json.loads(report.read_text("utf-8"))["install"]
                if all("+cpu" in wheel["metadata"]["version"] for wheel in wheels):
                    return []
        return self.options

    def pip(self, *arguments: str) -> None:
        """Run pip in the environment; a SetupError says what to do when it fails."""
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments, *quiet]
        print("$", *command, flush=True)
        said: list[str] = []

        def hear(line: str) -> None:
            said.append(line)
            print(line, end="", file=sys.stderr, flush=True)

        status = processes.call(command, self.root, processes.environment(), hear)
        if status > 128:  # a signal ended it
            raise KeyboardInterrupt
        if status:
            raise SetupError(explain("".join(said)))


def explain(said: str) -> str:
    """One sentence of advice for what pip printed before it failed.

    >>> explain("OSError: [Errno 28] No space left on device")[:15]
    'The disk filled'
    """
    again = "run the same command again; it goes on from here."
    if "No space left" in said or "Errno 28" in said:
        return f"The disk filled up. Free about 3 GB and {again}"
    if NETWORK.search(said):
        newer = "Requires-Python" in said
        return (
            "pip found no package index that has these packages. Check the network, or point pip at "
            f"a mirror with PIP_INDEX_URL, then {again}"
            + newer
            * " Or they are not made for this Python: environment.yml names one that they are."
        )
    return (
        "pip failed; its last lines above say why. Run the same command again; "
        "if it fails again, delete the folder .venv first."
    )
