"""The join code: where a swarm's host listens, and the swarm key. `swisd://HOST:PORT/KEY`.

The key is 16 random bytes in base 32 without padding (26 letters and digits, no case), short enough to be
read aloud and small enough for a QR code that a phone reads from a terminal.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from swisd.core.errors import BadInput

KEY_BYTES = 16
SCHEME = "swisd://"
_CODE = re.compile(
    r"swisd://(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5}))?/(?P<key>[A-Za-z2-7]{26})/?"
)


@dataclass(frozen=True, slots=True)
class JoinCode:
    """A key, and the address of a device of its swarm where one is known."""

    key: bytes
    host: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = self.host or ""
        where = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}" if host else ""
        return f"{SCHEME}{where}/{key_text(self.key)}"


def key_text(key: bytes) -> str:
    """The key as 26 letters and digits."""
    return base64.b32encode(key).decode().rstrip("=")


def key_from_text(text: str) -> bytes:
    """The key from its text. Raises `BadInput`."""
    try:
        key = base64.b32decode(text.strip().upper() + "=" * (-len(text.strip()) % 8))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadInput(
            "the swarm key is not 26 letters and digits (A-Z, 2-7); copy it again from `swisd code`"
        )
    return key


def parse_join_code(text: str) -> JoinCode:
    """Read what a person typed or scanned. Raises `BadInput`."""
    match = _CODE.fullmatch(text.strip())
    if match is None:
        raise BadInput(
            f"{text.strip()[:80]!r} is not a join code; it looks like swisd://192.168.1.20:7947/ABC... : run "
            "`swisd code` on a device of the swarm and copy the whole line"
        )
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise BadInput(f"the join code's port {port} is not between 1 and 65535")
    host = match["host"].strip("[]") if match["host"] else None
    return JoinCode(key_from_text(match["key"]), host, port)
