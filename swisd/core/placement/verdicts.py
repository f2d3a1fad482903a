"""Why a device is used or left out, and why there is no plan: words for the owners of the devices."""

import re
from collections.abc import Sequence

from swisd.core.costmodel import profile_of
from swisd.core.model import Manifest
from swisd.core.placement.groups import MOST_GROUPS
from swisd.core.placement.table import BANNED, NS_PER_MS, Solution, Table
from swisd.core.types import Capability, Objective, Sha, Verdict

MEASURING = "left out: still measuring itself"
NOT_NEEDED = "left out: not needed, the model fits on fewer, faster devices"
PLACE_OF = r" in pipeline \d+ of \d+"
NOTICEABLE_NS = NS_PER_MS // 10  # less than this is no reason to give a figure


def offer(size: int) -> str:
    """An offer of memory in MiB, rounded down: an offer that just falls short must not read like enough."""
    return f"{(size * 10 >> 20) / 10:.1f} MiB"


def need(size: int) -> str:
    """A need of memory in MiB, rounded up."""
    return f"{-(-size * 10 >> 20) / 10:.1f} MiB"


def verdicts_with_plan(
    table: Table,
    solutions: Sequence[Solution],
    devices: Sequence[Capability],
    objective: Objective,
    token_ms: float,
) -> tuple[Verdict, ...]:
    """One verdict per device, in the order given, for a plan in force; `token_ms` counts for one pipeline."""
    rows = {device: row for row, device in enumerate(table.ids)}
    places = {row: place for place, solution in enumerate(solutions) for row in solution.order}
    verdicts = []
    for device in devices:
        row = rows.get(device.device)
        place = places.get(row) if row is not None else None
        if row is not None and place is not None:
            reason = (
                _used(table, solutions[0], row, token_ms)
                if len(solutions) == 1
                else _used_beside(table, solutions, place, row)
            )
            verdicts.append(Verdict(device.device, used=True, reason=reason))
            continue
        reason = _unusable(table, row)
        if not reason and row is not None:
            reason = (
                _unwanted(table, solutions[0], row, objective)
                if len(solutions) == 1
                else _unwanted_beside(table, solutions, row)
            )
        verdicts.append(Verdict(device.device, used=False, reason=reason))
    return tuple(verdicts)


def renumbered(reason: str, number: int, count: int) -> str:
    """What a verdict says of a device whose pipeline is the one of this number (from 0) of so many by now."""
    return re.sub(PLACE_OF, _place_of(number, count), reason)


def verdicts_without(table: Table, devices: Sequence[Capability]) -> tuple[Verdict, ...]:
    """One verdict per device where no plan exists."""
    rows = {device: row for row, device in enumerate(table.ids)}
    waiting = "waiting: the swarm cannot hold the model yet"
    return tuple(
        Verdict(device.device, used=False, reason=_unusable(table, rows.get(device.device)) or waiting)
        for device in devices
    )


def plan_problem(
    manifest: Manifest, table: Table, devices: Sequence[Capability], model: Sha, context: int
) -> str:
    """Why nothing can be planned even at this, the least context."""
    measuring = sum(profile_of(device, model) is None for device in devices)
    more = f"; {_devices(measuring)} still measuring" if measuring else ""
    if not len(table):
        return f"no device has measured itself with this model yet{more}"
    last = manifest.n_units
    weights = manifest.resident_bytes(0, last)
    cache = manifest.kv_bytes_per_token(0, last) * context
    offered = sum(table.memory)
    if offered < weights + cache:
        return (
            f"swarm offers {offer(offered)}, model needs {need(weights + cache)} (weights {need(weights)}, "
            f"KV {need(cache)} at context {context}): {need(weights + cache - offered)} missing{more}"
        )
    largest = max(table.memory)
    if largest < table.ends_bytes:
        return (
            "no device can hold embedding and head together, which need "
            f"{need(table.ends_bytes)}: largest offer is {offer(largest)}{more}"
        )
    if all(ends is None for ends in table.ends):
        return f"no device with room for embedding and head has measured the head{more}"
    return (
        f"swarm offers {offer(offered)} and model needs {need(weights + cache)} at context {context}, but "
        f"in pieces that do not hold whole layers of up to {need(table.largest_layer)} beside embedding and "
        f"head on one device ({need(table.ends_bytes)}){more}"
    )


def _devices(count: int) -> str:
    return "1 device is" if count == 1 else f"{count} devices are"


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / NS_PER_MS:.1f} ms"


def _unusable(table: Table, row: int | None) -> str:
    """Why a device cannot be used at all; empty if it can."""
    if row is None:
        return MEASURING
    if table.widest(row, table.free()) == 0:
        return f"left out: offers {offer(table.memory[row])}, one layer needs {need(table.smallest_layer)}"
    return ""


