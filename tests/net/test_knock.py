"""Whether a device's process runs, on real sockets: refused, accepted, no answer."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from swisd.net.knock import port_closed, telling
from swisd.net.listener import Listener

LONG = 10.0
HERE = "127.0.0.1"
Address = tuple[str, int]


@contextmanager
def closed() -> Iterator[Address]:
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as held:
        held.bind((HERE, 0))
        yield held.getsockname()


@contextmanager
def taken() -> Iterator[Address]:
    """A port of a process that takes no connection: it is frozen, and its system takes them."""
    with socket.socket() as held:
        held.bind((HERE, 0))
        held.listen(16)
        yield held.getsockname()


@contextmanager
def silent() -> Iterator[Address]:
    """A port that answers nothing: its queue is full, so the system lets further connections lie."""
    with ExitStack() as stack:
        held = stack.enter_context(socket.socket())
        held.bind((HERE, 0))
        held.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(held.getsockname())
        yield held.getsockname()


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((closed,), True),
        ((taken,), False),
        ((silent,), False),
        ((closed, closed), True),
        ((closed, taken), False),
        ((taken, closed), False),
        ((silent, closed), True),
        ((), False),
    ],
)
async def test_a_port_is_closed_where_somebody_refuses_and_nobody_accepts(ports, expected: bool):
    with ExitStack() as stack:
        addresses = [stack.enter_context(port()) for port in ports]
        assert await port_closed(addresses, times=(0.0,), timeout=0.2) is expected


async def test_a_process_that_is_about_to_end_is_found_by_a_later_try():
    with socket.socket() as held:
        held.bind((HERE, 0))
        held.listen(16)
        held.setblocking(False)
        loop = asyncio.get_running_loop()
        address = held.getsockname()
        asking = asyncio.create_task(port_closed([address], times=(0.0, 0.1, 0.2, LONG), timeout=LONG))
        async with asyncio.timeout(LONG):
            connection, _ = await loop.sock_accept(held)
            with connection:
                connection.setblocking(False)
                assert await loop.sock_recv(connection, 1) == b""  # it went away without a word
            held.close()
            assert await asking


async def test_a_device_that_runs_does_not_count_it_among_its_strangers():
    listener = await Listener.start(HERE, 0, b"k" * 16, {})
    assert not await port_closed([(HERE, listener.port)], times=(0.0, 0.01), timeout=LONG)
    async with asyncio.timeout(LONG):
        while listener.connections:  # noqa: ASYNC110 (a counter has no event to wait for)
            await asyncio.sleep(0.005)
    assert not listener.refused
    await listener.close()
    assert await port_closed([(HERE, listener.port)], times=(0.0,), timeout=LONG)


def test_a_refusal_of_another_machines_loopback_is_ones_own():
    addresses = [("127.0.0.1", 7947), ("192.168.1.7", 7947)]
    assert telling(addresses, near=False) == [("192.168.1.7", 7947)]
    assert telling(addresses, near=True) == addresses
