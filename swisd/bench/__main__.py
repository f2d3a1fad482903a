"""`python -m swisd.bench`: first speed figures of this machine, as medians of paired rounds.

Every round asks each contender in turn, so a machine that speeds up or slows down does so for all. Ratios
first: absolute figures are worth little on a shared machine.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from swisd.bench.llama import LlamaCpp, available
from swisd.chaos.swarm import LocalSwarm
from swisd.client import Client, Options
from swisd.core.errors import SwisdError

MODEL = "smollm2-135m-instruct-q4_1"
PROMPT = "The old lighthouse keeper climbed the stairs every evening, and from the gallery he could see"
TOKENS = 96
PREFILL_WORDS = 250


def main() -> int:
    """Measure and print a table; 0 on success."""
    parser = argparse.ArgumentParser(prog="python -m swisd.bench", description=__doc__)
    parser.add_argument("--gguf", type=Path, help="the model's GGUF file, for llama.cpp (default: fetched)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="swisd-bench-") as folder:
            figures = measure(Path(folder), args.gguf, args.rounds)
    except SwisdError as error:
        print(f"swisd: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(figures) if args.json else table(figures))
    return 0


def measure(root: Path, gguf: Path | None, rounds: int) -> dict[str, float]:
    """All figures by name. Decode in tokens/s, prefill in ms, hops in ms."""
    gguf = gguf or _fetched(root)
    model_home = root / "model"
    _import(gguf, model_home)
    with ExitStack() as stack:
        swarms = {
            "one device": stack.enter_context(_spread(root / "one", model_home, 1)),
            "three devices, tcp": stack.enter_context(_spread(root / "tcp", model_home, 3, "tcp")),
            "three devices, mqtt": stack.enter_context(_spread(root / "mqtt", model_home, 3, "mqtt")),
        }
        contenders: dict[str, Callable[[], tuple[float, float]]] = {
            name: _asks(Client(swarm.homes[0])) for name, swarm in swarms.items()
        }
        if available():
            llama = LlamaCpp(gguf, 1)
            contenders["llama.cpp"] = lambda: (llama.measure(256, 1)[0], llama.measure(32, TOKENS)[1])
        else:
            print("llama.cpp is not measured: pip install xllamacpp", file=sys.stderr)
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, ask in contenders.items():
                figure = ask()
                if number:  # the first round warms up
                    seen[name].append(figure)
            print(f"round {number} of {rounds}", file=sys.stderr)
        figures = _summary(seen)
        for lane in ("tcp", "mqtt"):
            figures[f"hop {lane}, ms"] = _hop_ms(Client(swarms[f"three devices, {lane}"].homes[0]))
    return figures


@contextmanager
def _spread(root: Path, model_home: Path, count: int, lane: str = "auto") -> Iterator[LocalSwarm]:
    """A swarm whose plan takes all of its devices, once that plan is in force."""
    with LocalSwarm(root, model_home, count, lane=lane, objective="spread") as swarm:
        swarm.wait_plan()
        yield swarm


def _asks(client: Client) -> Callable[[], tuple[float, float]]:
    """One round: milliseconds for a prompt of about 256 tokens, and tokens/s of a greedy decode."""
    long = Options(max_tokens=1, temperature=0.0, raw=True)
    short = Options(max_tokens=TOKENS, temperature=0.0, raw=True)

    def ask() -> tuple[float, float]:
        prefill = client.ask("sea " * PREFILL_WORDS, long, alone=False).timings
        decode = client.ask(PROMPT, short, alone=False).timings
        return prefill.prompt_ms / prefill.prompt_tokens * 256, decode.decode_tokens_per_s

    return ask


def _summary(seen: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Medians, and medians of the ratios round by round."""
    figures: dict[str, float] = {}
    for name, rounds in seen.items():
        figures[f"decode {name}, tokens/s"] = median(decode for _, decode in rounds)
        figures[f"prefill(256) {name}, ms"] = median(prefill for prefill, _ in rounds)
    pairs = [
        ("one device", "llama.cpp"),
        ("three devices, tcp", "one device"),
        ("three devices, mqtt", "one device"),
    ]
    for above, below in pairs:
        if above in seen and below in seen:
            both = list(zip(seen[above], seen[below], strict=True))
            figures[f"decode ratio {above} / {below}"] = median(a[1] / b[1] for a, b in both)
            figures[f"prefill speed ratio {above} / {below}"] = median(b[0] / a[0] for a, b in both)
    return figures


def _hop_ms(client: Client) -> float:
    """What a token's way costs beyond computing, per hop, as the devices measured it."""
    digest, plan = client.status()
    if plan is None or not digest.token_ms:
        return 0.0
    devices = [stage.device for stage in plan.pipelines[0].stages]
    hops = sum(1 for here, there in pairwise(devices) if here != there)
    compute = sum(member.stage_ms for member in digest.members)
    return (digest.token_ms - compute) / hops


def _fetched(root: Path) -> Path:
    from swisd.forge.cards import find_card
    from swisd.forge.pull import fetch_card_model

    card = find_card(MODEL)
    assert card is not None  # the default model's card comes with swisd
    return fetch_card_model(card, root)


def _import(gguf: Path, home: Path) -> None:
    import asyncio

    from swisd.node.importing import import_model

    home.mkdir(parents=True, exist_ok=True)
    asyncio.run(import_model(str(gguf), home, lambda *_: None, model_id=MODEL))


def table(figures: dict[str, float]) -> str:
    """The figures, ratios first."""
    ordered = sorted(figures.items(), key=lambda item: ("ratio" not in item[0], item[0]))
    wide = max(len(name) for name, _ in ordered)
    return "\n".join(f"{name:<{wide}}  {value:10.3f}" for name, value in ordered)


if __name__ == "__main__":
    sys.exit(main())
