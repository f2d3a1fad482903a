"""Model cards (TOML in `models/`): where a model comes from, how it is checked, how people use it best."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from swisd.core.errors import ModelError
from swisd.core.model import SHA256
from swisd.core.types import SamplingParams

MAX_CARD_BYTES = 64 << 10
CARD_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
# Only what a package index understands as one name and one version; never an option or an address.
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,49}")
PACKAGED = Path(__file__).parent.parent / "_models"
CHECKOUT = Path(__file__).parent.parent.parent / "models"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file inside a wheel of the Python package index."""

    package: str
    version: str
    wheel_sha256: str
    path: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that the user has; a relative path starts at the card."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A checked model card. `size` (bytes) and `sha256` are those of the model file."""

    id: str
    name: str
    architecture: str
    licence: str
    homepage: str
    default: bool
    units: int
    size: int
    sha256: str
    source: WheelSource | FileSource
    sampling: SamplingParams

    @property
    def source_text(self) -> str:
        return str(self.source)


def read_card(path: Path) -> ModelCard:
    """Parse and check one card. Raises `ModelError` naming the card and the field that is wrong."""
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_CARD_BYTES:
            raise ModelError(f"model card {path.name} is {len(raw)} bytes, more than {MAX_CARD_BYTES}")
        table = tomllib.loads(raw.decode())
    except OSError as error:
        raise ModelError(f"cannot read the model card {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(f"model card {path.name} is not TOML: {error}") from None
    fields = _Fields(path.name, table)
    return ModelCard(
        id=fields.text("id", CARD_ID),
        name=fields.text("name"),
        architecture=fields.text("architecture"),
        licence=fields.text("licence"),
        homepage=fields.text("homepage", default=""),
        default=fields.flag("default"),
        units=fields.whole("units", 3, 1026),
        size=fields.whole("size", 1, 1 << 42),
        sha256=fields.text("sha256", SHA256),
        source=_source(path, fields.table("source")),
        sampling=_sampling(fields.table("sampling", required=False)),
    )


@cache
def find_cards() -> tuple[ModelCard, ...]:
    """The cards that came with swisd, the default one first. Raises `ModelError` for a damaged card."""
    directory = PACKAGED if PACKAGED.is_dir() else CHECKOUT
    cards = [read_card(path) for path in sorted(directory.glob("*.toml"))]
    return tuple(sorted(cards, key=lambda card: (not card.default, card.id)))


def find_card(model_id: str) -> ModelCard | None:
    """The card of a model, None if swisd has none for it."""
    return next((card for card in find_cards() if card.id == model_id), None)


class _Fields:
    """Typed access to a table of a card."""

    def __init__(self, card: str, raw: dict[str, Any], prefix: str = "") -> None:
        self.card, self.raw, self.prefix = card, raw, prefix

    def bad(self, key: str, wanted: str) -> ModelError:
        return ModelError(f"model card {self.card}: {self.prefix}{key} is not {wanted}")

    def text(self, key: str, pattern: re.Pattern[str] | None = None, default: str | None = None) -> str:
        value = self.raw.get(key, default)
        if not isinstance(value, str) or len(value) > 500:
            raise self.bad(key, "a text")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.bad(key, "of the right form")
        return value

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(key, f"a whole number from {low} to {high}")
        return value

    def real(self, key: str, low: float, high: float, default: float) -> float:
        value = self.raw.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(key, f"a number from {low} to {high}")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.raw.get(key, False)
        if not isinstance(value, bool):
            raise self.bad(key, "true or false")
        return value

    def table(self, key: str, *, required: bool = True) -> "_Fields":
        value = self.raw.get(key, None if required else {})
        if not isinstance(value, dict):
            raise self.bad(key, "a table")
        return _Fields(self.card, value, f"{key}.")


def _source(card: Path, fields: _Fields) -> WheelSource | FileSource:
    kind = fields.text("kind")
    if kind == "file":
        return FileSource(card.parent / Path(fields.text("path")).expanduser())
    if kind != "wheel":
        raise fields.bad("kind", "wheel or file")
    return WheelSource(
        package=fields.text("package", PACKAGE),
        version=fields.text("version", VERSION),
        wheel_sha256=fields.text("wheel_sha256", SHA256),
        path=fields.text("path"),
    )


def _sampling(fields: _Fields) -> SamplingParams:
    usual = SamplingParams()
    top_k = fields.whole("top_k", 0, 1 << 20) if "top_k" in fields.raw else usual.top_k
    return SamplingParams(
        temperature=fields.real("temperature", 0.0, 10.0, usual.temperature),
        top_k=top_k,
        top_p=fields.real("top_p", 0.0, 1.0, usual.top_p),
        min_p=fields.real("min_p", 0.0, 1.0, usual.min_p),
        repetition_penalty=fields.real("repetition_penalty", 0.1, 10.0, usual.repetition_penalty),
    )
