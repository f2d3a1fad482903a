"""What every bus promises, whoever carries it."""

import pytest

from swisd.bus.api import NOT_CONNECTED, Will

from .worlds import ROOT, World


async def test_a_message_reaches_those_who_asked_for_it(world: World):
    a, b, c = await world.peer(1), await world.peer(2), await world.peer(3)
    await b.hears("beat/+")
    await c.hears("plan")
    a.says("beat/x", b"1")
    a.says("beat/x/deeper", b"no")
    a.says("plan", b"2")
    a.says("beat/y", b"3", qos=0)
    await b.until(lambda: len(b.got) == 2)
    await c.until(lambda: c.got)
    assert b.got == [("beat/x", b"1"), ("beat/y", b"3")]
    assert c.got == [("plan", b"2")]
    assert a.got == []


async def test_wildcards_and_own_messages(world: World):
    a = await world.peer(1)
    await a.hears("#")
    for topic in ("one", "one/two", "one/two/three"):
        a.says(topic, topic.encode())
    await a.until(lambda: len(a.got) == 3)
    assert a.got == [(t, t.encode()) for t in ("one", "one/two", "one/two/three")]


async def test_unsubscribed_is_no_longer_heard(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("x", "y")
    b.bus.unsubscribe(f"{ROOT}/x")
    b.bus.unsubscribe(f"{ROOT}/never")
    await b.hears("z")  # confirmed after the wish to hear no more
    a.says("x", b"no")
    a.says("y", b"yes")
    await b.until(lambda: b.got)
    assert b.got == [("y", b"yes")]


async def test_what_is_retained_reaches_who_comes_later_until_it_is_cleared(world: World):
    a, sees = await world.peer(1), await world.peer(2)
    await sees.hears("#")
    a.says("plan", b"old", retain=True)
    a.says("plan", b"new", retain=True)
    a.says("cap/a", b"cap", retain=True)
    a.says("cap/b", b"gone soon", retain=True)
    a.says("cap/b", b"", retain=True)
    await sees.until(lambda: len(sees.got) == 5)
    late = await world.peer(3)
    await late.hears("plan", "cap/+", qos=0)
    await late.until(lambda: len(late.got) >= 2)
    a.says("cap/c", b"last")
    await late.until(lambda: ("cap/c", b"last") in late.got)
    assert sorted(late.got) == [("cap/a", b"cap"), ("cap/c", b"last"), ("plan", b"new")]


async def test_a_newcomer_gets_nothing_it_did_not_ask_for(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("cap/+", "plan")
    a.says("cap/a", b"cap", retain=True)
    await b.until(lambda: b.got)
    late = await world.peer(3)
    await late.hears("plan")
    a.says("plan", b"plan")
    await late.until(lambda: late.got)
    assert late.got == [("plan", b"plan")]


@pytest.mark.parametrize("qos", [0, 1])
async def test_order_is_kept(world: World, qos: int):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("out/+", qos=qos)
    for number in range(300):
        a.says("out/s", str(number).encode(), qos=qos)
    await b.until(lambda: len(b.got) == 300)
    assert [int(payload) for _, payload in b.got] == list(range(300))


async def test_large_and_binary_payloads_arrive_as_they_are(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("shard/b", qos=0)
    payloads = [bytes(range(256)) * 4096, b"\x00", b"", bytes([0xFF]) * 3, "é\0\r\n".encode()]
    for payload in payloads:
        a.says("shard/b", payload, qos=0)
    await b.until(lambda: len(b.got) == len(payloads))
    assert [payload for _, payload in b.got] == payloads


async def test_the_will_is_spoken_after_a_break_and_not_after_a_farewell(world: World):
    watcher = await world.peer(1)
    await watcher.hears("gone/+")
    polite = await world.peer(2, Will(f"{ROOT}/gone/polite", b"will"))
    rude = await world.peer(3, Will(f"{ROOT}/gone/rude", b"will"))
    polite.says("gone/polite", b"farewell")
    await polite.bus.close()
    await watcher.until(lambda: watcher.got)
    world.cut(rude)
    await watcher.until(lambda: len(watcher.got) == 2)
    assert watcher.got == [("gone/polite", b"farewell"), ("gone/rude", b"will")]


async def test_subscriptions_survive_a_broken_connection(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("plan", "out/+")
    world.cut(b)
    await b.until(lambda: [state for state, _ in b.states] == [True, False, True])
    await b.bus.settled()
    a.says("out/x", b"back")
    await b.until(lambda: b.got)
    assert b.got == [("out/x", b"back")]
    assert all(reason for _, reason in b.states)


async def test_without_a_broker_qos_1_waits_and_qos_0_is_dropped_and_counted(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("#")
    await world.stop_broker()
    await a.until(lambda: not a.bus.connected)
    await b.until(lambda: not b.bus.connected)
    a.says("beat/a", b"lost", qos=0)
    a.says("ask/b", b"waits")
    b.bus.subscribe(f"{ROOT}/more", 1)
    assert a.bus.drops[NOT_CONNECTED] == 1
    await world.start_broker()
    await b.online()
    await b.bus.settled(timeout=20)
    await a.online()
    a.says("out/x", b"after", qos=0)
    # Whether b subscribed before a's waiting message went out is chance; the link itself must work again.
    await b.until(lambda: ("out/x", b"after") in b.got)
    assert ("beat/a", b"lost") not in b.got


async def test_what_waited_is_delivered(world: World):
    a = await world.peer(1, start=False)
    b = await world.peer(2)
    await b.hears("#")
    a.says("ask/b", b"early", qos=0)
    a.says("ask/b", b"first")
    a.says("ask/b", b"second")
    await a.bus.start()
    await b.until(lambda: len(b.got) == 2)
    assert b.got == [("ask/b", b"first"), ("ask/b", b"second")]


async def test_a_second_client_with_the_same_id_takes_over(world: World):
    watcher = await world.peer(1)
    await watcher.hears("gone/+")
    first = await world.peer(2, Will(f"{ROOT}/gone/2", b"will"))
    second = await world.peer(2)
    await watcher.until(lambda: watcher.got)
    await first.until(lambda: any(not connected for connected, _ in first.states))
    await first.bus.close()
    await second.online()
    await second.hears("plan")
    watcher.says("plan", b"x")
    await second.until(lambda: second.got)


async def test_bad_names_are_told_at_once(world: World):
    a = await world.peer(1)
    for topic in ("", "a/+/b", "#", "a\0b"):
        with pytest.raises(ValueError, match="not a topic"):
            a.bus.publish(topic, b"", 0, False)
    for pattern in ("", "a/#/b", "a+", "a/b#", "a\0"):
        with pytest.raises(ValueError, match="not a topic filter"):
            a.bus.subscribe(pattern, 0)


async def test_a_bound_on_what_waits(world: World):
    a = await world.peer(1, start=False)
    for _ in range(1030):
        a.says("ask/b", b"x")
    assert a.bus.drops["queue full"] == 6


async def test_after_close_there_is_silence(world: World):
    a, b = await world.peer(1), await world.peer(2)
    await b.hears("#")
    await b.bus.close()
    await b.bus.close()
    states = list(b.states)
    a.says("x", b"1")
    other = await world.peer(3)
    await other.hears("#")
    a.says("x", b"2")
    await other.until(lambda: other.got)
    assert b.got == [] and b.states == states and not b.bus.connected
    b.says("x", b"3", qos=0)
    assert b.bus.drops[NOT_CONNECTED] == 1
