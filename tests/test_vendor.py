"""What is vendored is what the npm packages hold: each file, its licence, nothing besides."""

import base64
import shutil
import tomllib

import pytest

from teachkit.course import vendored

PACKAGES = tomllib.loads((vendored.FOLDER / "vendor.toml").read_text("utf-8"))["package"]


@pytest.mark.parametrize("name", sorted(vendored.manifest()))
def test_a_file_is_the_one_of_its_package(name):
    assert vendored.read(name)


def test_nothing_stands_there_that_the_manifest_does_not_name():
    there = {
        p.relative_to(vendored.FOLDER).as_posix() for p in vendored.FOLDER.rglob("*") if p.is_file()
    }
    assert there == {*vendored.manifest(), "vendor.toml"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p["name"])
def test_a_package_says_where_it_is_from(package):
    name, version = package["name"], package["version"]
    assert package["tarball"] == f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz"
    kind, _, digest = package["integrity"].partition("-")
    assert (kind, len(base64.b64decode(digest, validate=True))) == ("sha512", 64)
    assert package["license"] in ("MIT", "Apache-2.0")
    assert "LICENSE" in package["files"]


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(vendored.FOLDER, tmp_path / "vendor")
    return tmp_path / "vendor"


def test_a_changed_and_a_lost_file_are_refused_by_name(folder):
    path = folder / "reveal.js" / "dist" / "reveal.css"
    path.write_text(path.read_text("utf-8") + " ", "utf-8")
    with pytest.raises(vendored.VendorError, match=r"reveal\.css is missing or was changed"):
        vendored.read("reveal.js/dist/reveal.css", folder)
    path.unlink()
    with pytest.raises(vendored.VendorError, match=r"reveal\.css is missing or was changed"):
        vendored.read("reveal.js/dist/reveal.css", folder)


def test_an_unknown_file_is_refused_with_those_that_there_are():
    with pytest.raises(vendored.VendorError, match=r"no vendored file '\.\./x'.*mathjax/es5"):
        vendored.read("../x")


@pytest.mark.parametrize("name", [n for n in vendored.manifest() if n.endswith(".js")])
def test_a_script_does_not_end_the_element_that_holds_it(name):
    text = vendored.script(name)
    assert "</script" not in text
    assert "<!--" not in text
