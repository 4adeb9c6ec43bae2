"""Data: every byte, the published rules, and a download that survives bad mirrors."""

import contextlib
import gzip
import hashlib
import http.server
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import oracles
import pytest
import torch

from teachkit.lab import data, fetching


def test_digits_are_the_published_ones():
    found = data.digits()
    assert found.train[0].dtype == torch.float64
    labels = torch.cat([found.train[1], found.test[1]])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    values = torch.cat([found.train[0], found.test[0]]) * 16
    assert values.min() == 0
    assert values.max() == 16
    assert torch.equal(values, values.round())
    torch.set_default_dtype(torch.float32)
    assert data.digits().train[0].dtype == torch.float32


def test_readme_names_the_hash():
    text = (data.folder() / "README.md").read_text("utf-8")
    assert data.DIGITS_SHA256 in text
    assert all(sha256 in text for sha256 in data.MONKS_SHA256.values())


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_digits_are_refused(damage, tmp_path, monkeypatch):
    content = bytearray((data.folder() / "digits.npz").read_bytes())
    if damage == "flip":
        content[2000] ^= 1
    if damage != "delete":
        (tmp_path / "digits.npz").write_bytes(content[: -1 if damage == "truncate" else None])
    monkeypatch.setattr(data, "folder", lambda: tmp_path)
    with pytest.raises(
        data.DataError, match="git checkout" if damage == "delete" else "has the sha256"
    ):
        data.digits()


def test_monks_follow_the_published_rules():
    sizes = {1: (124, 216), 2: (169, 142), 3: (122, 228)}  # training rows; positive rows of all 432
    for k, (rows, positive) in sizes.items():
        train, test = data.monks(k)
        assert len(train[0]) == rows
        assert tuple(test[0].shape) == (432, 17)
        assert int(test[1].sum()) == positive
        assert (test[0].sum(1) == 6).all()
        assert len({tuple(row) for row in test[0].tolist()}) == 432
        true = {tuple(x): y for x, y in zip(test[0].tolist(), test[1].tolist(), strict=True)}
        pairs = zip(train[0].tolist(), train[1].tolist(), strict=True)
        wrong = sum(true[tuple(x)] != y for x, y in pairs)
        assert wrong == (6 if k == 3 else 0)  # the published noise
        assert len({tuple(row) for row in train[0].tolist()}) == rows
        assert torch.equal(data.monks(k).train[0], train[0])


def test_monks_have_the_published_shares_of_positive_rows():
    assert [int(data.monks(k).train[1].sum()) for k in (1, 2, 3)] == [62, 64, 60]


def test_damaged_monks_are_refused(tmp_path, monkeypatch):
    content = (data.folder() / "monks" / "monks-2.train").read_bytes()
    (tmp_path / "monks").mkdir()
    (tmp_path / "monks" / "monks-2.train").write_bytes(content.replace(b"\n1,", b"\n0,", 1))
    monkeypatch.setattr(data, "folder", lambda: tmp_path)
    with pytest.raises(data.DataError, match="has the sha256"):
        data.monks(2)
    with pytest.raises(data.DataError, match="git checkout"):
        data.monks(1)


@pytest.mark.parametrize("bad", [0, 4])
def test_other_monks_are_refused(bad):
    with pytest.raises(ValueError, match=f"k must be a whole number from 1 to 3, got {bad}"):
        data.monks(bad)


def test_xor_is_exclusive_or():
    x, y = data.xor().train
    assert y.tolist() == [int(a != b) for a, b in x.tolist()]


# --- MNIST, from small IDX files of our own ---------------------------------------------------

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 2], np.uint8)
CONTENT = dict(
    zip(fetching.MNIST, map(oracles.idx, (IMAGES, LABELS, IMAGES[:2], LABELS[:2])), strict=True)
)
WANTED = {
    name: fetching.Content(len(content), hashlib.sha256(content).hexdigest())
    for name, content in CONTENT.items()
}
BOMB = gzip.compress(bytes(1 << 27))  # 128 MB of zeros in 130 kB


