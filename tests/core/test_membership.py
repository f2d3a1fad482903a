"""Who is in the swarm: heartbeats, deadlines, farewells and restarts."""

from builders import a_beat, a_device, an_id
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core import deadlines
from swisd.core.membership import MAX_MEMBERS, Membership
from swisd.core.messages import Gone


def swarm(*numbers: int) -> Membership:
    members = Membership()
    for number in numbers:
        members.on_capability(a_device(an_id(number), boot=1000 + number), 0.0)
        members.on_beat(a_beat(number), 0.0)
    return members


def liveness(members: Membership) -> dict[str, str]:
    return {entry.device: entry.liveness for entry in members.entries.values()}


def test_silence_makes_suspect_then_dead_then_forgotten():
    members = swarm(1, 2)
    for at in range(1, 200):
        members.on_beat(a_beat(1, seq=at + 1), float(at))
        changed = [(entry.device, before, entry.liveness) for entry, before in members.sweep(float(at))]
        if at == deadlines.SUSPECT + 1:
            assert changed == [(an_id(2), "alive", "suspect")]
            assert [item.device for item in members.usable()] == [an_id(1)]
            assert len(members.present()) == 2
        elif at == deadlines.DEAD + 1:
            assert changed == [(an_id(2), "suspect", "dead")]
            assert [entry.device for entry in members.present()] == [an_id(1)]
        else:
            assert changed == []
    assert liveness(members) == {an_id(1): "alive"}


def test_a_long_gap_of_the_host_itself_goes_straight_to_dead():
    members = swarm(1)
    (entry, before), *rest = members.sweep(deadlines.DEAD + 1)
    assert (before, entry.liveness, rest) == ("alive", "dead", [])


def test_a_beat_brings_a_device_back():
    members = swarm(1)
    members.sweep(deadlines.DEAD + 1)
    assert members.on_beat(a_beat(1, seq=2), 10.0)
    assert liveness(members) == {an_id(1): "alive"}
    assert not members.on_beat(a_beat(1, seq=3), 11.0)


def test_repeated_and_late_beats_do_not_count():
    members = swarm(1)
    members.on_beat(a_beat(1, seq=5, note="new"), 1.0)
    for seq in (5, 4):
        assert not members.on_beat(a_beat(1, seq=seq, note="old"), 2.9)
    entry = members.entries[an_id(1)]
    assert entry.beat is not None and entry.beat.note == "new"
    assert entry.seen == 1.0


def test_a_retained_capability_alone_does_not_make_a_member():
    members = Membership()
    assert not members.on_capability(a_device(an_id(1), boot=1001), 0.0)
    assert members.present() == [] and members.usable() == []
    assert liveness(members) == {an_id(1): "suspect"}
    assert members.sweep(deadlines.DEAD + 1) == []  # nobody needs to hear of it
    assert members.entries == {}


def test_a_capability_may_come_before_or_after_the_beat():
    members = Membership()
    members.on_beat(a_beat(1), 0.0)
    assert members.usable() == []
    assert members.on_capability(a_device(an_id(1), boot=1001), 0.0)
    assert not members.on_capability(a_device(an_id(1), boot=1001), 0.0)  # the same again
    assert len(members.usable()) == 1


def test_a_farewell_counts_once_and_a_will_is_only_a_hint():
    members = swarm(1, 2)
    assert not members.on_gone(Gone(an_id(1), 1001, proper=False))
    assert liveness(members)[an_id(1)] == "suspect"
    assert members.on_gone(Gone(an_id(2), 1002, proper=True))
    assert not members.on_gone(Gone(an_id(2), 1002, proper=True))
    assert not members.on_gone(Gone(an_id(2), 1002, proper=False))
    assert not members.on_gone(Gone(an_id(9), 1, proper=True))
    assert [entry.device for entry in members.present()] == [an_id(1)]


def test_a_beat_that_comes_after_the_farewell_does_not_bring_the_device_back():
    members = swarm(1)
    members.on_gone(Gone(an_id(1), 1001, proper=True))
    assert not members.on_beat(a_beat(1, seq=9), 0.1)
    assert members.present() == []
    members.on_beat(a_beat(1, seq=1, boot=5000), 1.0)  # but its next start does
    assert [entry.device for entry in members.present()] == [an_id(1)]


def test_a_later_boot_replaces_the_earlier():
    members = swarm(1)
    members.on_beat(a_beat(1, seq=1, boot=5000), 1.0)
    assert members.usable() == []  # its capability was the former life's
    assert not members.on_beat(a_beat(1, seq=99), 2.0)
    assert not members.on_gone(Gone(an_id(1), 1001, proper=True))
    assert not members.on_capability(a_device(an_id(1), boot=1001), 2.0)
    assert members.entries[an_id(1)].boot == 5000
    assert liveness(members) == {an_id(1): "alive"}


def test_a_device_whose_clock_was_set_back_comes_back_once_its_former_life_is_over():
    """Many boards have no battery for their clock."""
    members = swarm(1, 2)
    assert not members.on_beat(a_beat(1, seq=1, boot=5), 1.0)  # or it is a message that came late
    members.sweep(deadlines.DEAD + 1)
    members.on_beat(a_beat(1, seq=2, boot=5), deadlines.DEAD + 1)
    assert [entry.device for entry in members.present()] == [an_id(1)]
    assert members.entries[an_id(1)].boot == 5
    members.on_gone(Gone(an_id(1), 5, proper=True))
    assert not members.on_capability(a_device(an_id(1), boot=4), 8.0)  # the bus may have kept this one
    assert members.present() == []
    members.on_beat(a_beat(1, seq=1, boot=4), 8.0)
    assert [entry.device for entry in members.present()] == [an_id(1)]


def test_no_more_members_than_there_is_room_for():
    members = swarm(*range(MAX_MEMBERS + 5))
    assert len(members.entries) == MAX_MEMBERS
    members.on_beat(a_beat(3, seq=2), 1.0)
    assert members.entries[an_id(3)].seen == 1.0


actions = st.lists(
    st.tuples(
        st.sampled_from(["beat", "cap", "gone", "will", "sweep"]),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(1, 4),
        st.floats(0.0, 10.0),
    ),
    max_size=40,
)


@settings(deadline=None, derandomize=True)
@given(actions)
def test_in_any_order_only_the_latest_boot_counts(steps: list[tuple[str, int, int, int, float]]):
    members, now = Membership(), 0.0
    newest: dict[str, int] = {}
    for kind, number, boot, seq, wait in steps:
        now += wait
        device = an_id(number)
        if kind == "sweep":
            members.sweep(now)
        elif kind in ("gone", "will"):
            members.on_gone(Gone(device, boot, kind == "gone"))
        else:
            known = members.entries.get(device)
            over = known is None or (kind == "beat" and known.liveness in ("dead", "left"))
            newest[device] = boot if over else max(boot, newest.get(device, boot))
            if kind == "beat":
                members.on_beat(a_beat(number, seq, boot=boot), now)
            else:
                members.on_capability(a_device(device, boot=boot), now)
        for device, entry in members.entries.items():
            assert entry.boot == newest[device]
            assert entry.beat is None or entry.beat.boot == entry.boot
            assert entry.capability is None or entry.capability.boot == entry.boot
            assert entry.seen <= now
        assert all(entry.beat for entry in members.present())
