"""`python -m swisd.forge`: fetch and import one model, telling progress as JSON lines on standard output.

It is a process of its own so that the memory it takes is given back, and so that a device that serves the
swarm never stalls while it converts.
"""

import argparse
import json
import sys
from pathlib import Path

from swisd.core.errors import SwisdError


def main() -> int:
    """Import the card or file named on the command line; 0 on success."""
    parser = argparse.ArgumentParser(prog="python -m swisd.forge")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--id", default="")
    parser.add_argument("source", help="a model card's id, or the path of a GGUF file")
    args = parser.parse_args()
    try:
        from swisd.forge.provide import provide

        _say(model_id=provide(args.source, args.home, _progress, model_id=args.id))
    except SwisdError as error:
        _say(error=str(error))
        return error.exit_code
    except (OSError, MemoryError) as error:
        _say(error=f"importing failed: {error or type(error).__name__}")
        return 1
    return 0


def _progress(what: str, done: int, total: int) -> None:
    _say(what=what, done=done, total=total)


def _say(**word: object) -> None:
    print(json.dumps(word), flush=True)


if __name__ == "__main__":
    sys.exit(main())
