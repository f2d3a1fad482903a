"""`swisd status`, `swisd plan` and `swisd code`."""

from pathlib import Path
from typing import Any

from swisd.cli.output import as_json, json_line, result, say
from swisd.client import Client
from swisd.core.errors import NoSwarm
from swisd.core.messages import Digest
from swisd.core.types import Plan
from swisd.node.home import Home
from swisd.wire.joincode import JoinCode


def run_status(home: Path | None, json_output: bool) -> None:
    """The members, the plan in a line, the sessions."""
    digest, plan = Client(home, tell=say).status()
    if json_output:
        json_line(
            {
                "swarm": as_json(digest),
                "plan": as_json(plan) if plan else None,
                "cover": _cover(plan, digest),
            }
        )
        return
    from swisd.tui.text_view import render_status

    result(render_status(digest, plan, _me(home)), end="")


def run_plan(home: Path | None, json_output: bool) -> None:
    """The shards, each device's reason, predicted and measured times."""
    digest, plan = Client(home, tell=say).status()
    if json_output:
        measured = {member.device: member.stage_ms for member in digest.members if member.stage_ms}
        value = as_json(plan) if plan else {}
        json_line(
            {
                "plan": value or None,
                "measured_token_ms": digest.token_ms,
                "measured_stage_ms": measured,
                "cover": _cover(plan, digest),
            }
        )
        return
    from swisd.tui.text_view import render_plan

    result(render_plan(plan, digest, _me(home)), end="")


def run_code(home: Path | None) -> None:
    """The join code as text on standard output, its QR code on standard error."""
    place = Home(home)
    code = join_code(place)
    from swisd.tui.text_view import render_join

    picture, _, _ = render_join(str(code)).rpartition(f"\n{code}")
    say(picture)
    result(str(code))


def join_code(home: Home) -> JoinCode:
    """The code of the swarm that this home is in. Raises `NoSwarm`."""
    from swisd.net.interfaces import local_addresses

    key = home.key()
    if key is None:
        raise NoSwarm(f"no swarm is known in {home.path}: start one with `swisd up`")
    running = home.running()
    if running is not None and running.broker:
        return JoinCode(key)
    if running is not None and running.host.startswith("127."):
        addresses = [interface.address for interface in local_addresses()]
        bound = running.address or (addresses[0] if addresses else running.host)
        return JoinCode(key, bound, running.port)
    if running is not None:
        return JoinCode(key, running.host, running.port)
    hosts = home.hosts()
    return JoinCode(key, *hosts[0]) if hosts else JoinCode(key)


def _cover(plan: Plan | None, digest: Digest) -> list[dict[str, Any]]:
    """Who stands in for each device of the plan (null: nobody), and whether its units are there already."""
    from swisd.tui.cover import cover_rows

    return [
        {"device": row.device, "units": row.ranges, "by": row.by or None, "state": row.state}
        for row in cover_rows(plan, digest)
    ]


def _me(home: Path | None) -> str:
    return Home(home).identity().device
