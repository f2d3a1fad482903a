"""Measures what guesses are worth: the same questions to a swarm that guesses and to one that does not.

    python -m tests.lab.guessing HOME --devices 3 --delay 2.5 --air 30 [--sessions 2] [--drafter NAME]

Both swarms run on one emulated access point, each device in a namespace of its own with one thread, and are
asked in turn, greedily. `--delay` is the way to the access point in ms, `--air` its Mbit/s (0: a wire). With
`--sessions` so many people ask at once, each of another person.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.lab.devices import Devices
from tests.lab.lab import Lab

TEXT = (
    "Ann lives in a small house by the river. Every morning she walks to the mill and buys bread for her "
    "mother. In the evening she reads a book by the fire, and her brother plays the violin. On Sundays they "
    "row to the island and catch fish."
)
CHANGED = TEXT.replace("morning", "mornning").replace("violin", "violinn")
TASKS = {  # name: (question, is it continued as it is, does the answer repeat what is there)
    "edit": (f"Text with mistakes:\n{CHANGED}\n{CHANGED}\n\nThe same text, corrected:\n", True, True),
    "correct": (f'Correct the spelling: "{CHANGED}"', False, True),
    "rewrite": (f"Write this text again, but call her Eva instead of Ann:\n\n{TEXT}", False, True),
    "quote": (f"{TEXT}\n\nQuoted once more, sentence by sentence:\n\n1. \"", True, True),
    "story": ("Tell me a story about a fisherman who finds a letter in a bottle.", False, False),
    "why": ("Explain why the sky is blue.", False, False),
}  # fmt: skip
NAMES = ("Ann", "Mia", "Ida", "Zoe", "Kim", "Sue", "Lea", "Ina")
OPTIONS = ("--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "150")
QUIET = "[device]\nspeculation = false\n"
ANSWER_S = 120.0


def ask(devices: Devices, task: str, sessions: int) -> list[dict[str, Any]]:
    """The answers to a question that is asked so many times at once, by devices in turn."""
    question, raw, _ = TASKS[task]
    options = (*OPTIONS, *(["--raw"] if raw else []))
    names = list(devices.running)
    answers = [
        devices.ask(names[number % len(names)], question.replace("Ann", NAMES[number]), *options)
        for number in range(sessions)
    ]
    for answer in answers:
        answer.finish(within=ANSWER_S)
    return [answer.last for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with the model, as `swisd models add` makes it")
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--delay", type=float, default=2.5)
    parser.add_argument("--air", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=1, choices=range(1, len(NAMES) + 1))
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--drafter", default="", help="model of HOME that guesses, with all devices")
    wish = parser.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="swisd-guessing-")
    air = wish.air * 1e6 if wish.air else None
    with folder as root, Lab(Path(root), air_rate=air, seed=1) as lab:
        swarms = {"guessing": Devices(lab, wish.home), "quiet": Devices(lab, wish.home)}
        try:
            for kind, devices in swarms.items():
                for number in range(wish.devices):
                    host = lab.host(f"{kind[0]}{number}", delay_ms=wish.delay)
                    drafter = ["--drafter", wish.drafter] if wish.drafter and kind == "guessing" else []
                    settings = QUIET if kind == "quiet" else ""
                    devices.start(host, "--objective", "spread", *drafter, settings=settings)
                first = next(iter(devices.running.values()))
                first.wait_for(r"plan \d+ is in force", within=120.0)
                while len(set(devices.stages(first.name))) < wish.devices:
                    time.sleep(0.5)
            measure(swarms, wish.tasks, wish.rounds, wish.sessions)
        finally:
            for devices in swarms.values():
                devices.close()


def measure(swarms: dict[str, Devices], tasks: list[str], rounds: int, sessions: int) -> None:
    for task in tasks:
        repeats = TASKS[task][2]
        ratios, guessed, tokens = [], 0, 0
        for _ in range(rounds):
            answers = {kind: ask(devices, task, sessions) for kind, devices in swarms.items()}
            said = {kind: [answer["token_ids"] for answer in each] for kind, each in answers.items()}
            assert said["guessing"] == said["quiet"], task
            timings = {kind: [answer["timings"] for answer in each] for kind, each in answers.items()}
            speed = {
                kind: sum(timing["decode_tokens_per_s"] for timing in each) for kind, each in timings.items()
            }
            ratios.append(speed["guessing"] / speed["quiet"])
            guessed = sum(timing["guessed_tokens"] for timing in timings["guessing"])
            tokens = sum(len(ids) for ids in said["quiet"])
            print(f"{task}: {speed['guessing']:.1f} against {speed['quiet']:.1f} tokens/s", flush=True)
        kind = "repeats itself" if repeats else "prose"
        print(
            f"{task} ({kind}): median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}; "
            f"{guessed} of {tokens} tokens guessed",
            flush=True,
        )


if __name__ == "__main__":
    main()
