"""What comes with a model from anywhere: join codes, manifests, tokenizers, templates, graphs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from swisd.core.errors import BadInput, ModelError
from swisd.core.model import MAX_UNITS, Manifest
from swisd.runtime.fake import fake_manifest
from swisd.text.chat import FALLBACK_TEMPLATE, render_chat
from swisd.text.stream import IncrementalDecoder
from swisd.text.tokenizer import load_tokenizer
from swisd.wire.joincode import JoinCode, parse_join_code
from tests.fuzz.mutate import Mutator

pytestmark = pytest.mark.timeout(3600)
KEY = bytes(range(16))


def test_join_codes(fuzz_count: int) -> None:
    mutator = Mutator(60)
    codes = [
        str(JoinCode(KEY, *where)).encode() for where in ((), ("192.168.1.20", 7947), ("fe80::1%eth0", 65535))
    ]
    for _ in range(fuzz_count):
        text = mutator.blob(mutator.random.choice(codes), codes).decode("utf-8", "surrogateescape")
        try:
            code = parse_join_code(text)
        except BadInput as error:
            assert "\n" not in str(error)
            continue
        assert len(code.key) == 16 and (code.port is None or 1 <= code.port <= 65535)
        assert parse_join_code(str(code)) == code


def test_manifests(fuzz_count: int) -> None:
    mutator = Mutator(61)
    sample = fake_manifest(layers=3).to_bytes()
    read = 0
    for _ in range(fuzz_count):
        try:
            manifest = Manifest.from_bytes(mutator.json(sample))
        except ModelError as error:
            assert len(str(error)) < 700
            continue
        read += 1
        assert 3 <= manifest.n_units <= MAX_UNITS
        manifest.blob_indices(0, manifest.n_units), manifest.resident_bytes(0, manifest.n_units)
        plain = replace(manifest, config={})  # what it holds is checked by who reads it
        assert Manifest.from_bytes(plain.to_bytes()) == plain
    assert 0 < read < fuzz_count


def tokenizers() -> list[bytes]:
    """A small vocabulary of each sort."""
    pairs = {
        "model": "gpt2", "pre": "smollm", "tokens": ["<|end|>", *"abcdefgh", "Ġ", "Ċ", "ab", "abc", "Ġa"],
        "token_type": [3] + [1] * 13, "merges": ["a b", "ab c", "Ġ a"], "bos_id": 0, "eos_id": 0,
        "eot_id": None, "add_bos": True, "add_eos": False, "chat_template": FALLBACK_TEMPLATE,
    }  # fmt: skip
    scored = {
        "model": "llama", "pre": "default", "token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1], "unk_id": 0,
        "tokens": ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁ab"], "bos_id": 1,
        "eos_id": 2, "add_bos": True, "scores": [0, 0, 0, 0, -1, -2, -3, -0.5, -0.2],
        "add_space_prefix": True, "chat_template": None,
    }  # fmt: skip
    return [json.dumps(each).encode() for each in (pairs, scored)]


def test_tokenizers(fuzz_count: int) -> None:
    mutator, samples, read = Mutator(62), tokenizers(), 0
    for _ in range(fuzz_count):
        try:
            tokenizer = load_tokenizer(mutator.json(mutator.random.choice(samples), samples))
        except ModelError as error:
            assert len(str(error)) < 700
            continue
        read += 1
        ids = tokenizer.encode("ab cab <|end|> é\n</s>", special=bool(read % 2))
        assert all(0 <= token < tokenizer.vocab_size for token in ids)
        tokenizer.decode(ids)
        decoder = IncrementalDecoder(tokenizer)
        "".join(decoder.push(token) for token in ids) + decoder.flush()
    assert 0 < read < fuzz_count


TEMPLATES = [
    FALLBACK_TEMPLATE,
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\n' }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages | selectattr('role', 'eq', 'user') | list %}"
    "{% set ns.n = ns.n + 1 %}{{ bos_token * 2 ~ (m.content | trim | replace('a', 'b'))[:9] }}{% endfor %}"
    "{{ ns.n }}",
    "{%- macro say(x, y=3) -%}{{ x | tojson }}{{ y ** 2 }}{%- endmacro -%}{{ say(messages[0]['content']) }}"
    "{% for i in range(3) %}{{ i }}{% break %}{% endfor %}{{ raise_exception('no') if tools }}",
]


def test_templates(fuzz_count: int) -> None:
    mutator = Mutator(63)
    samples = [template.encode() for template in TEMPLATES]
    parts = [
        b"{{",
        b"}}",
        b"{% for a in b %}",
        b"{% endfor %}",
        b"range(10**9)",
        b"*10**9",
        b"|join",
        b"**",
        b".__class__",
    ]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a banana"}]
    rendered = 0
    for _ in range(fuzz_count):
        text = mutator.blob(mutator.random.choice(samples), samples + parts).decode("utf-8", "replace")
        try:
            render_chat(text, messages, bos="<s>", eos="</s>")
            rendered += 1
        except ModelError as error:
            assert "\n" not in str(error)
    assert 0 < rendered < fuzz_count


GRAPHS = """
import sys
from pathlib import Path
from swisd.core.errors import SwisdError
from swisd.core.model import Manifest
from swisd.runtime.kv import KvStore
from swisd.runtime.shard import Shard
from tests.fuzz.mutate import Mutator
blobs, count = Path(sys.argv[1]), int(sys.argv[3])
manifest = Manifest.from_bytes(Path(sys.argv[2]).read_bytes())
path = blobs / manifest.blobs[manifest.graph].sha256
right, mutator, loaded = path.read_bytes(), Mutator(64), 0
path.unlink()
for number in range(count):
    path.write_bytes(mutator.blob(right) if number else right)
    print(number, flush=True)
    try:
        Shard.load(manifest, 0, manifest.n_units, blobs, threads=1, store=KvStore(manifest, 64)).close()
        loaded += 1
    except SwisdError:
        assert number
print("loaded", loaded)
"""


def test_graphs(fuzz_count: int, tmp_path: Path) -> None:
    """In a process of its own: what reads graphs is not written in Python."""
    pytest.importorskip("gguf")
    from swisd.forge.importer import import_model
    from tests.tiny_models import write_model

    blobs = tmp_path / "blobs"
    _, sha = import_model(write_model(tmp_path / "tiny.gguf"), blobs, model_id="tiny", licence=None)
    done = subprocess.run(
        [sys.executable, "-c", GRAPHS, str(blobs), str(blobs / sha), str(fuzz_count // 50)],
        check=False, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout[-100:], done.stderr[-3000:])
