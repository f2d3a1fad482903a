"""Files that are not what they should be end in one clear line, whatever their bytes."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swisd.core.errors import ModelError
from swisd.forge.gguf_file import GgufFile
from swisd.forge.importer import import_model
from tests.tiny_models import write_model


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_model(tmp_path_factory.mktemp("good") / "good.gguf", "llama", "Q4_0", layers=1).read_bytes()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*, version: int = 3, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short|cannot read"),
    "not gguf": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "old version": (header(version=1), "version 1"),
    "big endian": (header(version=3 << 24), "version"),
    "absurd counts": (header(tensors=1 << 60), "announced"),
    "key past the end": (header(keys=1, rest=struct.pack("<Q", 1 << 62)), "damaged"),
    "array past the end": (
        header(keys=1, rest=text("a") + struct.pack("<IIQ", 9, 4, 1 << 61) + bytes(64)),
        "damaged",
    ),
    "arrays in arrays": (
        header(keys=1, rest=text("a") + struct.pack("<IIQIQIQ", 9, 9, 1, 9, 1, 9, 1) + bytes(64)),
        "damaged",
    ),
    "no such value type": (
        header(keys=1, rest=text("a") + struct.pack("<I", 77) + bytes(8)),
        "value type 77",
    ),
    "tensor past the end": (header(tensors=1, rest=entry("w", (1024, 1024), 0)), "truncated"),
    "tensor far past the end": (header(tensors=1, rest=entry("w", (32,), 0, 1 << 63)), "truncated"),
    "dimensions that overflow": (header(tensors=1, rest=entry("w", (1 << 63, 1 << 63), 0)), "shape"),
    "zero width": (header(tensors=1, rest=entry("w", (0, 4), 0)), "shape"),
    "five dimensions": (header(tensors=1, rest=entry("w", (1, 1, 1, 1, 1), 0)), "5 dimensions"),
    "no such tensor type": (header(tensors=1, rest=entry("w", (32,), 4444)), "w has type number 4444"),
    "type not read": (header(tensors=1, rest=entry("blk.0.x", (256,), 10)), "blk.0.x has type Q2_K"),
    "broken block": (header(tensors=1, rest=entry("w", (33,), 2)), "blocks of 32"),
    "listed twice": (header(tensors=2, rest=entry("w", (1,), 0) * 2 + bytes(256)), "twice"),
    "name that is no text": (
        header(tensors=1, rest=struct.pack("<Q", 2) + b"\xff\xfe" + bytes(64)),
        "UTF-8",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    content, words = CASES[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        GgufFile(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelError, match="cannot read"):
            GgufFile(path)


def test_a_truncated_download_is_named_before_anything_is_written(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(good[: len(good) * 2 // 3])
    with pytest.raises(ModelError, match=r"truncated.*fetch it again"):
        import_model(path, tmp_path / "out", model_id="x", licence=None)
    assert not (tmp_path / "out").exists()


def check(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(data)
    out = tmp_path / "out"
    try:
        import_model(path, out, model_id="x", licence=None)
    except ModelError as error:
        assert "\n" not in str(error)
    assert not out.exists() or not [p for p in out.iterdir() if p.name.startswith(".")]


FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(st.data())
def test_damaged_headers_raise_nothing_else(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 5500))
        damaged[at] = data.draw(st.integers(0, 255))
    check(bytes(damaged), tmp_path)


@FUZZ
@given(st.binary(max_size=300), st.integers(0, 5), st.integers(0, 5))
def test_random_headers_raise_nothing_else(tmp_path: Path, rest: bytes, tensors: int, keys: int) -> None:
    check(header(tensors=tensors, keys=keys, rest=rest), tmp_path)


def _drop(key: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(key, key[:-1] + b"_", 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop(b"llama.block_count"), "llama.block_count is missing"),
        (_drop(b"llama.embedding_length"), "llama.embedding_length is missing"),
        (_drop(b"token_embd.weight"), "lacks the tensor token_embd.weight"),
        (_drop(b"blk.0.attn_q.weight"), "lacks the tensor blk.0.attn_q.weight"),
        (_drop(b"output_norm.weight"), "lacks the tensor output_norm.weight"),
        (_drop(b"tokenizer.ggml.model"), "tokenizer.ggml.model"),
        (
            lambda data: data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1),
            "'mamba'.*llama, qwen2",
        ),
    ],
)
def test_what_is_missing_is_named(
    good: bytes, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / "changed.gguf"
    path.write_bytes(change(good))
    with pytest.raises(ModelError, match=words):
        import_model(path, tmp_path / "out", model_id="x", licence=None)
