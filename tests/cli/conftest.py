"""Commands in this process: `swisd(...)` runs `main` with its arguments and gives back what it wrote."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swisd.cli.app import main
from tests.client.conftest import quick
from tests.node.conftest import fake_home, fake_runtime
from tests.node.fakes import FakeModel

__all__ = ["fake_home", "fake_runtime", "quick"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line for the person."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


Run = Callable[..., Done]


@pytest.fixture
def swisd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command to its end."""
    monkeypatch.delenv("SWISD_HOME", raising=False)

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["swisd", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        wrote = capsys.readouterr()
        assert "Traceback" not in wrote.err
        return Done(int(ended.value.code or 0), wrote.out, wrote.err)

    return run


SETTINGS = """
[device]
name = "lone"
memory = "64MiB"
threads = 1
[swarm]
multicast = false
find_seconds = 0.5
[model]
id = "fake-4x16"
context = 256
min_context = 16
"""


@pytest.fixture
def home(quick: None, fake_home: FakeModel) -> Path:
    """A home with a fake model that `swisd ask` runs alone."""
    (fake_home.home.path / "swisd.toml").write_text(SETTINGS)
    return fake_home.home.path
