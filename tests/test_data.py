"""Data: every byte, the published rules, and a download that survives bad mirrors."""

import gzip
import hashlib
import http.server
import re
import shutil
import threading
from typing import ClassVar

import numpy as np
import oracles
import pytest
import torch

from teachkit.lab import data


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
    zip(data.MNIST_SHA256, map(oracles.idx, (IMAGES, LABELS, IMAGES[:2], LABELS[:2])), strict=True)
)
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Mirror(http.server.BaseHTTPRequestHandler):
    """One server, many mirrors: the first part of the path says how it misbehaves."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        way, name = re.fullmatch(r"/(\w+)/(.*)\.gz", self.path).groups()
        self.asked.append(way)
        body = gzip.compress(CONTENT[name])
        if way == "missing":
            self.send_error(404)
            return
        if way == "wrong":
            body = gzip.compress(CONTENT[name][::-1])
        if way == "truncated":
            body = body[:-9]
        if way == "garbage":
            body = b"\x1f\x8b" + body[5:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: 10 if way == "dropped" else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.delenv("TEACHKIT_DATA", raising=False)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(Mirror, "asked", [])
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_good_mirror_is_asked_once(server):
    for _ in range(2):
        assert data.mnist_files([f"{server}/good/"], HASHES) == CONTENT
    assert Mirror.asked == ["good"] * 4


@pytest.mark.parametrize("way", ["missing", "wrong", "truncated", "garbage", "dropped"])
def test_a_bad_mirror_is_passed_over(server, way, tmp_path):
    assert data.mnist_files([f"{server}/{way}/", f"{server}/good/"], HASHES) == CONTENT
    left = sorted(path.name for path in (tmp_path / "teachkit" / "mnist").iterdir())
    assert left == sorted(CONTENT)  # no part of a failed download stays


def test_a_damaged_cache_is_fetched_again(server, tmp_path):
    data.mnist_files([f"{server}/good/"], HASHES)
    (tmp_path / "teachkit" / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"rot")
    assert data.mnist_files([f"{server}/good/"], HASHES) == CONTENT
    assert len(Mirror.asked) == 5


def test_no_mirror_names_both_ways_out(server, tmp_path):
    closed = "http://127.0.0.1:9/"
    with pytest.raises(data.DataError, match="connect to the internet") as error:
        data.mnist_files([closed, f"{server}/wrong/"], HASHES)
    for says in ("TEACHKIT_DATA", closed, "has the sha256"):
        assert says in str(error.value)
    assert list((tmp_path / "teachkit" / "mnist").iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_ones_own(packed, tmp_path, monkeypatch):
    for name, content in CONTENT.items():
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setenv("TEACHKIT_DATA", str(tmp_path))
    monkeypatch.setattr(data, "MNIST_SHA256", HASHES)
    monkeypatch.setattr(data.mnist_files.__wrapped__, "__defaults__", ((), HASHES))
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
