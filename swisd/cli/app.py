"""`swisd`: the commands and their options. Each imports what it needs only when it runs."""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from swisd.cli.library import models_app
from swisd.cli.options import HomeOption, JsonOption, ModelOption, SystemOption, TemperatureOption
from swisd.cli.output import ReaderGone, say
from swisd.cli.waiting import WaitCommand
from swisd.core.errors import SwisdError

app = typer.Typer(
    help="Swarm Inference on Small Devices: several old laptops, phones and boards run one AI model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")


class Objective(StrEnum):
    """What a plan is to be good at."""

    latency = "latency"
    throughput = "throughput"
    spread = "spread"


@app.command()
def up(
    name: Annotated[str, typer.Option(help="Name of this device (default: the host name).")] = "",
    join: Annotated[str, typer.Option(help="Join code of a swarm, from `swisd code` there.")] = "",
    memory: Annotated[
        str, typer.Option(help="Memory to offer, like 64MiB (default: 3/4 of what is free).")
    ] = "",
    headless: Annotated[bool, typer.Option("--headless", help="No dashboard: one line per event.")] = False,
    model: ModelOption = "",
    objective: Annotated[Objective | None, typer.Option(help="What to plan for.")] = None,
    context: Annotated[int, typer.Option(help="Tokens that all sessions together may hold.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="Threads (default: as many as are fastest).", min=0)] = 0,
    port: Annotated[
        int, typer.Option(help="TCP and UDP port (default 7947, or a free one).", min=0, max=65535)
    ] = 0,
    address: Annotated[str, typer.Option(help="Listen on this address only (default: all).")] = "",
    broker: Annotated[
        str, typer.Option(help="External MQTT broker, mqtt:// or mqtts:// (default: embedded).")
    ] = "",
    drafter: Annotated[
        str, typer.Option(help="Small model of this home that guesses tokens (default: none).")
    ] = "",
    home: HomeOption = None,
) -> None:
    """Start this device: it forms a swarm, or joins one."""
    from swisd.cli.up import UpOptions, run_up

    options = UpOptions(
        name, join, memory, headless, model, objective.value if objective else "", context, threads, port,
        address, broker, drafter,
    )  # fmt: skip
    run_up(home, options)


@app.command(cls=WaitCommand)
def ask(
    prompt: Annotated[str, typer.Argument(help="The prompt; `-` or nothing reads standard input.")] = "-",
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to answer with.", min=1)] = None,
    temperature: TemperatureOption = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens (0: all).", min=0)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest tokens up to this mass.", min=0.0, max=1.0)
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens this likely beside the best.", min=0.0, max=1.0)
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1 discourages repeats.", min=0.01)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same answer.", min=0, max=(1 << 63) - 1)
    ] = None,
    system: SystemOption = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="[SECONDS]",
            help="Wait for devices that are away or missing, so many seconds or until interrupted.",
            min=1.0,
        ),
    ] = None,
    continue_with: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="ID", help="Go on with an answer that broke off; its error said the id."
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template: continue the text as it is.")] = False,
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Ask the swarm; the answer streams as it is made."""
    from swisd.cli.ask import run_ask, run_continue
    from swisd.client import Options

    options = Options(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed, system=system, raw=raw,
        patience=wait,
    )  # fmt: skip
    if continue_with is not None:
        run_continue(home, continue_with, prompt, options, json_output)
    else:
        run_ask(home, prompt, options, json_output)


@app.command()
def chat(
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.", min=1)] = None,
    temperature: TemperatureOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same answers.", min=0, max=(1 << 63) - 1)
    ] = None,
    system: SystemOption = None,
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Talk with the swarm, one line a turn; it remembers what was said. An empty line or Ctrl-D ends it."""
    from swisd.cli.ask import run_chat
    from swisd.client import Options

    options = Options(max_tokens=max_tokens, temperature=temperature, seed=seed, system=system)
    run_chat(home, options, json_output)


