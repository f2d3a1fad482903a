"""`Client` and `AsyncClient` on a home without a swarm: the model runs in this process."""

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

import swisd
from swisd.client import Answer, AsyncClient, Client, Options, Piece, SwisdError
from swisd.client.blocking import LoopThread
from swisd.core.errors import BadInput, NoSwarm
from swisd.node.compute import Compute
from swisd.node.lonely import LonelyDevice
from tests.node.conftest import Until
from tests.node.fakes import FakeModel

GREEDY = Options(max_tokens=8, temperature=0.0, raw=True)
LONG = Options(max_tokens=230, temperature=0.0, raw=True)


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started and ended, in order."""
    seen: list[str] = []
    start, stop, close = LonelyDevice.start, LonelyDevice.stop, Compute.close

    async def started(self: LonelyDevice) -> None:
        seen.append("start")
        await start(self)

    async def stopped(self: LonelyDevice) -> None:
        await stop(self)
        seen.append("stop")

    async def closed(self: Compute) -> None:
        await close(self)
        seen.append("close")

    monkeypatch.setattr(LonelyDevice, "start", started)
    monkeypatch.setattr(LonelyDevice, "stop", stopped)
    monkeypatch.setattr(Compute, "close", closed)
    return seen


@pytest.fixture
def client(quick: None, fake_home: FakeModel, lives: list[str]) -> Iterator[Client]:
    before = set(threading.enumerate())
    yield Client(fake_home.home.path, settings=fake_home.settings)
    gc.collect()
    left = {thread for thread in threading.enumerate() if thread.name == "swisd client"} - before
    assert not left


def test_the_package_offers_the_client() -> None:
    assert swisd.Client is Client
    with pytest.raises(AttributeError):
        _ = swisd.Klient


def test_an_answer_alone_and_the_same_again(client: Client, lives: list[str]) -> None:
    first = client.ask("the sea", GREEDY)
    assert len(first.token_ids) == 8 and first.text
    assert client.ask("the sea", GREEDY).token_ids == first.token_ids
    assert lives == ["start", "close", "stop"] * 2


def test_what_it_waits_for_is_told(quick: None, fake_home: FakeModel) -> None:
    told: list[str] = []
    Client(fake_home.home.path, settings=fake_home.settings, tell=told.append).ask("the sea", GREEDY)
    assert "running on this device alone" in told[0]


def test_a_stream_ends_with_the_answer(client: Client) -> None:
    items = list(client.stream("the sea", GREEDY))
    answer = items[-1]
    assert isinstance(answer, Answer)
    assert sum(len(item.token_ids) for item in items if isinstance(item, Piece)) == 8


def test_closing_a_stream_early_frees_everything(client: Client, lives: list[str]) -> None:
    stream = client.stream("the sea", LONG)
    while not isinstance(next(stream), Piece):
        pass
    assert lives == ["start"]
    stream.close()
    assert lives == ["start", "close", "stop"]
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_leaving_a_loop_over_a_stream_frees_everything(client: Client, lives: list[str]) -> None:
    for item in client.stream("the sea", LONG):
        if isinstance(item, Piece):
            break
    gc.collect()
    assert lives == ["start", "close", "stop"]


def test_a_stream_that_was_never_read_starts_nothing(client: Client, lives: list[str]) -> None:
    client.stream("the sea", LONG).close()
    assert lives == []


def test_an_error_in_the_callers_loop_frees_everything(client: Client, lives: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        for item in client.stream("the sea", LONG):
            if isinstance(item, Piece):
                _ = 1 / 0
    gc.collect()
    assert lives[-1] == "stop"


@pytest.mark.parametrize("ways", ["ask", "stream", "evaluate"])
def test_failures_are_swisd_errors(client: Client, ways: str, lives: list[str]) -> None:
    with pytest.raises(SwisdError, match=r"empty|short"):
        if ways == "ask":
            client.ask("  ", Options())
        elif ways == "stream":
            list(client.stream("", Options()))
        else:
            client.evaluate("a")
    assert lives in ([], ["start", "close", "stop"])


def test_scores(client: Client) -> None:
    found = client.evaluate("the sea was calm", top=2)
    assert found.perplexity > 1 and len(found.top_ids[0]) == 2


def test_without_a_swarm_there_is_no_status(client: Client, fake_home: FakeModel) -> None:
    with pytest.raises(NoSwarm, match="swisd up"):
        client.status()
    with pytest.raises(NoSwarm, match="swisd up"):
        client.ask("the sea", GREEDY, alone=False)


async def test_in_an_event_loop_the_blocking_client_names_the_other_one(client: Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (
            lambda: client.ask("the sea"),
            lambda: list(client.stream("the sea")),
            lambda: client.evaluate("the sea"),
            client.status,
        ):
            with pytest.raises(BadInput, match="AsyncClient"):
                call()
        gc.collect()


async def test_the_asynchronous_client(
    quick: None, fake_home: FakeModel, lives: list[str], until: Until
) -> None:
    client = AsyncClient(fake_home.home.path, settings=fake_home.settings)
    answer = await client.ask("the sea", GREEDY)
    items = client.stream("the sea", LONG)
    while not isinstance(await anext(items), Piece):
        pass
    await items.aclose()
    assert lives == ["start", "close", "stop"] * 2
    task = asyncio.create_task(client.ask("the sea", LONG))
    await until(lambda: lives[-1] == "start")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lives == ["start", "close", "stop"] * 3
    assert len(answer.token_ids) == 8


def test_a_device_that_cannot_start_is_closed_again(
    client: Client, lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: LonelyDevice) -> None:
        raise BadInput("the disk is gone")

    monkeypatch.setattr(LonelyDevice, "start", fails)
    with pytest.raises(BadInput, match="the disk is gone"):
        client.ask("the sea", GREEDY)
    assert lives == ["close", "stop"]


def test_settings_of_the_home_are_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "swisd.toml").write_text("[devise]\n")
    with pytest.raises(BadInput, match="devise"):
        Client(tmp_path)


# --- the thread with the loop ------------------------------------------------------------------------


class Interrupted:
    """Raises `KeyboardInterrupt` in the main thread's wait, as ctrl-C does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, started: threading.Event) -> None:
        from concurrent.futures import Future

        result, calls = Future.result, []

        def once(self: Any, timeout: float | None = None) -> Any:
            if timeout is None and not calls:
                calls.append(1)
                assert started.wait(20)
                raise KeyboardInterrupt
            return result(self, timeout)

        monkeypatch.setattr(Future, "result", once)


