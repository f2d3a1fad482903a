"""Settings of a device: `swisd.toml` in its home, then the command line. Every one has a default."""

import re
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from swisd.core.checked import Items, Malformed, Range, Text, from_plain
from swisd.core.errors import BadInput
from swisd.core.types import Objective

FILE = "swisd.toml"
DEFAULT_MODEL = "smollm2-135m-instruct-q4_1"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B?|B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """`[device]`: this device."""

    name: Annotated[str, Text(32)] = ""  # empty: the host name
    memory: Annotated[str, Text(32)] = ""  # empty: three quarters of what is free
    threads: Annotated[int, Range(0, 1024)] = 0  # 0: as many as are fastest, up to all cores
    port: Annotated[int, Range(0, 65535)] = 0  # 0: 7947, or any free one if that is taken
    address: Annotated[str, Text(64)] = ""  # empty: all interfaces
    journal: Annotated[str, Text(32)] = ""  # empty: 1/32 of the memory, at most 32 MiB; taken from it
    battery_floor: Annotated[int, Range(0, 100)] = 20  # percent; 0: off
    speculation: bool = True  # as driver of requests: with the last token run some that may come next
    drafter: Annotated[str, Text(100)] = ""  # a small model of this home that guesses them; empty: none


@dataclass(frozen=True, slots=True)
class SwarmSettings:
    """`[swarm]`: how the devices find and reach each other."""

    broker: Annotated[str, Text(500)] = ""  # empty: the embedded one of the host
    broker_ca: Annotated[str, Text(500)] = ""
    multicast: bool = True
    announce: bool = True  # answer devices of this swarm that look for the host
    probe_ports: Annotated[tuple[Annotated[int, Range(1, 65535)], ...], Items(16)] = ()
    find_seconds: Annotated[float, Range(0.5, 60.0)] = 4.0
    lane: Literal["auto", "tcp", "mqtt"] = "auto"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`[model]`: what the swarm runs, and how it is cut. The host's settings count."""

    id: Annotated[str, Text(100)] = ""  # empty: as `model_of` says
    objective: Objective = "latency"
    context: Annotated[int, Range(16, 1 << 20)] = 4096
    min_context: Annotated[int, Range(16, 1 << 20)] = 512
    spares: bool = True  # devices with room to spare keep units of others loaded


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """`[answer]`: how `swisd ask` samples unless told otherwise. Negative: as the model card says."""

    temperature: Annotated[float, Range(-1.0, 100.0)] = -1.0
    top_k: Annotated[int, Range(-1, 1 << 24)] = -1
    top_p: Annotated[float, Range(-1.0, 1.0)] = -1.0
    min_p: Annotated[float, Range(-1.0, 1.0)] = -1.0
    repetition_penalty: Annotated[float, Range(-1.0, 100.0)] = -1.0
    max_tokens: Annotated[int, Range(1, 1 << 20)] = 512
    system: Annotated[str, Text(10000)] = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, by table."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    swarm: SwarmSettings = field(default_factory=SwarmSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    answer: AnswerSettings = field(default_factory=AnswerSettings)


def load_settings(home: Path) -> Settings:
    """The home's `swisd.toml` over the defaults. Raises `BadInput` naming file and setting."""
    path = home / FILE
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not TOML: {error}") from None
    _no_strangers(raw, Settings, path, "")
    try:
        settings = from_plain(Settings, raw)
    except Malformed as error:
        raise BadInput(f"{path}: {str(error).removeprefix('Settings.')}") from None
    for name, size in (("memory", settings.device.memory), ("journal", settings.device.journal)):
        try:
            if size:
                parse_size(size)
        except BadInput as error:
            raise BadInput(f"{path}: device.{name}: {error}") from None
    return settings


def parse_size(text: str) -> int:
    """Bytes of `64MiB`, `1.5GB`, `500M`. KB, MB and GB count in thousands. Raises `BadInput`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 32:
        raise BadInput(f"{text!r} is not an amount of memory; write it like 64MiB or 2GiB")
    unit = (match[2] or "").upper()
    base = 1000 if unit.endswith("B") and not unit.endswith("IB") else 1024
    return int(float(match[1]) * base ** _POWERS[unit.rstrip("B").rstrip("I")])


def _no_strangers(raw: dict[str, Any], kind: type, path: Path, where: str) -> None:
    """A misspelt setting that is ignored costs an evening: refuse it, and say what there is."""
    known = {item.name: item for item in fields(kind)}
    for name, value in raw.items():
        if name not in known:
            raise BadInput(f"{path}: there is no setting {where}{name}; there are {', '.join(known)}")
        inner = known[name].default_factory
        if isinstance(inner, type) and is_dataclass(inner) and isinstance(value, dict):
            _no_strangers(value, inner, path, f"{name}.")
