"""The example `swisd.toml` at the top: it can be read, names every setting and states its default."""

import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

from swisd.node.settings import Settings, load_settings

EXAMPLE = Path(__file__).parent.parent / "swisd.toml"


def test_it_states_the_defaults(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "swisd.toml")
    assert load_settings(tmp_path) == Settings()


def test_it_names_every_setting_in_its_order() -> None:
    written = tomllib.loads(EXAMPLE.read_text())
    settings = Settings()
    known = {
        table.name: [item.name for item in fields(getattr(settings, table.name))]
        for table in fields(settings)
    }
    assert {table: list(values) for table, values in written.items()} == known


def test_every_setting_has_its_comment() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if " = " in line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if " # " not in line] == []
