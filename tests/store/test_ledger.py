"""Who is sent where while many want the same blob."""

from hypothesis import given
from hypothesis import strategies as st

from swisd.store.ledger import Ledger
from swisd.store.protocol import MAX_NAMED

SHA, OTHER = "a" * 64, "b" * 64
NAMES = [f"{number:016x}" for number in range(1, 12)]
A, B, C, D, E = NAMES[:5]


def test_the_first_is_given_the_blob_and_the_others_make_a_tree() -> None:
    ledger = Ledger()
    told = [ledger.ask(SHA, device, (), 0.0) for device in NAMES]
    assert [names[0] if names else "" for names in told[:7]] == ["", A, A, B, B, C, C]
    assert max(len(names) for names in told) == MAX_NAMED


def test_who_asks_again_is_told_the_same() -> None:
    ledger = Ledger()
    for _ in range(3):
        assert [ledger.ask(SHA, device, (), 0.0)[:1] for device in (A, B, C)] == [(), (A,), (A,)]


def test_different_blobs_are_given_to_different_devices() -> None:
    ledger = Ledger()
    assert ledger.ask(SHA, A, (), 0.0) == () == ledger.ask(OTHER, B, (), 0.0)
    assert ledger.ask(SHA, B, (), 0.0) == (A,) and ledger.ask(OTHER, A, (), 0.0) == (B,)


def test_who_could_not_get_it_is_sent_on_and_at_last_given_it() -> None:
    ledger = Ledger()
    for device in (A, B, C):
        ledger.ask(SHA, device, (), 0.0)
    assert ledger.ask(SHA, B, (A,), 0.0) == ()
    assert ledger.ask(SHA, C, (A,), 0.0) == (B,)
    assert ledger.ask(SHA, C, (A, B), 0.0) == ()


def test_nobody_is_sent_to_a_device_whose_transfer_broke_until_it_asks_again() -> None:
    ledger = Ledger()
    ledger.ask(SHA, A, (), 0.0)
    ledger.gone(A)
    assert ledger.ask(SHA, B, (), 0.0) == ()
    assert ledger.ask(SHA, C, (), 0.0) == (B,)
    assert ledger.ask(SHA, A, (), 0.0) == ()  # its place is kept: it is never sent to one that waits for it
    assert ledger.ask(SHA, D, (), 0.0)[0] in (A, B)


def test_a_rush_ends_when_nobody_asks_for_a_while() -> None:
    ledger = Ledger(rush_s=10)
    ledger.ask(SHA, A, (), 0.0)
    ledger.ask(OTHER, C, (), 9.0)
    assert ledger.ask(SHA, B, (), 18.0) == (A,)
    assert ledger.ask(SHA, B, (), 29.0) == ()


asks = st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=8), st.booleans())


@given(st.lists(asks, max_size=60))
def test_nobody_is_sent_in_a_circle(steps: list[tuple[str, list[str], bool]]) -> None:
    ledger, order = Ledger(), dict[str, int]()
    for device, without, broke in steps:
        if broke:
            ledger.gone(device)
        order.setdefault(device, len(order))
        for named in ledger.ask(SHA, device, without, 0.0):
            assert order[named] < order[device] and named not in without
