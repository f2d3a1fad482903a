"""Perplexity of a text on the swarm: run it with one device and with several, and compare the digits.

    python examples/measure_split.py [TEXT_FILE]

The last line is a fingerprint of all log-probabilities: devices with the same kind of processor must give
the same one, however the model is cut.
"""

import hashlib
import json
import sys
from pathlib import Path

import swisd
from swisd.client import SwisdError

TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, it was the epoch of belief, it was the epoch of incredulity."
)


def main(path: str | None) -> int:
    """Returns the exit code."""
    client = swisd.Client(tell=lambda text: print(text, file=sys.stderr))
    try:
        found = client.evaluate(Path(path).read_text() if path else TEXT)
    except SwisdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for shard in found.plan.shards:
        print(f"{shard.name}: units {shard.start} to {shard.end - 1}")
    print(f"perplexity {found.perplexity:.6f} over {found.tokens} tokens in {found.seconds:.1f} s")
    rows = json.dumps([found.top_ids, found.top_logprobs, found.next_logprobs])
    print(f"fingerprint {hashlib.sha256(rows.encode()).hexdigest()[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
