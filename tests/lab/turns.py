"""Measures the second turn of a conversation: time to its first token, against that of the first turn.

    python -m tests.lab.turns HOME --devices 3 --tokens 1000 --times 5

Devices on loopback, one thread each. The first message of each conversation is another text of about so many
tokens; the second is a short question. Greedy, 40 tokens an answer.
"""

import argparse
import random
import tempfile
from pathlib import Path
from statistics import median

from swisd.chaos.swarm import LocalSwarm
from swisd.client import Answer, Client, Options

ANSWER = 40
WORDS = (
    "the",
    "river",
    "hill",
    "mill",
    "village",
    "road",
    "bridge",
    "stone",
    "winter",
    "field",
    "near",
    "to",
)


def a_text(number: int, tokens: int) -> str:
    """A text of about so many tokens; another one for each number, from the first word on."""
    random_words = random.Random(number)
    return " ".join(random_words.choice(WORDS) for _ in range(tokens))


def first_tokens(client: Client, number: int, tokens: int) -> tuple[Answer, Answer]:
    """The answers to two turns."""
    with client.talk(Options(max_tokens=ANSWER, temperature=0.0, seed=1)) as talk:
        turns = [
            [item for item in talk.say(text) if isinstance(item, Answer)][-1]
            for text in (a_text(number, tokens), "What was that about?")
        ]
    return turns[0], turns[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    wish = parser.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="swisd-turns-")
    with folder as name, LocalSwarm(Path(name), wish.home, wish.devices, objective="spread") as swarm:
        swarm.wait_plan()
        client = Client(swarm.asker)
        ratios = []
        for number in range(wish.times):
            first, second = (turn.timings for turn in first_tokens(client, number, wish.tokens))
            ratios.append(second.first_token_ms / first.first_token_ms)
            print(
                f"first turn {first.first_token_ms:.0f} ms for {first.prompt_tokens} tokens; second "
                f"{second.first_token_ms:.0f} ms for {second.prompt_tokens}, of which "
                f"{second.held_tokens} were held: {ratios[-1]:.3f}"
            )
        print(f"median of {len(ratios)}: {median(ratios):.3f}, worst {max(ratios):.3f}")


if __name__ == "__main__":
    main()
