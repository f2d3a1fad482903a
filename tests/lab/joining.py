"""Measures what a stream notices of a device that joins and takes layers: its longest wait for a token.

    python -m tests.lab.joining HOME --times 5

Two devices of this machine share the layers and answer; in mid-answer a third one joins. One thread each,
greedy, 1,200 tokens, no guesses. The bar is three times the median plus 300 ms.
"""

import argparse
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

from swisd.client import Client, Options, Piece
from tests.live.swarm import Swarm, give_model

PROMPT, TOKENS, EARLY = "Once upon a time", 1200, 10
OPTIONS = ("--memory", "250MiB", "--objective", "spread")
SETTINGS = "[device]\nspeculation = false\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--times", type=int, default=5)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swisd-joining-") as name:
        swarm = Swarm(Path(name), wish.home)
        try:
            measure(swarm, wish.times)
        finally:
            swarm.close()


def measure(swarm: Swarm, times: int) -> None:
    host = swarm.start("ann", *OPTIONS, settings=SETTINGS)
    start(swarm, "bob")
    host.wait_for(r"plan \d+ .*: 2 device\(s\)")
    host.wait_for(r"plan \d+ is in force")
    client = Client(host.home)
    undisturbed, _ = answer(client, None)
    for number in range(times):
        name = f"guest{number}"
        mark = host.mark

        # Beside the stream: what starting it takes this program is not a wait for a token.
        joining = threading.Thread(target=start, args=(swarm, name))
        tokens, gaps = answer(client, joining.start)
        joining.join()
        guest = swarm.devices[-1]
        took_part = any("ready: runs" in line for line in guest.lines)
        host.wait_for(r"plan \d+ .*: 3 device\(s\)", after=mark)
        bar = 3 * median(gaps) + 0.3
        print(
            f"identical: {tokens == undisturbed}, took layers in mid-answer: {took_part}; median "
            f"{median(gaps) * 1000:.0f} ms, longest {max(gaps) * 1000:.0f} ms, bar {bar * 1000:.0f} ms",
            flush=True,
        )
        mark = host.mark
        guest.stop(signal.SIGTERM)
        swarm.devices.remove(guest)
        host.wait_for(r"plan \d+ .*: 2 device\(s\)", after=mark)
        host.wait_for(r"plan \d+ is in force", after=mark)


def start(swarm: Swarm, name: str) -> None:
    """A device that has the model on its disk."""
    (swarm.root / name).mkdir()
    give_model(swarm.model_home, swarm.root / name)
    swarm.start(name, *OPTIONS, settings=SETTINGS)


def answer(client: Client, early: Callable[[], None] | None) -> tuple[list[int], list[float]]:
    """The tokens, and seconds between each two; `early` is called after the first few of them."""
    tokens, at = list[int](), list[float]()
    for piece in client.stream(PROMPT, Options(max_tokens=TOKENS, temperature=0.0, raw=True)):
        if isinstance(piece, Piece) and piece.token_ids:
            tokens.extend(piece.token_ids)
            at.append(time.monotonic())
            if early is not None and len(at) == EARLY:
                early()
    return tokens, [after - before for before, after in pairwise(at)]


if __name__ == "__main__":
    main()
