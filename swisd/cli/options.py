"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder with this device's state (default ~/.swisd, or SWISD_HOME)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output, one JSON object a line.")]
TemperatureOption = Annotated[float | None, typer.Option(help="0 is greedy; higher is more varied.", min=0.0)]
SystemOption = Annotated[str | None, typer.Option(help="System message.")]
ModelOption = Annotated[str, typer.Option("--model", help="Id of the model, as in `swisd models list`.")]