@app.command("eval")
def evaluate(
    path: Annotated[str, typer.Argument(help="A UTF-8 text file, or `-` for standard input.")],
    model: ModelOption = "",
    top: Annotated[
        int, typer.Option(help="How many of the best tokens to report per position.", min=1, max=100)
    ] = 20,
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Perplexity of a text on the swarm: what a quantisation costs, and that a split costs nothing."""
    from swisd.cli.ask import run_eval

    run_eval(home, path, model, top, json_output)


@app.command()
def status(json_output: JsonOption = False, home: HomeOption = None) -> None:
    """Who is in the swarm, in which state."""
    from swisd.cli.show import run_status

    run_status(home, json_output)


@app.command()
def plan(json_output: JsonOption = False, home: HomeOption = None) -> None:
    """Which device runs which layers and why, with predicted beside measured times."""
    from swisd.cli.show import run_plan

    run_plan(home, json_output)


@app.command()
def code(home: HomeOption = None) -> None:
    """The join code of this device's swarm, and its QR code. Who has it can join: show it to friends only."""
    from swisd.cli.show import run_code

    run_code(home)


@app.command()
def simulate(
    seed: Annotated[int, typer.Option(help="Same seed, same storm.", min=0)] = 0,
    devices: Annotated[int, typer.Option(help="Devices of the swarm.", min=1, max=2000)] = 5,
    minutes: Annotated[float, typer.Option(help="Virtual minutes of mishaps.", min=0.1)] = 5.0,
    faults: Annotated[str, typer.Option(help="all, none, or kinds like crash,link,corrupt.")] = "all",
    storms: Annotated[int, typer.Option(help="How many: the next ones have the next seeds.", min=1)] = 1,
    transcript: Annotated[
        Path | None, typer.Option(help="Write the first failing storm's transcript here, or the last one's.")
    ] = None,
    objective: Annotated[Objective, typer.Option(help="What the hosts plan for.")] = Objective.latency,
    json_output: JsonOption = False,
) -> None:
    """Swarms of the same code in virtual time, with faults of devices and network: do the promises hold?"""
    from swisd.cli.simulate import run_simulate

    code = run_simulate(
        seed, devices, minutes, faults, storms, transcript, objective.value, as_lines=json_output
    )
    if code:
        raise typer.Exit(code)


class How(StrEnum):
    """What is done to a device."""

    kill = "kill"
    stop = "stop"
    leave = "leave"


@app.command()
def chaos(
    devices: Annotated[int, typer.Option(help="Devices of the swarm on this machine.", min=1, max=16)] = 4,
    memory: Annotated[str, typer.Option(help="What each offers: little memory means many stages.")] = "64MiB",
    tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=2)] = 200,
    kill: Annotated[
        str,
        typer.Option(help="random, worker, driver, host, host-driver, two, mixed, none, or a device's name."),
    ] = "random",
    how: Annotated[How, typer.Option(help="SIGKILL; SIGSTOP for a while; or a farewell.")] = How.kill,
    at: Annotated[int, typer.Option(help="At which token (0: drawn for each round).", min=0)] = 0,
    rounds: Annotated[int, typer.Option(help="How often.", min=1)] = 1,
    sessions: Annotated[int, typer.Option(help="Questions at once.", min=1, max=64)] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the answers, and of what is drawn.", min=0, max=1 << 62)] = 0,
    prompt: Annotated[str, typer.Option(help="The question (default: some of its own).")] = "",
    freeze: Annotated[float, typer.Option(help="Seconds that --how stop lasts.", min=0.1)] = 10.0,
    model: ModelOption = "",
    keep: Annotated[
        Path | None, typer.Option(help="Folder for the devices' homes (default: a temporary one).")
    ] = None,
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Devices on this machine answer, some are killed in mid-answer: does the answer stay the same?"""
    from swisd.chaos.campaign import Wishes
    from swisd.cli.chaos import Offer, run_chaos

    wishes = Wishes(kill, how.value, rounds, sessions, tokens, at, temperature, seed, prompt, freeze)
    code = run_chaos(home, Offer(devices, memory, model, keep), wishes, as_lines=json_output)
    if code:
        raise typer.Exit(code)


@app.command()
def bench(
    local: Annotated[
        int, typer.Option(help="Measure so many devices made for it on this machine.", min=0, max=16)
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: under 30 s.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds that count (default 5, quick 2).", min=0, max=1000)] = 0,
    gguf: Annotated[
        Path | None, typer.Option(help="The model's GGUF file, to measure llama.cpp beside.")
    ] = None,
    model: ModelOption = "",
    threads: Annotated[
        int, typer.Option(help="With --local: threads of each device, and of llama.cpp.", min=1, max=1024)
    ] = 1,
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """How fast the swarm that runs is, or one of local devices: beside one device alone and llama.cpp."""
    from swisd.cli.bench import Wish, run_bench

    run_bench(home, Wish(local, quick, rounds, gguf, model, threads), as_lines=json_output)


def version(show: bool) -> None:
    """Print the version and end."""
    if show:
        from swisd import __version__

        typer.echo(f"swisd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=version, is_eager=True)
    ] = False,
) -> None:
    """Options of `swisd` itself."""


# typer brings its own click since 0.26 and used the package before: name the base class by way of a child.
USAGE_ERRORS: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run a command; a mistake gets one line and an exit code, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to end
    try:
        code = app(standalone_mode=False)
    except SwisdError as error:
        say(f"swisd: {error}")
        sys.exit(error.exit_code)
    except USAGE_ERRORS as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except ReaderGone:
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
