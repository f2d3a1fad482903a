"""The line of succession: the same list for everyone, slots of time, and one rule for two hosts."""

from itertools import permutations

from builders import an_id
from hypothesis import given
from hypothesis import strategies as st

from swisd.core import deadlines
from swisd.core.effects import Knock, MoveBus, SetTimer
from swisd.core.events import BusChanged, PortClosed, Received, Started, Timer
from swisd.core.messages import Digest, MemberView
from swisd.core.search import BusSearch
from swisd.core.succession import Candidate, Succession, stays


def a_view(number: int, *, broker: bool = True, liveness: str = "alive") -> MemberView:
    return MemberView(
        an_id(number), f"d{number}", liveness, "idle", (f"10.0.0.{number}",), 7000, number, broker, 0
    )  # type: ignore[arg-type]


def a_digest(host: int, *members: MemberView, successor: int = 0) -> Digest:
    return Digest(an_id(host), 1, 1, members, successor=an_id(successor) if successor else None)


def me(number: int) -> Candidate:
    return Candidate(an_id(number), number, ((f"10.0.0.{number}", 7000),))


def slots(succession: Succession, now: float, count: int) -> list[str]:
    """Whose slots come, one after the other."""
    found = []
    while len(found) < count:
        if candidate := succession.due(now):
            found.append(candidate.device)
        now = max(succession.next_at, now + 0.01)
    return found


def test_everyone_goes_through_the_same_list_and_around():
    digest = a_digest(1, a_view(1), a_view(4), a_view(3, broker=False), a_view(2), a_view(5, liveness="dead"))
    for succession in (Succession(me(2)), Succession(me(4)), Succession()):
        succession.on_digest(digest)
        assert succession.lost(100.0) and not succession.lost(100.0)
        assert succession.due(100.0) is None  # the host may come back in a moment
        assert slots(succession, 100.0, 5) == [an_id(number) for number in (2, 4, 1, 2, 4)]


def test_a_device_without_a_broker_is_no_heir_and_one_that_is_not_listed_yet_is():
    phone, newcomer = Succession(), Succession(me(9))
    for succession in (phone, newcomer):
        succession.on_digest(a_digest(1, a_view(1)))
        assert succession.lost(0.0)
    assert slots(phone, 0.0, 2) == [an_id(1), an_id(1)]
    assert slots(newcomer, 0.0, 3) == [an_id(9), an_id(1), an_id(9)]


def test_a_host_that_gives_way_names_the_first_and_is_not_looked_for():
    succession = Succession(me(3))
    succession.on_digest(a_digest(1, a_view(1), a_view(2), a_view(3), a_view(8), successor=8))
    succession.lost(0.0, grace=0.0)
    assert slots(succession, 0.0, 4) == [an_id(number) for number in (8, 2, 3, 8)]


def test_whoever_was_known_is_looked_for_after_the_others():
    succession = Succession(me(3))
    succession.on_digest(a_digest(1, a_view(1), a_view(2), a_view(3)))
    succession.on_digest(a_digest(2, a_view(2), a_view(3)))
    succession.lost(0.0, grace=0.0)
    assert slots(succession, 0.0, 3) == [an_id(3), an_id(2), an_id(1)]
    assert [item.device for item in succession.missing({an_id(2)})] == [an_id(1)]


def test_a_host_that_is_heard_again_ends_the_search_and_silence_begins_one():
    succession = Succession(me(3))
    assert not succession.lost(0.0)  # no host was ever heard
    succession.on_digest(a_digest(1, a_view(1)))
    ticks = 0
    while not succession.on_tick():
        ticks += 1
    assert ticks == deadlines.HOST_SILENT / deadlines.BEAT
    assert succession.lost(5.0, grace=0.0) and succession.searching
    succession.on_digest(a_digest(1, a_view(1)))
    assert not succession.searching and not succession.on_tick()


def test_a_bus_that_was_reached_has_a_slot_to_speak():
    succession = Succession()
    succession.on_digest(a_digest(1, a_view(1), a_view(2)))
    succession.lost(0.0, grace=0.0)
    assert succession.due(0.0) is not None
    succession.connected(1.9)
    assert succession.due(2.0) is None and succession.due(1.9 + deadlines.SLOT) is not None