def _place_of(number: int, count: int) -> str:
    return f" in pipeline {number + 1} of {count}" if count > 1 else ""


def _used_beside(table: Table, solutions: Sequence[Solution], place: int, row: int) -> str:
    """What a device does in one of several pipelines."""
    which, solution = _place_of(place, len(solutions)), solutions[place]
    if len(solution.order) == 1:
        return f"runs the whole model{which}: {_ms(solution.cost_ns)} per token"
    return _used(table, solution, row, 0.0, which)


def _used(table: Table, solution: Solution, row: int, token_ms: float, which: str = "") -> str:
    place = solution.order.index(row)
    if len(solution.order) == 1:
        return f"runs the whole model: fastest on one device ({token_ms:.1f} ms per token)"
    start = solution.ends[place - 1] if place else 0
    end = solution.ends[place]
    count = end - start
    layers = "" if not count else f"layer {end}" if count == 1 else f"layers {start + 1}-{end}"
    parts = [layers] if place else [part for part in ("the embedding", layers, "the head") if part]
    what = f"runs {', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else f"runs {parts[0]}"
    what += which
    if not count:
        return f"{what}: drives the others"
    each = _ms(table.layer[row])
    if table.layer[row] == min(table.layer[other] for other in solution.order):
        return f"{what}: fastest per layer ({each})"
    room = table.memory[row] - (0 if place else table.ends_bytes)
    if table.reach(room, start, table.layers) == end < table.layers:
        return f"{what}: as many as its {offer(table.memory[row])} hold ({each} per layer)"
    return f"{what}: {each} per layer"


def _unwanted(table: Table, solution: Solution, row: int, objective: Objective) -> str:
    """Why a device that could be used is not."""
    if objective == "throughput":
        return "left out: using it would not make the slowest stage faster"
    if objective == "spread":
        if len(solution.order) > table.layers:
            return "left out: more devices than layers to share, and the others are faster"
        return "left out: no cut of the model gives it a part beside the others"
    slower, hops, runs = _joining(table, solution, row)
    if slower < NOTICEABLE_NS or slower >= BANNED:
        return NOT_NEEDED
    computing = slower - hops - runs
    if hops >= max(runs, computing):
        why = f"its link costs {_ms(hops)}"
    elif runs >= computing:
        why = f"one more stage costs {_ms(runs)}"
    else:
        quickest = min(table.layer[other] for other in solution.order)
        why = f"a layer takes it {_ms(table.layer[row])}, the fastest {_ms(quickest)}"
    return f"left out: using it would make each token {_ms(slower)} slower ({why})"


def _unwanted_beside(table: Table, solutions: Sequence[Solution], row: int) -> str:
    """Why a device that could be used is in none of several pipelines."""
    alone = table.alone(row, table.free())
    if alone < BANNED and len(solutions) == MOST_GROUPS:
        return f"left out: there are {MOST_GROUPS} pipelines already, and none would be much faster with it"
    if alone < BANNED:
        quickest = min(solution.cost_ns for solution in solutions)
        return (
            f"left out: by itself it would take {_ms(alone)} per token, the fastest pipeline takes "
            f"{_ms(quickest)}, and none would be much faster with it"
        )
    return "left out: it cannot hold the model by itself, and no pipeline would be much faster with it"


def _joining(table: Table, solution: Solution, row: int) -> tuple[int, int, int]:
    """Nanoseconds by which a token gets slower if a device joins where its hops cost least.

    With what the hops and the runs of further stages add to it; the rest is the computing of layers.
    Layers are shared out anew, as memory allows; `BANNED` if they do not fit without moving other devices.
    """
    order, free = solution.order, table.free()
    to = [table.hop(row, other, free) for other in order]
    ring = [table.hop(order[place - 1], order[place], free) for place in range(len(order))]
    hops = min(to[place - 1] + to[place] - ring[place] for place in range(len(order)))
    driver = order[0]
    # A driver that was alone runs twice from now on: once before the others and once after them.
    runs = table.run[row] + (table.run[driver] if len(order) == 1 else 0)
    cost = table.driving(driver) + sum(ring) + hops
    left = table.layers
    room = [(table.layer[driver], table.driver_reach(driver, free))]
    for worker in (*order[1:], row):
        cost += table.run[worker] + table.layer[worker]
        left -= 1
        room.append((table.layer[worker], table.narrowest(worker, free) - 1))
    for each, most in sorted(room):
        take = min(left, most)
        cost += take * each
        left -= take
    return (cost - solution.cost_ns if left == 0 else BANNED), hops, runs
