"""What a bad network does to messages and frames on their way: lost, twice, late, out of order, corrupt."""

from array import array
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from swisd.core.checked import Malformed
from swisd.core.events import Dropped, FrameArrived, KvArrived
from swisd.core.rows import Activation, KvRows
from swisd.core.types import Slot
from swisd.sim.invariants import Violation
from swisd.wire.envelope import Foreign, open_sealed, seal
from swisd.wire.frames import Dtype, Frame, FrameKind, decode, encode
from swisd.wire.messages import decode_message, encode_message, topic_of

if TYPE_CHECKING:
    from swisd.sim.faults import FaultyWorld

KEY = b"the key of every simulated swarm"
SWARM = "5" * 16
NETWORK_FAULTS = ("lose", "duplicate", "delay", "reorder", "corrupt")


class Network:
    """Decides for each delivery what becomes of it; give `meddle` to the world as its `loses`.

    `parts[fault]` is the part of all deliveries that meet this fault now.
    """

    def __init__(self, world: "FaultyWorld", random: Random) -> None:
        self.world = world
        self.random = random
        self.parts: dict[str, float] = {}
        self.late_s = 3.0
        self.met: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # corrupt ones, by what the wire code said

    def meddle(self, sender: str, to: str, what: object) -> bool:
        """Whether the network keeps this from arriving the usual way."""
        if not self.parts:
            return False
        draw = self.random.random()
        for fault, part in self.parts.items():
            draw -= part
            if draw < 0:
                self.met[fault] += 1
                return self._meet(fault, sender, to, what)
        return False

    def _meet(self, fault: str, sender: str, to: str, what: object) -> bool:
        late = self.random.random() * self.late_s
        hand = self._on_this_connection(to, what, partial(self._hand, sender, to, what))
        match fault:
            case "lose":
                return True
            case "duplicate":
                for _ in range(self.random.choice((1, 1, 3))):
                    self.world.after(self.random.random() * self.late_s, hand)
                return False
            case "delay":  # all that follows on this way waits behind it
                self.world.hold_back(sender, to, late)
                return False
            case "reorder":  # what follows overtakes it
                self.world.after(late, hand)
                return True
            case _:
                self.world.after(0.001, partial(self._corrupted, sender, to, what))
                return True

    def _on_this_connection(self, to: str, what: object, hand: Callable[[], None]) -> Callable[[], None]:
        """A message of the bus comes late over the connection that it was sent on, or not at all."""
        if isinstance(what, FrameArrived | KvArrived) or to not in self.world.buses.clients:
            return hand
        return self.world._connected(to, hand)

    def _hand(self, sender: str, to: str, what: object) -> None:
        self.world.hand_over(sender, to, what)

    def _corrupted(self, sender: str, to: str, what: object) -> None:
        """Send it through the real wire code with some bytes changed: it must be refused."""
        if isinstance(what, FrameArrived | KvArrived):
            frame = (
                frame_of(sender, what.activation)
                if isinstance(what, FrameArrived)
                else kv_frame(sender, what.kv)
            )
            sound = b"".join(encode(frame))
            reason = refusal_of_frame(self._damage(sound))
        else:
            topic = topic_of(what, to if to in self.world.devices else SWARM)  # type: ignore[arg-type]
            path, limit = topic.path(SWARM), topic.kind.delivery.limit
            sound = seal(KEY, path, sender, encode_message(what))  # type: ignore[arg-type]
            reason = None
            try:
                opened = open_sealed(KEY, path, self._damage(sound), limit)
                decode_message(topic.kind, opened.body)
            except Foreign:
                reason = "foreign message"
            except Malformed:
                reason = "malformed message"
        if reason is None:
            raise Violation(f"a corrupt {type(what).__name__} was taken for a sound one")
        self.refused[reason] += 1
        self.world.hand_over(sender, to, Dropped(reason))

    def _damage(self, sound: bytes) -> bytes:
        data = bytearray(sound)
        if self.random.random() < 0.2:
            return bytes(data[: self.random.randrange(len(data))])
        for _ in range(self.random.choice((1, 1, 2, 8))):
            at = self.random.randrange(len(data))
            data[at] ^= self.random.randrange(1, 256)
        return bytes(data) if bytes(data) != sound else bytes(data[:-1])


def frame_of(sender: str, activation: Activation) -> Frame:
    """The frame that carries an activation of the toy model."""
    width = 1 if activation.payload else 0
    payload = array("Q", activation.payload).tobytes()
    dtype = Dtype.INT64 if width else Dtype.NONE
    return Frame(
        FrameKind.ACTIVATION, activation.epoch, sender, activation.pipeline, activation.stage,
        activation.slots, dtype, width, activation.rows, payload,
    )  # fmt: skip


def kv_frame(sender: str, kv: KvRows) -> Frame:
    """The frame that carries states of the toy model from one device's caches to another's."""
    payload = b"".join(array("Q", row).tobytes() for row in kv.payload)
    slot = Slot(kv.session, 0, kv.position, kv.rows, 0)
    rows = kv.rows * (kv.units[1] - kv.units[0])
    return Frame(
        FrameKind.KV, kv.epoch, sender, 0, kv.units[0], (slot,), Dtype.INT64, 1, rows, payload, kv.units[1]
    )


def refusal_of_frame(data: bytes) -> str | None:
    """Why the wire code refuses these bytes; None if it takes them."""
    try:
        decode(data)
    except Malformed:
        return "malformed frame"
    return None