claims = st.tuples(
    st.booleans(), st.integers(0, 3), st.integers(0, 2), st.sampled_from([an_id(1), an_id(2), an_id(3)])
)


@given(st.lists(claims, min_size=2, max_size=4, unique_by=lambda claim: claim[3]))
def test_of_any_hosts_exactly_one_stays(hosts: list[tuple[bool, int, int, str]]):
    left = [host for host in hosts if all(stays(host, other) for other in hosts)]
    assert len(left) == 1
    for one, other in permutations(hosts, 2):
        assert stays(one, other) != stays(other, one)


def test_followers_count_before_the_epoch_and_the_epoch_before_the_rank():
    assert stays((True, 1, 9, "b"), (False, 7, 1, "a"))
    assert stays((True, 7, 9, "b"), (True, 1, 1, "a"))
    assert stays((True, 1, 1, "a"), (True, 1, 9, "b"))


def test_an_asker_looks_where_hosts_were_until_it_hears_one_and_then_down_its_list():
    search = BusSearch((("10.0.0.9", 1), ("10.0.0.8", 2)))
    out = search.handle(Started(), 0.0)
    assert SetTimer("bus-next", deadlines.SLOT) in out
    moved = [item for item in search.handle(Timer("bus-next"), deadlines.SLOT) if isinstance(item, MoveBus)]
    assert [item.addresses for item in moved] == [(("10.0.0.9", 1),)]
    search.handle(BusChanged(True), 3.0)
    search.handle(Received(an_id(1), a_digest(1, a_view(1), a_view(2))), 3.1)
    search.handle(Received(an_id(7), a_digest(6, a_view(6))), 3.1)  # in another's name
    assert search.handle(Timer("bus-next"), 9.0) == []
    assert search.handle(BusChanged(False), 10.0) == [
        SetTimer("bus-next", 10.0 + deadlines.GRACE),
        Knock(an_id(1), (("10.0.0.1", 7000),)),
    ]
    moves = search.handle(Timer("bus-next"), 10.5)
    assert MoveBus(an_id(2), (("10.0.0.2", 7000),)) in moves


def test_a_device_that_does_not_run_has_no_slot_and_a_host_that_does_not_run_no_time_to_come_back():
    succession = Succession(me(3))
    assert not succession.closed(an_id(1), 0.0)  # nothing is lost
    succession.on_digest(a_digest(1, a_view(1), a_view(2), a_view(3)))
    assert succession.lost(0.0)
    assert not succession.closed(an_id(2), 0.01)  # its turn has not come
    assert succession.closed(an_id(1), 0.02) and succession.next_at == 0.02
    assert succession.due(0.02) == me(2)
    assert not succession.closed(an_id(1), 0.03)  # its time is over already
    assert succession.closed(an_id(2), 0.04)
    assert succession.due(0.04) == me(3) and succession.next_at == 0.04 + deadlines.OWN_SLOT


def test_a_list_of_which_nobody_runs_is_gone_through_once_in_a_slots_time():
    succession, now, tried = Succession(), 0.0, []
    succession.on_digest(a_digest(1, a_view(1), a_view(2), a_view(3)))
    succession.lost(now)
    succession.closed(an_id(1), now)
    while now < 10 * deadlines.SLOT:
        if candidate := succession.due(now):
            tried.append(candidate.device)
            succession.closed(candidate.device, now + 0.001)
        now = max(succession.next_at, now + 0.001)
    assert tried[:4] == [an_id(2), an_id(3), an_id(1), an_id(2)]
    assert len(tried) <= 3 * 11


def test_an_asker_skips_devices_that_do_not_run():
    search = BusSearch()
    search.handle(Received(an_id(1), a_digest(1, a_view(1), a_view(2), a_view(3))), 0.0)
    search.handle(BusChanged(False), 1.0)
    assert search.handle(PortClosed(an_id(1)), 1.1) == [SetTimer("bus-next", 1.1)]
    second = search.handle(Timer("bus-next"), 1.1)
    where = (("10.0.0.2", 7000),)
    assert second[:2] == [MoveBus(an_id(2), where), Knock(an_id(2), where)]
    assert search.handle(PortClosed(an_id(2)), 1.2) == [SetTimer("bus-next", 1.2)]
    assert MoveBus(an_id(3), (("10.0.0.3", 7000),)) in search.handle(Timer("bus-next"), 1.2)
