"""Ask the swarm one question and print the answer with its statistics.

    python examples/ask.py "What is the capital of France?"

Without a running swarm the model runs on this device alone.
"""

import sys

import swisd
from swisd.client import Options, SwisdError


def main(prompt: str) -> int:
    """Returns the exit code."""
    client = swisd.Client(tell=lambda text: print(text, file=sys.stderr))
    try:
        answer = client.ask(prompt, Options(max_tokens=100, seed=1))
    except SwisdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(answer.text)
    devices = ", ".join(f"{shard.name} [{shard.start}, {shard.end})" for shard in answer.plan.shards)
    speed = answer.timings.decode_tokens_per_s
    print(f"{answer.timings.decode_tokens} tokens, {speed:.1f} tokens/s; units on {devices}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or "What is the capital of France?"))
