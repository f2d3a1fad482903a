"""The port's handshake, the lane's first words and the probes over UDP against mutated bytes."""

import asyncio
import socket
from collections import deque
from contextlib import suppress

import pytest

from swisd.bus.probing import Responder, _Asker, _Seeker
from swisd.core.checked import Malformed
from swisd.net.listener import Listener
from swisd.net.secure import dial
from swisd.transport.api import LaneDown
from swisd.transport.link import READY, FrameLink, connect
from swisd.wire import handshake
from swisd.wire.handshake import Hello, Purpose, Refused
from swisd.wire.probe import PROBE_BYTES, HostAddress, encode_probe, encode_reply, read_probe, read_reply
from tests.fuzz.mutate import Mutator
from tests.fuzz.pipes import Pipe

pytestmark = pytest.mark.timeout(900)
KEY, OTHER_KEY = b"k" * 16, b"o" * 16
PEER, ME = "22" * 8, "11" * 8
BATCH = 32  # below the listener's limit of pending strangers


class Door:
    """A listener for all purposes and whom it let in."""

    def __init__(self) -> None:
        self.let_in: list[Purpose] = []
        self.listener = Listener(KEY, dict.fromkeys(Purpose, self._enter), max_pending=64, proof_timeout=20)

    async def _enter(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.let_in.append(hello.purpose)

    async def settled(self) -> None:
        while self.listener._tasks:
            await asyncio.wait(list(self.listener._tasks), timeout=30)


class Stranger:
    """A connector that says `hello`, and answers the acceptor's proof with a change of the right words."""

    def __init__(self, door: Door, mutator: Mutator, hello: bytes, *, lies_later: bool) -> None:
        self.mutator, self.lies_later = mutator, lies_later
        self.hello, self.confirm, self.right = hello, b"", b""
        self.pipe = Pipe(self._accepted)
        door.listener._accepted(self.pipe.reader, self.pipe.writer)
        for piece in mutator.pieces(hello):
            self.pipe.feed(piece)
        if not lies_later:
            self.pipe.hang_up()

    def _accepted(self, words: bytes) -> None:
        greeting = handshake.read_hello(KEY, self.hello[: handshake.HELLO_BYTES])
        self.right = handshake.read_accept(KEY, greeting, words)
        self.confirm = self.mutator.blob(self.right, [self.hello, words]) if self.lies_later else b""
        self.pipe.feed(self.confirm)
        self.pipe.hang_up()

    @property
    def proved(self) -> bool:
        said = self.hello[handshake.HELLO_BYTES :] + self.confirm
        return bool(self.right) and said.startswith(self.right)


async def test_the_handshake_in_memory(fuzz_count: int) -> None:
    door, mutator = Door(), Mutator(1)
    hellos = [
        handshake.hello(key, purpose, PEER, bytes([number]) * 16)
        for number, purpose in enumerate(Purpose)
        for key in (KEY, OTHER_KEY)
    ]
    good = hellos[::2]
    done = 0
    while done < fuzz_count:
        before = door.listener.refused.total(), len(door.let_in)
        strangers = []
        for _ in range(BATCH):
            later = mutator.random.random() < 0.5
            sample = mutator.random.choice(good if later else hellos)
            hello = sample if later else mutator.blob(sample, hellos)
            strangers.append(Stranger(door, mutator, hello, lies_later=later))
        await door.settled()
        done += BATCH
        proved = sum(each.proved for each in strangers)
        assert len(door.let_in) - before[1] == proved
        silent = sum(not each.hello for each in strangers)  # they only asked whether somebody is there
        assert door.listener.refused.total() - before[0] == BATCH - proved - silent
        assert all(each.pipe.closed for each in strangers)
        assert all(bool(each.pipe.written) == (each.right != b"") for each in strangers)
    assert door.listener.connections == 0 and not door.listener._pending
    assert set(door.listener.refused) <= {"bad magic", "wrong key", "closed early"}


async def test_the_handshake_over_sockets(fuzz_count: int) -> None:
    mutator, proved = Mutator(2), asyncio.Queue[Purpose]()

    async def enter(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proved.put_nowait(hello.purpose)

    listener = await Listener.start("127.0.0.1", 0, KEY, dict.fromkeys(Purpose, enter))
    try:
        silent, count = 0, fuzz_count // 20
        for _ in range(count):
            hello = handshake.hello(KEY, mutator.random.choice(list(Purpose)), PEER, b"n" * 16)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            words = mutator.blob(hello)
            silent += not words  # who says nothing only asks whether somebody is there
            writer.write(words)
            writer.write_eof()
            with suppress(ConnectionResetError):  # it was cut with bytes unread
                assert len(await asyncio.wait_for(reader.read(), 20)) in (0, handshake.ACCEPT_BYTES)
            writer.transport.abort()
        assert listener.refused.total() == count - silent and proved.empty()
        for purpose in Purpose:
            _, writer = await dial("127.0.0.1", listener.port, KEY, PEER, purpose)
            assert await asyncio.wait_for(proved.get(), 20) is purpose
            writer.transport.abort()
    finally:
        await listener.close()


async def test_an_acceptor_that_lies(fuzz_count: int) -> None:
    """What a connector hears instead of a proof, and instead of a lane's first words."""
    mutator = Mutator(3)
    greeting = Hello(Purpose.LANE, ME, b"m" * 16)
    right = handshake.accept(KEY, greeting, b"n" * 16)
    ready = READY + bytes.fromhex(PEER)
    for _ in range(fuzz_count):
        words = mutator.blob(right, [ready])
        try:
            handshake.read_accept(KEY, greeting, words)
            assert words == right
        except Refused:
            assert words != right
    for number in range(fuzz_count // 5):
        pipe = Pipe()
        words = mutator.blob(ready, [right]) if number else ready
        link = FrameLink(PEER, lambda *_: None, lambda _: None, lambda *_: None)
        pipe.feed(words)
        pipe.hang_up()
        try:
            await asyncio.wait_for(connect(PEER, pipe.reader, pipe.writer, link), 20)
            assert words.startswith(ready)
        except (LaneDown, asyncio.IncompleteReadError):
            assert not words.startswith(ready)
        link.abort("done")
        pipe.close()
        await asyncio.sleep(0)


class _Sent(asyncio.DatagramTransport):
    """Datagrams that were sent, none of which leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[bytes, object]] = []

    def sendto(self, data: bytes, addr: object = None) -> None:  # type: ignore[override]
        self.sent.append((data, addr))


def test_probes_and_their_answers(fuzz_count: int) -> None:
    mutator, where = Mutator(4), ("127.0.0.1", 9)
    host = HostAddress(PEER, "10.0.0.7", 7947, 3, 1, True)
    responder = Responder(KEY, lambda: host)
    transport = responder._transport = _Sent()
    probes = [encode_probe(key, bytes([number]) * 16) for number, key in enumerate((KEY, OTHER_KEY, KEY))]
    for _ in range(fuzz_count):
        data = mutator.blob(mutator.random.choice(probes), probes)[: mutator.random.choice((128, 65507))]
        before = responder.refused.total(), responder.answered
        responder.datagram_received(data, where)
        answered = responder.answered - before[1]
        assert responder.refused.total() - before[0] + answered == 1
        if answered:
            read_probe(KEY, data)
            assert len(transport.sent.pop()[0]) <= PROBE_BYTES
        assert len(responder._seen) <= 4096

    nonce, found = b"n" * 16, list[HostAddress]()
    asker = _Asker(KEY, deque([nonce]), found.append)
    seeker = _Seeker(KEY, nonce)
    seeker.connection_made(_Sent())
    replies = [
        encode_reply(KEY, nonce, host), encode_reply(KEY, nonce, HostAddress(ME, "", 1)),
        encode_reply(OTHER_KEY, nonce, host), encode_reply(KEY, b"o" * 16, host),
    ]  # fmt: skip
    for _ in range(fuzz_count):
        data = mutator.blob(mutator.random.choice(replies), replies)
        heard = len(found)
        asker.datagram_received(data, where)
        seeker.datagram_received(data, where)
        try:
            read_reply(KEY, [nonce], data)
            valid = True
        except (Malformed, Refused):
            valid = False
        assert len(found) - heard == valid
        assert len(seeker.hosts) <= 2 and len(seeker._asked) <= 32


def test_an_answer_of_a_member_whose_fields_are_wrong(fuzz_count: int) -> None:
    """The proof is right and what it proves is not."""
    mutator, nonce = Mutator(5), b"n" * 16
    body = encode_reply(KEY, nonce, HostAddress(PEER, "10.0.0.7", 7947, 3, 1, True))[:-32]
    from swisd.wire.probe import _tag

    for _ in range(fuzz_count):
        words = mutator.blob(body)
        try:
            host = read_reply(KEY, [nonce], words + _tag(KEY, b"reply", nonce + words))
        except (Malformed, Refused):
            continue
        assert 1 <= host.port <= 65535 and len(host.device) == 16


async def test_datagrams_over_sockets(fuzz_count: int) -> None:
    mutator = Mutator(6)
    responder = await Responder.start("127.0.0.1", 0, KEY, lambda: HostAddress(PEER, "", 7947))
    assert responder._transport is not None
    port = responder._transport.get_extra_info("sockname")[1]
    probe = encode_probe(KEY, b"\1" * 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", port))
        stranger.setblocking(False)
        for _ in range(fuzz_count // 20):
            stranger.send(mutator.blob(probe))
            await asyncio.sleep(0)
        stranger.send(encode_probe(KEY, b"\2" * 16))
        async with asyncio.timeout(20):
            while True:
                data = await asyncio.get_running_loop().sock_recv(stranger, 2048)
                try:
                    assert read_reply(KEY, [b"\2" * 16], data).device == PEER
                    break
                except Refused:
                    continue  # the answer to a probe that was not changed
    responder.close()