def test_an_interrupt_ends_the_work_before_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    started, log = threading.Event(), []

    async def items() -> AsyncGenerator[int, None]:
        try:
            started.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            for _ in range(50):  # closing takes a while, as saying goodbye on the bus does
                await asyncio.sleep(0)
            log.append("closed")

    with LoopThread() as loop:
        Interrupted(monkeypatch, started)
        source = items()
        with pytest.raises(KeyboardInterrupt):
            loop.wait(anext(source))
        assert log == ["closed"]
        loop.wait(source.aclose())


def test_an_interrupt_before_the_work_has_begun_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    gate, timeouts, result = threading.Event(), [], Future.result

    def first_interrupts(self: Any, timeout: float | None = None) -> Any:
        timeouts.append(timeout)
        if timeout is None:
            raise KeyboardInterrupt
        gate.set()
        try:
            return result(self, 20)
        except TimeoutError:
            pytest.fail("the work never ended")

    async def items() -> AsyncGenerator[int, None]:
        await asyncio.Event().wait()
        yield 1

    with LoopThread() as loop:
        loop._loop.call_soon_threadsafe(gate.wait, 20)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Future, "result", first_interrupts)
            loop.wait(anext(items()))
    assert len(timeouts) == 2


def test_ctrl_c_while_a_stream_waits(
    client: Client, lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    start = LonelyDevice.start

    async def notices(self: LonelyDevice) -> None:
        await start(self)
        started.set()

    monkeypatch.setattr(LonelyDevice, "start", notices)
    Interrupted(monkeypatch, started)
    with pytest.raises(KeyboardInterrupt):
        list(client.stream("the sea", LONG))
    assert lives == ["start", "close", "stop"]


def test_errors_cross_the_threads() -> None:
    async def fails() -> None:
        raise BadInput("no")

    async def ends() -> AsyncGenerator[int, None]:
        return
        yield

    async def works() -> int:
        return 7

    with LoopThread() as loop:
        with pytest.raises(BadInput, match="no"):
            loop.wait(fails())
        with pytest.raises(StopAsyncIteration):
            loop.wait(anext(ends()))
        assert loop.wait(works()) == 7


def test_leaving_cancels_what_still_runs() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("yes")

    async def spawn() -> Any:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return task

    with LoopThread() as loop:
        kept = loop.wait(spawn())
    assert ended == ["yes"] and kept.cancelled()
