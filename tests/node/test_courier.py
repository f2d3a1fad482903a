"""What comes over the bus is checked: bad payloads of every kind are dropped and counted, never raised."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.bus.memory import MemoryBroker, MemoryBus
from swisd.core.errors import SwisdError
from swisd.core.messages import Ask, Beat, Call, Digest, Gone, Held, MemberView, Message, Out, Repair
from swisd.core.types import Capability, Member, Pipeline, Plan, Prediction, Stage
from swisd.node.courier import ENVELOPE, Courier
from swisd.wire.envelope import seal
from swisd.wire.messages import encode_message, topic_of
from swisd.wire.topics import PREFIX, Kind, Topic, swarm_id

KEY, OTHER_KEY = b"k" * 16, b"o" * 16
SWARM = swarm_id(KEY)
ME, PEER, SESSION = "11" * 8, "22" * 8, "33" * 8
SHA = "ab" * 32

MESSAGES: list[Message] = [
    Beat(PEER, 5, 1, "ready", 3, drops={"late": 2}),
    Capability(PEER, 5, "peer", ("10.0.0.2",), 7947, 1 << 30, 4, "linux", "0.1", True, True, 9),
    Gone(PEER, 5, proper=True),
    Digest(PEER, 3, 9, (MemberView(PEER, "peer", "alive", "ready", (), 1, 2, True, 3, ((SHA, 0, 4),)),)),
    Plan(
        3, PEER, SHA, "tiny", 400, 512, "latency",
        (Pipeline((Stage(0, 4, (Member(PEER),)),)),), Prediction(1.0, 1.0, (1.0,), ()), active=True,
    ),
    Ask("start", SESSION, PEER, 3, (1, 2, 3), max_tokens=4),
    Out(SESSION, 0, 3, (7,)),
    Repair("held", SESSION, 7, 3, PEER, (Held(1, 5, 0, 5),)),
    Call("replan", PEER),
]  # fmt: skip
KINDS = [topic_of(message, ME).kind for message in MESSAGES]


class Ears:
    """A courier and what it handed on."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Message]] = []
        self.frames: list[tuple[str, bytes]] = []
        self.dropped: list[str] = []
        self.courier = Courier(
            KEY, ME,
            lambda sender, message: self.got.append((sender, message)),
            self.dropped.append,
            lambda sender, body: self.frames.append((sender, bytes(body))),
        )  # fmt: skip

    def hear(self, path: str, payload: bytes) -> str:
        """Receive one payload and say what became of it."""
        before = len(self.got) + len(self.frames), len(self.dropped)
        self.courier.receive(path, payload)
        taken = len(self.got) + len(self.frames) - before[0]
        dropped = self.dropped[before[1] :]
        assert taken + len(dropped) <= 1
        return "taken" if taken else dropped[0] if dropped else "ignored"


def path_of(message: Message) -> str:
    return topic_of(message, ME).path(SWARM)


def sealed(message: Message, path: str | None = None, key: bytes = KEY) -> bytes:
    return seal(key, path or path_of(message), PEER, encode_message(message))


def test_every_kind_of_message_is_tried_here() -> None:
    assert set(KINDS) | {Kind.SHARD} == set(Kind)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
class TestEveryKind:
    def test_a_good_one_arrives_with_its_sender(self, message: Message) -> None:
        ears = Ears()
        assert ears.hear(path_of(message), sealed(message)) == "taken"
        assert ears.got == [(PEER, message)]

    def test_without_the_key_it_is_foreign(self, message: Message) -> None:
        assert Ears().hear(path_of(message), sealed(message, key=OTHER_KEY)) == "foreign message"

    def test_replayed_on_any_other_topic_it_is_foreign(self, message: Message) -> None:
        ears = Ears()
        for kind in Kind:
            for ident in [""] if kind.single else [ME, PEER, SESSION]:
                path = Topic(kind, ident).path(SWARM)
                if path != path_of(message):
                    assert ears.hear(path, sealed(message)) == "foreign message", kind

    def test_sealed_by_a_member_for_the_wrong_kind_of_topic_it_is_malformed(self, message: Message) -> None:
        ears = Ears()
        for other in MESSAGES:
            if type(other) is not type(message):
                verdict = ears.hear(path_of(other), sealed(message, path_of(other)))
                # Fields that a type does not know are ignored, so some could be read; then the topic tells.
                assert verdict in ("malformed message", "message on another's topic"), type(other)

    def test_in_its_own_name_on_anothers_topic(self, message: Message) -> None:
        kind = topic_of(message, ME).kind
        if kind.single or kind in (Kind.ASK, Kind.REPAIR):  # named by whom they are for
            return
        path = Topic(kind, "44" * 8).path(SWARM)
        assert Ears().hear(path, sealed(message, path)) == "message on another's topic"

    def test_too_long_it_is_malformed(self, message: Message) -> None:
        path, kind = path_of(message), topic_of(message, ME).kind
        padded = encode_message(message) + b" " * kind.delivery.limit
        assert Ears().hear(path, seal(KEY, path, PEER, padded)) == "malformed message"

    def test_nothing_clears_what_is_retained_and_is_malformed_elsewhere(self, message: Message) -> None:
        retained = topic_of(message, ME).kind.delivery.retain
        assert Ears().hear(path_of(message), b"") == ("ignored" if retained else "malformed message")

    def test_bodies_that_are_not_this_message(self, message: Message) -> None:
        path = path_of(message)
        for body in (b"", b"null", b"[]", b"{}", b"\xff", b"[" * 3000, b'{"a":' * 3000, b"NaN", b"1" * 5000):
            assert Ears().hear(path, seal(KEY, path, PEER, body)) == "malformed message", body[:10]


