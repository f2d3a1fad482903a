"""The default model against an independent fp32 forward pass, and against itself cut in pieces."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swisd.forge.importer import import_model
from swisd.runtime.shard import Slot
from tests.shards import Imported, generate

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
DATA = Path(__file__).parent.parent / "data" / "smollm2_fp32_logprobs.json.gz"
CASES: dict[str, dict[str, Any]] = json.loads(gzip.decompress(DATA.read_bytes()))["cases"]
PROSE = "moby_dick_1_first_512_tokens"


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    blobs = tmp_path_factory.mktemp("smollm2")
    manifest, _ = import_model(smollm2_gguf, blobs, model_id="smollm2", licence=None)
    return Imported(smollm2_gguf, blobs, manifest)


def compare(model: Imported, name: str, chunk: int) -> tuple[float, float]:
    """Mean divergence in nats over the reference's top 20, and perplexity over the reference's."""
    (shard,) = model.shards(max_tokens=1024)
    case = CASES[name]
    ids = np.array(case["ids"], np.int64)
    rows = []
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        rows.append(shard.run([Slot(name, start, len(part), len(part))], part))
    logits = np.concatenate(rows).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    reference = np.array(case["top_logprobs"])
    ours = np.take_along_axis(logprobs, np.array(case["top_ids"]), axis=1)
    divergence = (np.exp(reference) * (reference - ours)).sum(axis=1).mean()
    perplexity = np.exp(-logprobs[np.arange(len(ids) - 1), ids[1:]].mean())
    return float(divergence), float(perplexity / case["perplexity"])


@pytest.mark.parametrize("chunk", [128, 1])
@pytest.mark.parametrize("name", CASES)
def test_the_distribution_is_that_of_an_fp32_model(smollm2: Imported, name: str, chunk: int) -> None:
    divergence, perplexity = compare(smollm2, name, chunk)
    assert divergence < (0.003 if name == PROSE else 0.01)
    if name == PROSE:
        assert perplexity == pytest.approx(1, abs=0.01)


def test_whole_and_cut_give_the_same_bits(smollm2: Imported) -> None:
    n_units = smollm2.manifest.n_units
    whole = generate(smollm2.shards(), [40], 30)
    for cuts in ([1], [n_units - 1], [1, n_units - 1], [16], [10, 21], [1, 2, 3, 30, 31], range(1, n_units)):
        assert np.array_equal(generate(smollm2.shards(*cuts), [40], 30), whole), cuts
