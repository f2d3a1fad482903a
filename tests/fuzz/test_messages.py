"""Messages on the bus that are almost right: at the courier, and inside machines that lead and that work.

A stranger's payload has a wrong tag. A member's has the right one around any body: it may lie, and the swarm
may then plan badly, but no device may fail or grow.
"""

from collections import defaultdict
from typing import Any

import pytest

from swisd.core.checked import Malformed
from swisd.core.events import FrameArrived, Received
from swisd.core.messages import Call, Gone, Message
from swisd.node.courier import Courier
from swisd.sim.toy import toy_manifest
from swisd.sim.world import World
from swisd.wire.envelope import Foreign, open_sealed, seal
from swisd.wire.messages import decode_message, encode_message, topic_of
from swisd.wire.topics import Kind, Topic, swarm_id
from tests.fuzz.mutate import Mutator
from tests.tables import tables

pytestmark = pytest.mark.timeout(3600)
KEY, OTHER_KEY = b"k" * 16, b"o" * 16
SWARM = swarm_id(KEY)
MIB = 1 << 20


class Traffic(World):
    """A simulated swarm that keeps samples of all that is said in it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, toy_manifest(6))
        self.samples: dict[Topic, list[tuple[str, bytes]]] = defaultdict(list)
        self.frames: list[tuple[str, str, FrameArrived]] = []
        self.unreadable = 0
        frozen = self.buses._frozen  # a lie may send a device to the bus of one that never was
        self.buses._frozen = lambda ident: ident in self.devices and frozen(ident)  # type: ignore[method-assign]

    def _pass_on(self, broker: Any, bus: str, sender: str, effect: Any) -> None:
        topic, body = topic_of(effect.message, effect.to), encode_message(effect.message)
        try:
            decode_message(topic.kind, body)
        except Malformed:
            self.unreadable += 1  # a device that was lied to says what nobody takes: they drop it
            return
        kept = self.samples[topic]
        if len(kept) < 40:
            kept.append((sender, body))
        super()._pass_on(broker, bus, sender, effect)

    def _feed(self, ident: str, event: object, only: Any = None) -> None:
        if isinstance(event, FrameArrived) and len(self.frames) < 200:
            self.frames.append((ident, event.sender, event))
        super()._feed(ident, event, only)

    def settle(self) -> None:
        """Three devices share the model, and answer two askers."""
        for number in range(3):
            self.add(f"d{number}", memory_bytes=35 * MIB, holds=number == 0)
        assert self.run_until(self.serves, 300), "\n".join(self.log)
        for _ in range(2):
            self.ask((1, 2, 3), 30)
        self.run(1.0)
        for message in (Call("replan", "0" * 15 + "2"), Gone("0" * 15 + "9", 1, True)):
            self.samples[topic_of(message)].append((message.device, encode_message(message)))

    def serves(self) -> bool:
        plans = [device.machine.local.plan for device in self.devices.values()]
        return all(plan is not None and plan.active for plan in plans)


@pytest.fixture(scope="module")
def heard() -> dict[Topic, list[tuple[str, bytes]]]:
    """What was said in a swarm, by topic."""
    world = Traffic()
    world.settle()
    world.kill("0" * 15 + "2")
    world.run(30)
    kinds = {topic.kind for topic in world.samples}
    assert kinds | {Kind.SHARD} >= set(Kind) - {Kind.REPAIR}
    return world.samples


def test_payloads_at_the_courier(fuzz_count: int, heard: dict[Topic, list[tuple[str, bytes]]]) -> None:
    """Whatever is wrong, exactly one thing happens: it is handed on whole, or dropped and counted."""
    mutator, got, dropped = Mutator(40), list[Message](), list[str]()
    me = "0" * 15 + "1"
    courier = Courier(KEY, me, lambda _, message: got.append(message), dropped.append)
    topics = sorted(heard, key=str)
    bodies = [body for kept in heard.values() for _, body in kept]
    for _ in range(fuzz_count):
        topic = mutator.random.choice(topics)
        sender, body = mutator.random.choice(heard[topic])
        path, right = topic.path(SWARM), mutator.random.random()
        if right < 0.15:  # a stranger's key, or a change on the way
            sealed = seal(OTHER_KEY if right < 0.02 else KEY, path, sender, body)
            payload = mutator.blob(sealed, bodies)
        else:
            payload = seal(KEY, path, sender, mutator.json(body, bodies))
        if mutator.random.random() < 0.03:
            path = mutator.blob(path.encode()).decode("utf-8", "replace")
        courier.receive(path, payload)
        retained = not payload and topic.kind.delivery.retain
        assert len(got) + len(dropped) == 1 or retained
        if got:
            assert valid(topic, payload)
        got.clear(), dropped.clear()
    for topic in topics:
        for sender, body in heard[topic]:
            courier.receive(topic.path(SWARM), seal(KEY, topic.path(SWARM), sender, body))
    assert len(got) == sum(map(len, heard.values())) and not dropped


def valid(topic: Topic, payload: bytes) -> bool:
    try:
        opened = open_sealed(KEY, topic.path(SWARM), payload, len(payload))
        decode_message(topic.kind, opened.body)
    except (Malformed, Foreign):
        return False
    return True


@pytest.mark.parametrize("target", [1, 2], ids=["leads", "works"])
def test_what_members_say_inside_machines(fuzz_count: int, target: int) -> None:
    """Each machine goes on through many episodes of lies, with answers, steps and timers in between."""
    mutator, fed, episode = Mutator(50 + target), 0, 0
    ident = f"{target:016x}"
    while fed < fuzz_count:
        episode += 1
        world = Traffic(episode)
        world.settle()
        decoded = list(lies(world, mutator, ident, 300))
        for number, event in enumerate(decoded):
            world._feed(ident, event)
            fed += 1
            if number % 10 == 0:
                world.run(mutator.random.choice((0.0, 0.01, 0.5, 2.0)))
        bounded(world.devices[ident].machine)
        world.run(120)
        bounded(world.devices[ident].machine)


def lies(world: Traffic, mutator: Mutator, ident: str, count: int) -> Any:
    """Well-formed messages and frames for one device that say what nobody meant."""
    bodies = [body for kept in world.samples.values() for _, body in kept]
    known = sorted(world.devices)
    topics = [
        topic
        for topic in sorted(world.samples, key=str)
        if topic.kind is not Kind.OUT and (topic.kind not in (Kind.ASK, Kind.REPAIR) or topic.ident == ident)
    ]
    while count:
        if mutator.random.random() < 0.1 and world.frames:
            _, sender, event = mutator.random.choice(world.frames)
            yield FrameArrived(sender, lying_rows(event.activation, mutator))
            count -= 1
            continue
        topic = mutator.random.choice(topics)
        sender, body = mutator.random.choice(world.samples[topic])
        try:
            message = decode_message(topic.kind, mutator.json(body, bodies))
            topic_of(message, ident)
        except (Malformed, ValueError):
            continue
        # A member can seal in anybody's name.
        name = getattr(message, "host", getattr(message, "device", sender))
        yield Received(name if mutator.random.random() < 0.8 else mutator.random.choice(known), message)
        count -= 1


def lying_rows(activation: Any, mutator: Mutator) -> Any:
    """Rows with other numbers in their head, as the wire could carry them."""
    from dataclasses import replace

    def number(old: int, most: int) -> int:
        if mutator.random.random() < 0.7:
            return old
        return min(most, mutator.random.choice((0, 1, old + 1, max(0, old - 1), mutator.number())))

    slots = tuple(
        replace(
            slot, step=number(slot.step, 1 << 30), position=number(slot.position, 1 << 30),
            session=slot.session if mutator.random.random() < 0.9 else "ef" * 8,
        )
        for slot in activation.slots
    )  # fmt: skip
    return replace(
        activation, epoch=number(activation.epoch, 1 << 62), stage=number(activation.stage, 65535),
        pipeline=number(activation.pipeline, 65535), slots=slots * mutator.random.choice((1, 1, 1, 2)),
    )  # fmt: skip


def bounded(machine: Any) -> None:
    """No table of a machine grows with what was said to it."""
    for path, size in tables(machine, "machine", "swisd.core"):
        assert size <= 5000, f"{path} holds {size}"
