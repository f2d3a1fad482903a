"""Composing a shard's ONNX model from graph fragments, byte by byte.

A protobuf message is a list of (field number, value) pairs in any order, and of a repeated field all
occurrences count. So the graph of units [s, e) is the concatenation of their fragments, the declarations of
the inputs they share, and the entry and exit tensors: no `onnx` package is needed, which a phone cannot
install. Field numbers: onnx.proto3; encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from swisd.core.errors import ModelError
from swisd.core.model import Manifest

FLOAT = 1  # TensorProto.DataType
VARINT, BYTES = 0, 2  # wire types


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    return varint(field << 3 | VARINT) + varint(value)


def message(field: int, data: bytes | str) -> bytes:
    """A nested message, a text or bytes."""
    raw = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | BYTES) + varint(len(raw)) + raw


def value_info(name: str, *shape: str | int) -> bytes:
    """A ValueInfoProto of a float32 tensor; a text in `shape` is a free dimension."""
    dims = b"".join(message(1, message(2, d) if isinstance(d, str) else integer(1, d)) for d in shape)
    return message(1, name) + message(2, message(1, integer(1, FLOAT) + message(2, dims)))


def _version(value: object) -> int:
    """A version number of a graph. Raises `TypeError` or `ValueError`."""
    if not isinstance(value, int) or not 0 < value < 1 << 31:
        raise ValueError(f"{value!r} is no version")
    return value


def compose(manifest: Manifest, start: int, end: int, graph: bytes) -> bytes:
    """The serialised ModelProto of units `[start, end)`; `graph` is the content of the manifest's graph blob.

    Its inputs are `ids` (start 0) or `h{start}`; with layers also `steps`, `seqlens_k`,
    `total_sequence_length`, `cos*`, `sin*` and the KV buffers `k{i}`, `v{i}`; with the head also `rows`. Its
    output is `h{end}` or `logits`, besides `k{i}_out`, `v{i}_out`.
    """
    config = manifest.config
    pieces = []
    try:
        for kind in dict.fromkeys(unit.kind for unit in manifest.units[start:end]):
            offset, length = config["common"][kind]
            pieces.append(graph[offset : offset + length])
        opsets = [(str(domain).encode(), _version(version)) for domain, version in config["opset"].items()]
        ir_version = _version(config["ir_version"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"manifest of {manifest.model_id}: graph settings are damaged ({error!r})") from None
    for unit in manifest.units[start:end]:
        offset, length = unit.fragment
        pieces.append(graph[offset : offset + length])
    if start > 0:
        pieces.append(message(11, value_info(f"h{start}", "rows", manifest.hidden)))
    if end < manifest.n_units:
        pieces.append(message(12, value_info(f"h{end}", "rows", manifest.hidden)))
    else:
        pieces.append(message(12, value_info("logits", "wanted", manifest.vocab)))
    pieces.append(message(2, f"units {start} to {end}"))
    model = integer(1, ir_version) + message(2, "swisd")
    for domain, version in opsets:
        model += message(8, (message(1, domain) if domain else b"") + integer(2, version))
    return model + message(7, b"".join(pieces))
