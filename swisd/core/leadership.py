"""Who is host: of two, the one with the lower (rank, id) stays and the other steps down."""

from swisd.core import deadlines
from swisd.core.config import DeviceConfig
from swisd.core.messages import Digest


class Leadership:
    """This device's view of who leads."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self.host: str | None = None
        self._host_rank = 0
        self._heard = 0.0
        self._place = 0  # how many capable devices come before this one
        self.own_bus = config.claims == "at once"  # whether this device runs the broker

    @property
    def leading(self) -> bool:
        return self.host == self._config.device

    def begin(self, now: float) -> bool:
        """The bus was reached. Returns True if this device leads from now on."""
        self._heard = now
        if self.own_bus:
            self.host, self._host_rank = self._config.device, self._config.rank
        return self.leading

    def on_digest(self, digest: Digest, now: float) -> bool:
        """Hear a host. Returns True if its word counts (it is the host that we follow)."""
        rank = next((member.rank for member in digest.members if member.device == digest.host), 1 << 62)
        if digest.host == self._config.device:
            # Our own digest coming back, or an earlier life's, retained by the bus.
            return self.leading
        if self.own_bus:
            return False  # no other host speaks on this bus: it is a late word of the one before
        if self.host is not None and digest.host != self.host:
            silent = not self.leading and now - self._heard > deadlines.CLAIM
            if not silent and (rank, digest.host) > (self._host_rank, self.host):
                return False
        self.host, self._host_rank, self._heard = digest.host, rank, now
        capable = [(member.rank, member.device) for member in digest.members if member.broker]
        me = (self._config.rank, self._config.device)
        self._place = sum(1 for other in capable if other < me and other[1] != digest.host)
        return True

    def resign(self) -> bool:
        """The bus is lost: on a broker that others still reach, another device will lead.

        Returns True if this device led and no longer does.
        """
        if self._config.claims != "when silent":
            if not self.leading:
                self.host = None  # whoever speaks on the next bus is its host
            return False
        if not self.leading:
            return False
        self.host = None
        return True

    def leave_bus(self) -> None:
        """The bus is another device's from now on, and its host leads."""
        self.own_bus, self.host = False, None

    def on_silence(self, now: float) -> bool:
        """Called now and then. Returns True if this device should lead because nobody does."""
        if self.leading or self._config.claims != "when silent":
            return False
        if now - self._heard <= deadlines.CLAIM * (1 + self._place):
            return False
        self.host, self._host_rank = self._config.device, self._config.rank
        return True