class Mirror(http.server.BaseHTTPRequestHandler):
    """One server, many mirrors: the first part of the path says how it misbehaves."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        way, name = re.fullmatch(r"/(\w+)/(.*)\.gz", self.path).groups()
        self.asked.append(way)
        body = gzip.compress(CONTENT[name])
        if way == "slow":  # so that all have begun before one ends
            time.sleep(0.2)
        if way == "missing":
            self.send_error(404)
            return
        if way == "wrong":
            body = gzip.compress(CONTENT[name][::-1])
        if way == "truncated":
            body = body[:-9]
        if way == "garbage":
            body = b"\x1f\x8b" + body[5:]
        if way == "flipped":
            body = body[:12] + bytes([body[12] ^ 0xFF]) + body[13:]
        if way == "bomb":
            body = BOMB
        if way == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: 10 if way == "dropped" else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.delenv("TEACHKIT_DATA", raising=False)
    monkeypatch.setattr(fetching.pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(Mirror, "asked", [])
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_good_mirror_is_asked_once(server):
    for _ in range(2):
        assert fetching.mnist_files([f"{server}/good/"], WANTED) == CONTENT
    assert Mirror.asked == ["good"] * 4


@pytest.mark.parametrize(
    "way", ["missing", "wrong", "truncated", "garbage", "flipped", "dropped", "bomb", "endless"]
)
def test_a_bad_mirror_is_passed_over(server, way, tmp_path):
    assert fetching.mnist_files([f"{server}/{way}/", f"{server}/good/"], WANTED) == CONTENT
    left = sorted(path.name for path in (tmp_path / "teachkit" / "mnist").iterdir())
    assert left == sorted(CONTENT)  # no part of a failed download stays


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_larger_than_the_file_is_not_unpacked(packed, tmp_path):
    """A gzip of 128 MB of zeros costs no memory to speak of."""
    path = tmp_path / "images"
    path.write_bytes(BOMB if packed else bytes(1 << 22))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="holds more than the 200 bytes of images"):
        fetching.uncompressed(path, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_sizes_are_those_of_the_published_shapes():
    sizes = [content.size for content in fetching.MNIST.values()]
    assert sizes == [16 + 60000 * 784, 8 + 60000, 16 + 10000 * 784, 8 + 10000]


def test_threads_may_fetch_at_once(server, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(fetching.mnist_files, [f"{server}/slow/"], WANTED) for _ in range(3)]
        assert [each.result() for each in work] == [CONTENT] * 3
    left = sorted(path.name for path in (tmp_path / "teachkit" / "mnist").iterdir())
    assert left == sorted(CONTENT)
    assert len(Mirror.asked) > 4  # they did meet


def test_programs_may_fetch_at_once(server, tmp_path):
    code = (
        "import sys, json, pathlib; from teachkit.lab import fetching\n"
        "fetching.pooch.os_cache = lambda name: pathlib.Path(sys.argv[1]) / name\n"
        "wanted = {k: fetching.Content(*v) for k, v in json.loads(sys.argv[3]).items()}\n"
        "print(len(fetching.mnist_files([sys.argv[2]], wanted)))"
    )
    arguments = [str(tmp_path), f"{server}/slow/", json.dumps(WANTED)]
    started = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [each.communicate(timeout=60)[0].split() for each in started] == [[b"4"]] * 3
    assert fetching.mnist_files([], WANTED) == CONTENT  # from the cache that they filled
    left = sorted(path.name for path in (tmp_path / "teachkit" / "mnist").iterdir())
    assert left == sorted(CONTENT)


def test_no_link_is_followed(server, tmp_path):
    """Neither where a part might lie, nor under the file's own name."""
    place, prey = tmp_path / "teachkit" / "mnist", tmp_path / "prey"
    place.mkdir(parents=True)
    prey.write_text("mine")
    for name in CONTENT:
        for link in (name, f"{name}.part", f"{name}.{os.getpid()}.part", f".{name}.part"):
            (place / link).symlink_to(prey)
    assert fetching.mnist_files([f"{server}/good/"], WANTED) == CONTENT
    assert prey.read_text() == "mine"
    assert not any((place / name).is_symlink() for name in CONTENT)


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    monkeypatch.setenv("TEACHKIT_DATA", f"~/{tmp_path.name}")
    assert fetching.mnist_files([], WANTED) == CONTENT
    monkeypatch.setenv("TEACHKIT_DATA", "~nobody-of-this-name/x")
    with pytest.raises(data.DataError, match="nobody-of-this-name"):
        fetching.mnist_files([], WANTED)


def test_a_damaged_cache_is_fetched_again(server, tmp_path):
    fetching.mnist_files([f"{server}/good/"], WANTED)
    (tmp_path / "teachkit" / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"rot")
    assert fetching.mnist_files([f"{server}/good/"], WANTED) == CONTENT
    assert len(Mirror.asked) == 5


def test_no_mirror_names_both_ways_out(server, tmp_path):
    closed = "http://127.0.0.1:9/"
    with pytest.raises(data.DataError, match="connect to the internet") as error:
        fetching.mnist_files([closed, f"{server}/wrong/"], WANTED)
    for says in ("TEACHKIT_DATA", closed, "has the sha256"):
        assert says in str(error.value)
    assert list((tmp_path / "teachkit" / "mnist").iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_ones_own(packed, tmp_path, monkeypatch):
    for name, content in CONTENT.items():
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setenv("TEACHKIT_DATA", str(tmp_path))
    monkeypatch.setattr(inspect.unwrap(fetching.mnist_files), "__defaults__", ((), WANTED))
    train, test = data.mnist()
    torch.testing.assert_close(train[0], torch.from_numpy(IMAGES / 255)[:, None])
    assert train[1].tolist() == [7, 0, 2]
    assert len(test[0]) == 2


def test_a_folder_without_the_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match="holds neither train-images-idx3-ubyte nor"):
        data.mnist()
    shutil.copy(data.folder() / "digits.npz", tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(data.DataError, match="has the sha256"):
        data.mnist()


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x02A", b"\0\0\x0d\x01\0\0\0\x01A"]
)
def test_what_is_not_idx_is_refused(content):
    with pytest.raises(data.DataError, match="labels is not an IDX file"):
        data.read_idx("labels", content)


def test_idx_is_its_oracle():
    assert torch.equal(data.read_idx("x", oracles.idx(IMAGES)), torch.from_numpy(IMAGES.copy()))
