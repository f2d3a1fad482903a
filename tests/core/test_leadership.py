"""Who is host: the lower (rank, id) stays, silence makes another one claim."""

from itertools import permutations

from builders import a_config, an_id
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core import deadlines
from swisd.core.leadership import Leadership
from swisd.core.messages import Digest, MemberView


def a_digest(host: int, *others: int, epoch: int = 1, rank: int | None = None) -> Digest:
    """A host's word; a device's rank is its number, or `rank` for the host's."""
    members = tuple(
        MemberView(
            an_id(number), f"d{number}", "alive", "idle", (), 0,
            rank if rank is not None and number == host else number, True, 0,
        )
        for number in (host, *others)
    )  # fmt: skip
    return Digest(an_id(host), epoch, 1, members)


def leader(number: int, rank: int | None = None) -> Leadership:
    """A host on a broker that others run: nobody else spoke there."""
    led = Leadership(a_config(number, claims="when silent", rank=number if rank is None else rank))
    assert not led.begin(-100.0) and led.on_silence(0.0)
    return led


def silent(number: int) -> Leadership:
    follower = Leadership(a_config(number, claims="when silent"))
    assert not follower.begin(0.0)
    return follower


def test_a_device_claims_at_once_when_silent_or_never():
    assert Leadership(a_config(claims="at once")).begin(0.0)
    later = silent(1)
    assert not later.on_silence(deadlines.CLAIM)
    assert later.on_silence(deadlines.CLAIM + 0.1) and later.leading
    assert not later.on_silence(100.0)  # it leads already
    never = Leadership(a_config(claims="never"))
    assert not never.begin(0.0) and not never.on_silence(1000.0)


def test_of_two_hosts_the_lower_rank_stays():
    low, high = leader(1), leader(2)
    assert not low.on_digest(a_digest(2), 1.0) and low.leading
    assert high.on_digest(a_digest(1), 1.0) and not high.leading and high.host == an_id(1)


def test_of_equal_ranks_the_lower_id_stays():
    first, second = leader(1, rank=7), leader(2, rank=7)
    assert not first.on_digest(a_digest(2, rank=7), 1.0)
    assert second.on_digest(a_digest(1, rank=7), 1.0)
    assert (first.leading, second.leading) == (True, False)


def test_who_runs_the_bus_obeys_no_other_hosts_late_word():
    led = Leadership(a_config(2, claims="at once"))
    assert led.begin(0.0)
    assert not led.on_digest(a_digest(1), 1.0) and led.leading
    led.leave_bus()
    assert led.on_digest(a_digest(1), 1.0) and led.host == an_id(1)


def test_any_number_of_hosts_settles_on_one():
    for order in permutations((1, 2, 3)):
        hosts = {number: leader(number) for number in (1, 2, 3)}
        for speaker in order * 2:
            if hosts[speaker].leading:
                for led in hosts.values():
                    led.on_digest(a_digest(speaker), 1.0)
        assert [number for number, led in hosts.items() if led.leading] == [1]
        assert {led.host for led in hosts.values()} == {an_id(1)}


def test_a_follower_keeps_its_host_until_it_is_silent():
    follower = silent(9)
    assert follower.on_digest(a_digest(2), 1.0)
    assert not follower.on_digest(a_digest(3), 2.0)
    assert follower.on_digest(a_digest(1), 2.0)  # but a better one is followed at once
    assert not follower.on_digest(a_digest(3), 2.0 + deadlines.CLAIM)
    assert follower.on_digest(a_digest(3), 2.1 + deadlines.CLAIM)
    assert follower.host == an_id(3)


def test_claims_come_in_order_of_place_not_all_at_once():
    followers = {number: silent(number) for number in (2, 3, 4)}
    for follower in followers.values():
        follower.on_digest(a_digest(1, 2, 3, 4), 0.0)
    claimed = {}
    for tenth in range(200):
        for number, follower in followers.items():
            if number not in claimed and follower.on_silence(tenth / 10):
                claimed[number] = tenth / 10
    assert sorted(claimed, key=lambda number: claimed[number]) == [2, 3, 4]
    assert claimed[3] - claimed[2] >= deadlines.CLAIM - 0.2


def test_the_own_digest_coming_back_says_nothing_new():
    led = leader(1)
    assert led.on_digest(a_digest(1), 1.0) and led.leading
    late = silent(1)  # the former life's, retained by the bus
    assert not late.on_digest(a_digest(1), 1.0)
    assert late.host is None
    assert late.on_silence(deadlines.CLAIM + 0.1)


def test_a_host_that_loses_the_bus_resigns_only_if_another_may_claim():
    first = Leadership(a_config(1, claims="at once"))
    assert first.begin(0.0) and not first.resign()
    host = silent(1)
    assert not host.resign()  # does not lead
    host.on_silence(10.0)
    assert host.resign() and not host.leading
    assert not host.begin(20.0) and not host.on_silence(21.0)
    assert host.on_digest(a_digest(5), 21.0) and host.host == an_id(5)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 6), st.booleans()), max_size=30))
def test_a_leader_yields_only_to_a_better_one(steps: list[tuple[int, float, bool]]):
    led, now = silent(3), 0.0
    for host, wait, claims in steps:
        now += wait
        was = led.leading
        if claims:
            led.on_silence(now)
        else:
            counts = led.on_digest(a_digest(host, 1, 2, 3, 4, 5), now)
            assert not (was and not led.leading) or host < 3
            assert not counts or led.host == an_id(host)
