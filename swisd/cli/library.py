"""`swisd models`: the commands about the models on this device."""

from pathlib import Path
from typing import Annotated

import typer

from swisd.cli.options import HomeOption, JsonOption

models_app = typer.Typer(help="The models on this device.", no_args_is_help=True, rich_markup_mode=None)


@models_app.command("list")
def models_list(json_output: JsonOption = False, home: HomeOption = None) -> None:
    """Models on this device, and those it can pull."""
    from swisd.cli.models import run_list

    run_list(home, json_output)


@models_app.command("add")
def models_add(
    path: Annotated[Path, typer.Argument(help="A GGUF file.")],
    model_id: Annotated[str, typer.Option("--id", help="Id to give it (default: from the file name).")] = "",
    home: HomeOption = None,
) -> None:
    """Import a GGUF file."""
    from swisd.cli.models import run_add

    run_add(home, path, model_id)


@models_app.command("pull")
def models_pull(
    model_id: Annotated[str, typer.Argument(help="Id of a model card.")], home: HomeOption = None
) -> None:
    """Fetch and import a model that has a card."""
    from swisd.cli.models import run_pull

    run_pull(home, model_id)


@models_app.command("show")
def models_show(
    model_id: Annotated[str, typer.Argument(help="Id of a model on this device.")],
    json_output: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What a model is made of, and what of it is here."""
    from swisd.cli.models import run_show

    run_show(home, model_id, json_output)


@models_app.command("remove")
def models_remove(
    model_id: Annotated[str, typer.Argument(help="Id of a model on this device.")], home: HomeOption = None
) -> None:
    """Remove a model from this device."""
    from swisd.cli.models import run_remove

    run_remove(home, model_id)
