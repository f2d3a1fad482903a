"""Roles, how a swarm stands, and who took over."""

from dataclasses import replace

from swisd.chaos.report import TakenOver
from swisd.chaos.standing import taken_over
from tests.chaos.swarms import APART, TOGETHER, a_member, a_standing


def test_roles_are_read_from_plan_and_digest():
    parts = a_standing(*APART).parts
    roles = {name: part.role for name, part in parts.items()}
    assert roles == {"ann": "host", "bob": "driver", "cyd": "worker", "dan": "worker"}
    assert parts["bob"].units == ((0, 2), (5, 6)) and parts["ann"].units == ()


def test_one_device_may_lead_and_drive_and_one_may_do_nothing():
    roles = {name: part.role for name, part in a_standing(*TOGETHER).parts.items()}
    assert roles == {"ann": "host-driver", "bob": "worker", "cyd": "worker", "dan": "spare"}


def test_the_dead_have_no_part():
    members = [a_member(1), a_member(2, liveness="dead"), a_member(3, liveness="left")]
    assert list(a_standing(members=members).parts) == ["ann"]


def test_a_warm_spare_is_another_devices_and_in_memory():
    cold = [a_member(number) for number in range(1, 5)]
    warm = [*cold[:3], replace(cold[3], warm=((2, 5),))]
    spares = ((2, 4, 4),)
    assert not a_standing(*APART, spares=spares, members=cold).parts["cyd"].warm
    standing = a_standing(*APART, spares=spares, members=warm)
    assert {name for name, part in standing.parts.items() if part.warm} == {"cyd"}
    assert standing.spares_to_load() == 0
    assert a_standing(*APART, spares=spares, members=cold).spares_to_load() == 1
    own = [*cold[:2], replace(cold[2], warm=((2, 4),)), cold[3]]
    assert not a_standing(*APART, spares=((2, 4, 3),), members=own).parts["cyd"].warm


def test_what_a_swarm_lacks_is_said():
    names = ("ann", "bob", "cyd", "dan")
    standing = a_standing(*APART)
    assert standing.lacks(names) == ""
    assert "eve" in standing.lacks((*names, "eve"))
    assert "bob" in standing.lacks((), without=["bob"])
    assert "leads" in standing.lacks((), without=["ann"])
    assert "plan 1 is not in force" in a_standing(*APART, active=False).lacks(())
    assert a_standing(active=False, problem="too little memory").lacks(()) == "too little memory"
    measuring = [a_member(1), a_member(2), a_member(3), a_member(4, layer_ms=0.0)]
    assert "dan" in a_standing(*APART, members=measuring).lacks(names)
    late = replace(standing, digest=replace(standing.digest, epoch=2))
    assert "plan 2" in late.lacks(())


def test_who_took_over():
    before = a_standing(*TOGETHER)
    after = a_standing((0, 2, 2), (2, 4, 3), (4, 5, 4), (5, 6, 2), host=3, epoch=3)
    assert taken_over([before.parts["ann"]], before, after) == (
        TakenOver("host", ("cyd",)),
        TakenOver("driver", ("bob",)),
        TakenOver("units", ("bob",), (0, 2)),
        TakenOver("units", ("bob",), (5, 6)),
    )
    assert taken_over([before.parts["cyd"]], before, before) == ()
    lost = a_standing(active=False, problem="too little memory", host=1)
    assert taken_over([before.parts["cyd"]], before, lost) == (TakenOver("units", (), (2, 4)),)
