"""`swisd ask` and `swisd eval`."""

import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from swisd.cli.output import as_json, json_line, read_text, result, say
from swisd.client import Answer, Client, Options, Piece, Status
from swisd.core.errors import BadInput
from swisd.tui.words import units


def run_ask(home: Path | None, prompt: str, options: Options, json_output: bool) -> None:
    """Stream the answer to standard output and its statistics to standard error."""
    if prompt == "-":
        prompt = read_text("-")
    _show(Client(home, tell=say).stream(prompt, options), json_output)


def run_chat(home: Path | None, options: Options, json_output: bool) -> None:
    """A turn for each line of standard input, until it ends or a line is empty."""
    with Client(home, tell=say).talk(options) as talk:
        while text := _line():
            _show(talk.say(text), json_output)


def _line() -> str:
    """The next line of a person, asked for where one is there; empty at the end."""
    if sys.stdin.isatty():
        say("you:")
    return sys.stdin.readline().strip()


def run_continue(home: Path | None, session: str, prompt: str, options: Options, json_output: bool) -> None:
    """Go on with an answer that broke off. Raises `BadInput` if anything else is asked for with it."""
    fixed = replace(options, patience=None) != Options() or prompt != "-"
    if fixed:
        raise BadInput(
            "--continue goes on with what was asked then: leave out the prompt and all options of the answer"
        )
    _show(Client(home, tell=say).resume(session, patience=options.patience), json_output)


def _show(items: Generator[Status | Piece | Answer, None, None], json_output: bool) -> None:
    answer: Answer | None = None
    begun = False
    try:
        for item in items:
            match item:
                case Piece() if json_output:
                    json_line({"text": item.text, "token_ids": list(item.token_ids)})
                case Piece():
                    begun = begun or bool(item.text)
                    result(item.text, end="")
                case Answer():
                    answer = item
                case _:
                    say(item.text)
    finally:
        items.close()
        if begun and not json_output:
            result("")  # the prompt of the shell starts on a line of its own
    assert answer is not None  # the stream ends with an answer or raises
    if json_output:
        json_line(as_json(answer))
    else:
        say(_statistics(answer))
    if answer.finish_reason == "cancelled":
        sys.exit(130)


def _statistics(answer: Answer) -> str:
    times = answer.timings
    total = max((shard.end for shard in answer.plan.shards), default=0)
    spans: dict[str, list[tuple[int, int]]] = {}
    for shard in answer.plan.shards:
        spans.setdefault(shard.name, []).append((shard.start, shard.end))
    devices = ", ".join(f"{name} ({units(held, total)})" for name, held in spans.items())
    speed = f"{times.decode_tokens_per_s:.1f} tokens/s" if times.decode_tokens_per_s else "one token"
    speed += f" ({times.guessed_tokens} guessed)" if times.guessed_tokens else ""
    held = f" ({times.held_tokens} of {times.prompt_tokens} read before)" if times.held_tokens else ""
    return (
        f"[{times.decode_tokens} tokens, first after {times.first_token_ms / 1000:.2f} s{held}, {speed}; "
        f"plan {answer.plan.epoch} of {answer.plan.model} on {devices or 'no device'}]"
    )


def run_eval(home: Path | None, path: str, model: str, top: int, json_output: bool) -> None:
    """Print the perplexity; with JSON also ids and log-probabilities per position."""
    found = Client(home, tell=say).evaluate(read_text(path), model_id=model, top=top)
    if not json_output:
        rate = found.tokens / found.seconds if found.seconds else 0.0
        result(f"perplexity {found.perplexity:.4f} over {found.tokens} tokens of {found.plan.model}")
        say(f"[{found.seconds:.1f} s, {rate:.0f} tokens/s, plan {found.plan.epoch}]")
        return
    value: dict[str, Any] = as_json(found)
    value["seconds"] = round(found.seconds, 3)
    json_line(value)
