"""The npm packages that pages without a network need: kept in ``vendor``, each file with its sha256.

They are vendored, not fetched: decks are made where there is no internet, and a test needs no registry.
"""

import hashlib
import tomllib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("vendor")


class VendorError(Exception):
    """A vendored file is missing, or not the one that the package has."""


@cache
def manifest(folder: Path = FOLDER) -> dict[str, str]:
    """The sha256 of each file by its path, e.g. "mathjax/es5/tex-svg.js".

    >>> len(manifest()["mathjax/es5/tex-svg.js"])
    64
    """
    packages = tomllib.loads((folder / "vendor.toml").read_text("utf-8"))["package"]
    return {f"{p['name']}/{name}": sha for p in packages for name, sha in p["files"].items()}


def read(name: str, folder: Path = FOLDER) -> str:
    """The text of one file, which must be the one that the package has."""
    known = manifest(folder)
    if name not in known:
        raise VendorError(f"no vendored file {name!r}; there are {', '.join(known)}")
    path = folder / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != known[name]:
        raise VendorError(f"{path} is missing or was changed; bring it back with git checkout")
    return content.decode()


def script(name: str, folder: Path = FOLDER) -> str:
    """A script that can stand within a page: nothing in it ends or hides the element around it."""
    return read(name, folder).replace("</script", "<\\/script").replace("<!--", "<\\!--")
