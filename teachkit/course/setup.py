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

ROOT = Path(__file__).resolve().parents[2]
NEEDED_GB = 3.0  # the finished .venv is about 1.6 GB; pip unpacks wheels beside it
NETWORK = re.compile(
    r"connection|timed? ?out|resolve|resolution|unreachable|proxy|ssl|"
    r"no matching distribution|could not find a version",
    re.IGNORECASE,
)
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}


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


class Environment:
    """The course's own virtual environment in ``root/.venv``, beside environment.yml."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.stamp = self.venv / "course.json"
        self.options, self.packages = requirements((root / "environment.yml").read_text("utf-8"))
        self.torch = [line for line in self.packages if re.match(r"torch\b", line)]

    def wanted(self) -> str:
        """What the stamp says of a finished environment: its place and what it was made from."""
        made_from = [str(self.venv), *self.options, *self.packages]
        made_from.append((self.root / "pyproject.toml").read_text("utf-8"))
        return json.dumps({"sha256": hashlib.sha256("\n".join(made_from).encode()).hexdigest()})

    def ready(self) -> bool:
        """True when the set-up was finished from today's environment.yml and its Python starts."""
        return self._stamped(self.stamp) and self._starts()

    def ensure(self) -> None:
        """Create or complete the environment; a no-op when it is ready."""
        if self.ready():
            return
        print(f"Setting up {self.venv} (once; a few minutes).", flush=True)
        self._check_disk()
        self.stamp.unlink(missing_ok=True)
        if not self._starts("-m", "pip", "--version"):
            self._create()
        # torch comes first and alone: with it in place no later step looks for another build of it.
        self._pip("install", *self._index_for(self.torch), *self.torch)
        self._pip("install", *(word for line in self.packages for word in line.split()))
        # JupyterLab's news pop-up is the one thing a learner would have to click away.
        settings = self.venv / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
        files.replace(settings, json.dumps(SETTINGS, indent=1))
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
        pinned = [line for line in self.packages if not line.startswith("-e")]
        self._pip("install", *self._index_for(self.torch), *pinned, "-e", f".[{extra}]")
        files.replace(stamp, self.wanted())

    def _stamped(self, stamp: Path) -> bool:
        with contextlib.suppress(OSError):
            return stamp.read_text("utf-8") == self.wanted()
        return False

    def _starts(self, *arguments: str) -> bool:
        """True when the environment's Python runs with these arguments."""
        command = [str(self.python), *(arguments or ("-c", ""))]
        with contextlib.suppress(OSError):
            return subprocess.run(command, capture_output=True, cwd=self.root).returncode == 0
        return False

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
            done = subprocess.run(
                [str(self.python), "-m", "pip", *dry, *torch], capture_output=True, cwd=self.root
            )
            if done.returncode == 0:
                wheels = json.loads(report.read_text("utf-8"))["install"]
                if all("+cpu" in wheel["metadata"]["version"] for wheel in wheels):
                    return []
        return self.options

    def _pip(self, *arguments: str) -> None:
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments, *quiet]
        print("$", *command, flush=True)
        process = subprocess.Popen(
            command, cwd=self.root, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        said = []
        assert process.stderr is not None  # noqa: S101 -- it is a pipe, by the line above
        for line in process.stderr:
            said.append(line)
            print(line, end="", file=sys.stderr, flush=True)
        if process.wait():
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
        return (
            "pip found no package index that has these packages. Check the network, or point pip at "
            f"a mirror with PIP_INDEX_URL, then {again}"
        )
    return (
        "pip failed; its last lines above say why. Run the same command again; "
        "if it fails again, delete the folder .venv first."
    )
