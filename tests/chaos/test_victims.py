"""Whom a campaign strikes, and what memory can bear."""

from collections import Counter
from random import Random

import pytest

from swisd.chaos.room import MIB, Room, ends_bytes, varied_offers
from swisd.chaos.victims import Choice, Chooser
from tests.chaos.swarms import APART, TOGETHER, a_member, a_standing
from tests.core.builders import a_manifest

MANIFEST = a_manifest(layers=8, layer_bytes=10 * MIB, head_bytes=30 * MIB, embed_bytes=2 * MIB, kv=0)


def choose(kind: str, *cuts: tuple[int, int, int], seed: int = 0) -> Choice:
    parts = a_standing(*cuts).parts
    return Chooser(Random(seed)).choose(kind, parts, Room(parts, MANIFEST, 0))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("driver", {"bob"}), ("host", {"ann"}), ("worker", {"cyd", "dan"}), ("dan", {"dan"}), ("none", set())],
)
def test_a_role_is_found(kind: str, names: set[str]):
    choice = choose(kind, *APART)
    assert {part.name for part in choice.victims} <= names
    assert len(choice.victims) == min(len(names), 1)
    assert choice.note == ""


def test_a_role_that_nobody_has_is_said_and_replaced():
    choice = choose("host-driver", *APART)
    assert (choice.kind, choice.victims[0].name, choice.note) == (
        "host",
        "ann",
        "no host-driver in this plan",
    )
    assert choose("driver", *TOGETHER).kind == "host-driver"
    alone = choose("worker", (0, 10, 1))
    assert (alone.kind, alone.note) == ("host-driver", "no worker in this plan")


def test_a_device_that_is_not_there_is_replaced():
    choice = choose("eve", *APART)
    assert len(choice.victims) == 1 and "eve is not in the swarm" in choice.note


def test_two_are_different_and_can_be_spared():
    for seed in range(20):
        choice = choose("two", *APART, seed=seed)
        assert len({part.name for part in choice.victims}) == 2 and choice.kind == "two"
    members = [a_member(number, memory_mib=40) for number in range(1, 5)]
    parts = a_standing(*APART, members=members).parts
    found = Chooser(Random(0)).choose("two", parts, Room(parts, MANIFEST, 0))
    assert len(found.victims) == 1 and "no two" in found.note


def test_too_little_memory_without_a_device_is_said():
    members = [a_member(number) for number in range(1, 4)]
    parts = a_standing((0, 2, 2), (2, 5, 3), (5, 6, 2), members=members).parts
    choice = Chooser(Random(0)).choose("worker", parts, Room(parts, a_manifest(layers=12, kv=0), 0))
    assert choice.victims[0].name == "cyd" and "too little memory without cyd" in choice.note


def test_the_same_seed_strikes_the_same():
    for seed in range(5):
        assert choose("random", *APART, seed=seed) == choose("random", *APART, seed=seed)
    assert len({choose("random", *APART, seed=seed).victims[0].name for seed in range(20)}) == 4


def test_mixed_strikes_every_role_alike():
    chooser = Chooser(Random(1))
    struck: Counter[str] = Counter()
    for number in range(40):
        parts = a_standing(*(APART if number % 2 else TOGETHER)).parts
        struck[chooser.choose("mixed", parts, Room(parts, MANIFEST, 0)).kind] += 1
    assert struck == {"worker": 8, "driver": 8, "host": 8, "host-driver": 8, "two": 8}


def test_mixed_says_which_role_is_due_and_missing():
    chooser = Chooser(Random(1))
    parts = a_standing(*APART).parts
    notes = [chooser.choose("mixed", parts, Room(parts, MANIFEST, 0)).note for _ in range(6)]
    assert notes[0] == "" and "no host-driver" in notes[5]


def test_room_counts_whole_layers_and_a_place_for_the_head():
    parts = a_standing(*APART).parts  # 64 MiB each: 3 layers beside the ends, else 6
    room = Room(parts, MANIFEST, 0)
    assert room.without(["ann", "bob"]) and not room.without(["ann", "bob", "cyd"])
    assert not room.without(list(parts))
    small = a_standing(*APART, members=[a_member(number, 31) for number in range(1, 5)]).parts
    assert not Room(small, MANIFEST, 0).without(["ann"])  # nobody has room for the head


def test_varied_offers_keep_the_sum_and_leave_some_without_a_head():
    offers = varied_offers(64 * MIB, 4, MANIFEST)
    ends = ends_bytes(MANIFEST, 512)
    assert sum(offers) <= 256 * MIB < sum(offers) + 4
    assert [offer >= ends for offer in offers] == [True, False, True, False]
    assert varied_offers(64 * MIB, 1, MANIFEST) == [64 * MIB]