@given(st.data())
def test_any_change_of_a_payload_is_refused_and_never_raises(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(MESSAGES))
    payload = bytearray(sealed(message))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
    at = data.draw(st.integers(0, len(payload) - 1))
    if how == "flip":
        payload[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        payload = payload[:at]
    elif how == "grow":
        payload[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        payload[at] = (payload[at] + 1) % 256
    verdict = Ears().hear(path_of(message), bytes(payload))
    assert verdict in ("foreign message", "malformed message", "ignored")
    assert verdict != "ignored" or not payload


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_any_body_with_the_right_proof_is_read_or_refused(kind: Kind, body: bytes) -> None:
    path = Topic(kind, "" if kind.single else ME).path(SWARM)
    assert Ears().hear(path, seal(KEY, path, PEER, body)) in (
        "taken",
        "malformed message",
        "message on another's topic",
    )


@given(st.text(max_size=80), st.binary(max_size=80))
def test_any_topic_is_taken_or_refused(tail: str, payload: bytes) -> None:
    for path in (tail, f"{PREFIX}/{SWARM}/{tail}", f"{PREFIX}/{'0' * 16}/plan"):
        Ears().hear(path, payload)
    assert Ears().hear(f"{PREFIX}/{'0' * 16}/plan", payload) == "unknown topic"


def test_frames_go_to_their_own_door_and_are_sealed_too() -> None:
    ears = Ears()
    path = Topic(Kind.SHARD, ME).path(SWARM)
    assert ears.hear(path, seal(KEY, path, PEER, b"rows")) == "taken"
    assert ears.frames == [(PEER, b"rows")]
    assert ears.hear(path, seal(OTHER_KEY, path, PEER, b"rows")) == "foreign message"
    assert ears.hear(path, b"") == "malformed message"
    assert ears.hear(path, seal(KEY, path, PEER, bytes(Kind.SHARD.delivery.limit + ENVELOPE))) == (
        "malformed message"
    )


class Posted:
    """A bus that keeps what is published."""

    connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, int, bool]] = []

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.sent.append((topic, payload, qos, retain))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_one_courier_publishes_another_takes(message: Message) -> None:
    bus, ears = Posted(), Ears()
    speaker = Ears().courier
    speaker.attach(bus)  # type: ignore[arg-type]
    speaker.publish(message, ME)
    ((path, payload, qos, retain),) = bus.sent
    assert (qos, retain) == (
        topic_of(message, ME).kind.delivery.qos,
        topic_of(message, ME).kind.delivery.retain,
    )
    assert ears.hear(path, payload) == "taken"


def test_a_message_that_nobody_would_read_is_counted_and_not_sent() -> None:
    bus, ears = Posted(), Ears()
    ears.courier.attach(bus)  # type: ignore[arg-type]
    ears.courier.publish(
        Ask("start", SESSION, ME, 1, tuple(range(100_000, 217_000)), tuple(range(117_000))), PEER
    )
    assert bus.sent == [] and ears.dropped == ["own message too large"]


async def test_frames_need_a_bus_that_is_connected() -> None:
    ears = Ears()
    with pytest.raises(SwisdError, match="not connected"):
        ears.courier.publish_shard(PEER, b"rows")
    ears.courier.attach(MemoryBus(MemoryBroker(), ME, ears.courier.receive, lambda *_: None))
    with pytest.raises(SwisdError, match="not connected"):
        ears.courier.publish_shard(PEER, b"rows")


async def test_subscriptions_of_one_and_of_all(until: Callable[..., object]) -> None:
    broker, ears = MemoryBroker(), Ears()
    bus = MemoryBus(broker, ME, ears.courier.receive, lambda *_: None)
    speaker = Ears().courier
    other = MemoryBus(broker, PEER, lambda *_: None, lambda *_: None)
    ears.courier.attach(bus)
    speaker.attach(other)
    ears.courier.subscribe(Kind.OUT, SESSION)
    ears.courier.subscribe(Kind.GONE)
    await bus.start()
    await other.start()
    await bus.settled()
    await other.settled()
    for message in (Out(SESSION, 0, 1), Out("55" * 8, 0, 1), Gone(PEER, 1, True), Gone(ME, 1, True)):
        speaker.publish(message)
    await until(lambda: len(ears.got) == 3)
    ears.courier.unsubscribe(Kind.OUT, SESSION)
    ears.courier.unsubscribe(Kind.GONE)
    ears.courier.subscribe(Kind.CALL)
    for message in (Out(SESSION, 1, 1), Gone(PEER, 1, True), Call("replan", PEER)):
        speaker.publish(message)
    await until(lambda: len(ears.got) == 4)
    assert [type(message) for _, message in ears.got] == [Out, Gone, Gone, Call]
    await bus.close()
    await other.close()
