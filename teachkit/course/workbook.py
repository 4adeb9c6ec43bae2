"""Working copies of the notebooks, in the learner's folder: theirs, so that nothing of ours overwrites them.

``python -m teachkit lab`` calls it. A lesson without a copy is copied. When the course has changed a
lesson since, a copy that is still, byte for byte, what was copied is renewed; beside any other one
the new version is laid as ``02_taylor-new.ipynb``. ``--reset 02`` brings the course's own version
back and keeps the learner's under a name with the date.

A manifest in the folder says which version each copy was made from. Where it is lost or does not
say, a notebook counts as the learner's own. Two programs take turns by a lock; each step leaves
everything of the learner's under some name, so that it may be interrupted anywhere.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from teachkit.core import files, places
from teachkit.course import jupyter, keeping, manifest
from teachkit.course.manifest import Entry, Manifest, digest

LOCK = ".course.lock"
# What a killed program of ours has left half written; what a kernel is writing has other names.
PART = re.compile(rf"\.(\d\d_.+\.ipynb|{re.escape(manifest.NAME)})\.[0-9a-f]{{32}}\.part")
WAIT = 60.0  # seconds for another program to finish


class WorkError(Exception):
    """The folder cannot be used; the message says what the reader can do about it."""


class Workbook:
    """The learner's folder beside the course's notebooks; ``said`` is what there is to tell."""

    def __init__(self, folder: Path, notebooks: Path) -> None:
        self.folder = folder
        self.originals = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
        self.said: list[str] = []

    def update(self) -> None:
        """Copy what is missing, renew what is untouched, lay new versions beside all else."""
        with self._alone():
            for original in self.originals:
                self._update(original.name, original.read_bytes())

    def reset(self, numbers: Sequence[str]) -> None:
        """Bring the course's versions of these lessons back; the learner's are kept beside them."""
        chosen = [self._find(number) for number in numbers]
        with self._alone():
            for original in chosen:
                self._reset(original.name, original.read_bytes())

    def _find(self, number: str) -> Path:
        word = number.removesuffix(".ipynb")
        for path in self.originals:
            if word and word.zfill(2) in (path.stem, path.stem[:2]):
                return path
        there = ", ".join(path.stem for path in self.originals)
        raise WorkError(f"There is no lesson {number!r} to reset; there are {there}.")

    # One notebook --------------------------------------------------------------------------------

    def _update(self, name: str, ours: bytes) -> None:
        path, known, new = self.folder / name, self.known[name], digest(ours)
        if not os.path.lexists(path):
            self._create(path, ours)
            self.known[name] = Entry(new)
        elif not path.is_file():
            self.said.append(f"{path} is no notebook: lesson {name[:2]} was not copied.")
        elif (mine := digest(path.read_bytes())) == new:
            self.known[name] = Entry(new)
        elif new in (known.copied, known.offered):
            pass  # what the learner has was made from it, or they know of it
        elif mine == known.copied and not path.is_symlink():
            self._renew(path, ours, known.copied)
            self.known[name] = Entry(new)
        else:
            beside = self._beside(path, ours, known)
            self.known[name] = known._replace(offered=new, beside=beside.name)
            self.said.append(
                f"{name}: the course has a new version. Yours stays as it is; the new one lies "
                f"beside it as {beside.name}."
            )

    def _beside(self, path: Path, ours: bytes, known: Entry) -> Path:
        """Where the new version lies now: an untouched older one gives way to it, no other does."""
        for place in keeping.names(path, "new"):
            if not os.path.lexists(place):
                self._create(place, ours)
                return place
            there = place.read_bytes() if place.is_file() and not place.is_symlink() else b""
            if there == ours:
                return place
            if place.name == known.beside and digest(there) == known.offered:
                self._renew(place, ours, known.offered)
                return place
        raise AssertionError("names do not end")

    def _reset(self, name: str, ours: bytes) -> None:
        path, known = self.folder / name, self.known[name]
        if not os.path.lexists(path):
            self._create(path, ours)
            self.said.append(f"{name} is there again.")
        elif path.is_file() and path.read_bytes() == ours:
            self.said.append(f"{name} is the course's own version already.")
        else:
            kept = self._replace(path, ours)
            self.said.append(
                f"{name} is the course's own version again; yours is kept as {kept.name}."
            )
            self._keep_cut_off(path)
        self.known[name] = Entry(digest(ours))
        beside = self.folder / known.beside
        if known.beside and beside.is_file() and beside.read_bytes() == ours:
            beside.unlink()

    def _keep_cut_off(self, path: Path) -> None:
        """Keep what JupyterLab put aside for a save that was cut off; its next save would take it."""
        aside = path.with_name(f".~{path.name}")
        if aside.is_file():
            kept = keeping.keep(aside, path)
            aside.unlink()
            self.said.append(f"A save of it was cut off; what was there before is {kept.name}.")

    def _create(self, path: Path, ours: bytes) -> None:
        trust(ours)
        files.create(path, ours)

    def _renew(self, path: Path, ours: bytes, old: str) -> None:
        """Replace a copy that is as it was; what a save in this moment has made of it is kept."""
        kept = self._replace(path, ours)
        if digest(kept.read_bytes()) == old:
            kept.unlink()
        else:
            self.said.append(f"{path.name} is new; yours is kept as {kept.name}.")

    def _replace(self, path: Path, ours: bytes) -> Path:
        trust(ours)
        return keeping.replace(path, ours)

    # The folder ----------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other program does the same; an error of the disk becomes a sentence."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / LOCK, timeout=WAIT):
                for part in self.folder.iterdir():
                    if PART.fullmatch(part.name):
                        part.unlink()
                self.known = Manifest(self.folder)
                yield
        except Timeout:
            raise WorkError(
                f"Another program has been preparing {self.folder} for {WAIT:.0f} seconds. "
                "Wait for it, or end it, then run the same command again."
            ) from None
        except OSError as error:
            raise WorkError(self._advice(error)) from error

    def _advice(self, error: OSError) -> str:
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            return (
                f"{self.folder} is no folder, but your notebooks belong there. Give it another name, "
                f"or name another folder in the variable {places.VARIABLE}; then run the same command "
                "again."
            )
        return (
            f"Your notebooks could not be prepared in {self.folder}: {error}. Nothing of yours is "
            "lost. Look at the free space and the permissions of the folder, then run the same "
            "command again."
        )


def trust(content: bytes) -> None:
    """Sign a notebook of the course, so that JupyterLab shows its saved outputs whole.

    Where the user's database of signatures cannot be written, they are whole after the first run.
    """
    with suppress(Exception):
        import nbformat  # takes a second, and is seldom needed
        from nbformat.sign import NotebookNotary

        NotebookNotary().sign(nbformat.reads(content.decode(), as_version=4))


def prepare(course: Path, numbers: Sequence[str] = ()) -> bool:
    """Make the learner's folder ready and say what there is to say; False if there is nothing to open."""
    folder = places.work(course)
    if folder is None:
        if numbers:
            print(f"{places.VARIABLE} is empty: there are no notebooks of yours.", file=sys.stderr)
        return not numbers
    book = Workbook(folder, course / "notebooks")
    try:
        if numbers:
            book.reset(numbers)
        book.update()
        jupyter.lay_out(folder)
    except WorkError as error:
        print(f"\n{error}", file=sys.stderr)
        return not numbers and os.path.isfile(folder / jupyter.START)
    finally:
        print(*book.said, sep="\n", end="\n" if book.said else "", flush=True)
    return True


def main(arguments: Iterable[str]) -> int:
    """What ``python -m teachkit lab`` does before it opens JupyterLab."""
    parser = argparse.ArgumentParser("python -m teachkit.course.workbook", description=__doc__)
    parser.add_argument("--reset", nargs="+", default=[], metavar="NN", action="extend")
    given = parser.parse_args(list(arguments))
    course = places.root()
    if course is None:
        print(
            "There is no course here to copy notebooks from: this is the package alone.",
            file=sys.stderr,
        )
        return 1
    return 0 if prepare(course, given.reset) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
