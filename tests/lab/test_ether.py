"""The shared medium, without any clock: times, rates, fairness and chance are exact or bounded."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.ether import ARP, Delivery, Ether, Link

EVERYONE = b"\xff" * 6
MBIT = 1e6


def mac(port: str) -> bytes:
    return b"\x02\x00\x00\x00\x00" + port.encode()


def frame(
    source: str, target: str | None, size: int = 1000, kind: bytes = b"\x08\x00", mark: int = 0
) -> bytes:
    head = (mac(target) if target else EVERYONE) + mac(source) + kind + mark.to_bytes(4, "big")
    return head.ljust(size, b"\0")


def marks(out: list[Delivery]) -> list[int]:
    return [int.from_bytes(each.frame[14:18], "big") for each in out]


def medium(link: Link | None = None, *, ports: str = "ab", learn: bool = True, **options) -> Ether:
    """An ether whose ports have said their addresses; ports share one kind of link."""
    ether = Ether(**options)
    for port in ports:
        ether.add(port, link)
    if learn:
        for port in ports:
            ether._macs[mac(port)] = port
    return ether


def drain(ether: Ether) -> list[Delivery]:
    """All that is still to come."""
    out = []
    while (at := ether.next_at) is not None:
        out.extend(ether.advance(at))
    return out


def send(ether: Ether, frames: list[tuple[float, str, bytes]]) -> list[Delivery]:
    out = []
    for now, port, data in frames:
        out.extend(ether.push(port, data, now))
    return out + drain(ether)


def test_a_frame_takes_the_delays_of_both_ends() -> None:
    ether = medium()
    ether.set_link("a", Link(delay_s=0.002))
    ether.set_link("b", Link(delay_s=0.003))
    [one] = send(ether, [(1.0, "a", frame("a", "b"))])
    assert (one.port, one.at) == ("b", pytest.approx(1.005))


def test_air_is_paid_for_up_and_down() -> None:
    """1000 bytes at 8 Mbit/s are 1 ms, twice."""
    ether = medium(air_rate=8 * MBIT)
    [one] = send(ether, [(0.0, "a", frame("a", "b"))])
    assert one.at == ether.air_s == pytest.approx(0.002)
    assert ether.next_at is None


def test_the_air_is_one_and_two_pairs_share_it() -> None:
    many = 100
    pair = send(medium(air_rate=8 * MBIT), [(0.0, "a", frame("a", "b"))] * many)
    ether = medium(ports="abcd", air_rate=8 * MBIT)
    both = send(ether, [(0.0, "a", frame("a", "b")), (0.0, "c", frame("c", "d"))] * many)
    assert max(each.at for each in pair) == pytest.approx(2 * many * 0.001)
    assert max(each.at for each in both) == pytest.approx(4 * many * 0.001)


def test_a_wire_carries_both_directions_and_all_pairs_at_once() -> None:
    link = Link(rate=8 * MBIT)
    frames = [(0.0, a, frame(a, b)) for a, b in ("ab", "ba", "cd", "dc")] * 50
    out = send(medium(link, ports="abcd"), frames)
    # 50 ms each, and the last frame once more on its way down
    assert max(each.at for each in out) == pytest.approx(0.051)


def test_stations_take_turns_however_much_one_of_them_has_to_send() -> None:
    ether = medium(ports="abcd", air_rate=8 * MBIT)
    greedy = [(0.0, "a", frame("a", "d", mark=1))] * 200
    late = [(0.0, "b", frame("b", "d", mark=2))] * 10
    out = marks(send(ether, greedy + late))
    assert len(out) == 210
    assert 2 not in out[30:]  # the ten did not wait behind the two hundred


def test_a_slow_station_keeps_the_air_from_the_others() -> None:
    def time_of_b(rate_of_a: float) -> float:
        ether = medium(ports="abc", air_rate=50 * MBIT)
        ether.set_link("a", Link(rate=rate_of_a))
        frames = [(0.0, port, frame(port, "c", mark=ord(port))) for port in "ab"] * 50
        out = send(ether, frames)
        return max(each.at for each in out if each.frame[17] == ord("b"))

    assert time_of_b(1 * MBIT) > 10 * time_of_b(50 * MBIT)


def test_a_group_frame_is_sent_down_once_for_all() -> None:
    out = send(medium(ports="abcd", air_rate=8 * MBIT), [(0.0, "a", frame("a", None))])
    assert [(each.port, each.at) for each in out] == [(port, pytest.approx(0.002)) for port in "bcd"]


def test_addresses_are_learned_and_unknown_ones_flooded() -> None:
    ether = medium(ports="abc", learn=False)
    assert {each.port for each in send(ether, [(0.0, "a", frame("a", "b"))])} == {"b", "c"}
    assert {each.port for each in send(ether, [(0.0, "b", frame("b", "a"))])} == {"a"}
    assert {each.port for each in send(ether, [(0.0, "a", frame("a", "b"))])} == {"b"}
    assert send(ether, [(0.0, "a", frame("a", "a"))]) == []


def test_filtered_group_frames_vanish_but_arp_and_unknown_addresses_do_not() -> None:
    ether = medium(ports="abc", learn=False, multicast=False)
    assert send(ether, [(0.0, "a", frame("a", None))]) == []
    assert ether.counts["a"]["filtered"] == 1
    assert len(send(ether, [(0.0, "a", frame("a", None, kind=ARP))])) == 2
    assert len(send(ether, [(0.0, "a", frame("a", "b"))])) == 2


def test_a_cut_pair_and_a_cut_port_heal() -> None:
    ether = medium(ports="abc")
    ways = [(0.0, x, frame(x, y)) for x in "abc" for y in "abc" if x != y]
    ether.cut("b", "a")
    assert len(send(ether, ways)) == 4
    ether.heal("a", "b")
    assert len(send(ether, ways)) == 6
    ether.cut("c")
    assert {each.port for each in send(ether, ways)} == {"a", "b"}
    ether.heal("c")
    assert len(send(ether, ways)) == 6
    with pytest.raises(ValueError, match="no port"):
        ether.cut("a", "z")


def test_a_full_queue_drops_its_tail() -> None:
    ether = medium(Link(queue_bytes=10_000), air_rate=1 * MBIT)
    out = send(ether, [(0.0, "a", frame("a", "b", mark=n)) for n in range(50)])
    assert marks(out) == list(range(11))  # one in the air and ten that wait
    assert ether.counts["a"]["overflow"] == 39


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.2, 1.0])
def test_as_many_are_lost_as_was_asked_for(loss: float) -> None:
    ether = medium(seed=3)
    ether.set_link("a", Link(loss=loss))
    many = 20_000
    got = len(send(ether, [(0.0, "a", frame("a", "b", 64))] * many))
    spread = 5 * (many * loss * (1 - loss)) ** 0.5
    assert abs(got - many * (1 - loss)) <= spread
    assert ether.counts["a"]["lost"] == many - got


def test_loss_at_both_ends_adds_up() -> None:
    got = len(send(medium(Link(loss=0.5), seed=1), [(0.0, "a", frame("a", "b", 64))] * 8000))
    assert got == pytest.approx(2000, abs=200)


def test_duplicates_and_overtaking_come_as_often_as_asked() -> None:
    ether = medium(seed=5)
    ether.set_link("a", Link(duplicate=0.1, reorder=0.1, reorder_s=0.01))
    out = sorted(send(ether, [(n / 1000, "a", frame("a", "b", mark=n)) for n in range(4000)]))
    seen = marks(out)
    assert len(seen) - len(set(seen)) == pytest.approx(400, abs=100)
    overtaken = sum(a > b for a, b in itertools.pairwise(seen))
    assert overtaken == pytest.approx(400, abs=150)


def test_short_frames_are_counted_and_go_nowhere() -> None:
    ether = medium()
    assert send(ether, [(0.0, "a", b"short")]) == []
    assert ether.counts["a"]["malformed"] == 1


@pytest.mark.parametrize("bad", [{"loss": 1.1}, {"delay_s": -1}, {"rate": 0}, {"reorder": -0.1}])
def test_a_link_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Link(**bad)


traffic = st.lists(
    st.tuples(
        st.floats(0, 0.01), st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None]),
        st.integers(18, 1514),
    ),
    max_size=60,
)  # fmt: skip
media = st.fixed_dictionaries(
    {"air_rate": st.none() | st.floats(1e5, 1e8), "multicast": st.booleans(), "seed": st.integers(0, 99)}
)
links = st.builds(
    Link, delay_s=st.floats(0, 0.05), jitter_s=st.floats(0, 0.05), loss=st.floats(0, 0.5),
    rate=st.none() | st.floats(1e5, 1e8), duplicate=st.floats(0, 0.5), reorder=st.floats(0, 0.5),
    queue_bytes=st.integers(2000, 300_000),
)  # fmt: skip


def walk(ether: Ether, steps: list) -> list[Delivery]:
    now, frames = 0.0, []
    for mark, (pause, source, target, size) in enumerate(steps):
        now += pause
        frames.append((now, source, frame(source, target, size, mark=mark)))
    return send(ether, frames)


@given(traffic, media, links)
@settings(max_examples=60, deadline=None)
def test_the_same_seed_gives_the_same_deliveries(steps: list, options: dict, link: Link) -> None:
    first, again = medium(link, ports="abc", **options), medium(link, ports="abc", **options)
    assert walk(first, steps) == walk(again, steps)
    assert first.counts == again.counts


@given(traffic, media, links)
@settings(max_examples=60, deadline=None)
def test_nothing_comes_early_twice_to_its_sender_or_from_nowhere(
    steps: list, options: dict, link: Link
) -> None:
    ether = medium(link, ports="abc", **options)
    out = walk(ether, steps)
    rates = [rate for rate in (link.rate, options["air_rate"]) if rate is not None]
    at = 0.0
    sent = []
    for pause, source, *_ in steps:
        at += pause
        sent.append((at, source))
    for each, mark in zip(out, marks(out), strict=True):
        when, source = sent[mark]
        least = 2 * link.delay_s + (2 * len(each.frame) * 8 / min(rates) if rates else 0)
        assert each.at >= when + least - 1e-9
        assert each.port != source
    total = sum((counts for counts in ether.counts.values()), start=type(ether.counts["a"])())
    assert total["out"] == len(out)
    assert total["in"] == len(steps)


@given(traffic, media, st.floats(0, 0.05), st.floats(0, 0.05))
@settings(max_examples=60, deadline=None)
def test_the_order_of_each_pair_is_kept_with_and_without_jitter(
    steps: list, options: dict, delay: float, jitter: float
) -> None:
    steps = [(pause, source, target, size) for pause, source, target, size in steps if target]
    out = walk(medium(Link(delay_s=delay, jitter_s=jitter), ports="abc", **options), steps)
    pairs: dict[tuple[bytes, str], list[tuple[float, int]]] = {}
    for each, mark in zip(out, marks(out), strict=True):
        pairs.setdefault((each.frame[6:12], each.port), []).append((each.at, mark))
    for seen in pairs.values():
        assert [mark for _, mark in seen] == sorted(mark for _, mark in seen)
        assert [at for at, _ in seen] == sorted(at for at, _ in seen)


@given(st.integers(1, 200), st.integers(64, 1514), st.floats(1e5, 1e8))
@settings(max_examples=40, deadline=None)
def test_throughput_between_two_stations_is_half_the_air(many: int, size: int, rate: float) -> None:
    link = Link(queue_bytes=1 << 20)
    out = send(medium(link, air_rate=rate), [(0.0, "a", frame("a", "b", size))] * many)
    assert max(each.at for each in out) == pytest.approx(2 * many * size * 8 / rate)
