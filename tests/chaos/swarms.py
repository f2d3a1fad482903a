"""Swarms as their host would tell of them, for tests that need no process."""

from swisd.chaos.standing import Standing
from swisd.core.messages import Digest, MemberView
from swisd.core.types import Plan, Spare
from tests.core.builders import MIB, a_plan, an_id

NAMES = ("", "ann", "bob", "cyd", "dan", "eve")


def a_member(number: int, memory_mib: int = 64, **changes: object) -> MemberView:
    values: dict[str, object] = {
        "device": an_id(number), "name": NAMES[number], "liveness": "alive", "state": "ready",
        "addresses": (), "port": 1, "rank": number, "broker": True, "memory_bytes": memory_mib * MIB,
        "layer_ms": 1.0,
    }  # fmt: skip
    return MemberView(**(values | changes))  # type: ignore[arg-type]


def a_standing(
    *cuts: tuple[int, int, int], host: int = 1, members: list[MemberView] | None = None, epoch: int = 1,
    seq: int = 1, spares: tuple[tuple[int, int, int], ...] = (), **changes: object,
) -> Standing:  # fmt: skip
    """A plan of one pipeline on four devices; each cut and spare is (start, end, number of the device)."""
    kept = tuple(Spare(an_id(number), start, end) for start, end, number in spares)
    plan: Plan = a_plan(*cuts, epoch=epoch, host=host, spares=kept, **changes)
    present = members if members is not None else [a_member(number) for number in range(1, 5)]
    return Standing(Digest(an_id(host), epoch, seq, tuple(present)), plan)


APART = ((0, 2, 2), (2, 4, 3), (4, 5, 4), (5, 6, 2))  # bob drives, cyd and dan work; ann leads
TOGETHER = ((0, 2, 1), (2, 4, 3), (4, 5, 2), (5, 6, 1))  # ann leads and drives
