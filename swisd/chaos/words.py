"""Rounds and summaries for a person: one line a round, a small table at the end."""

from swisd.chaos.parts import PauseParts
from swisd.chaos.report import RoleSummary, Round, Summary, TakenOver

ROW = "{:<12} {:>6} {:>9} {:>8} {:>8}  {}"
_DONE = {"kill": "killed", "stop": "frozen", "leave": "told to leave"}


def round_line(each: Round) -> str:
    """Identical or not, the pause, who was struck, who took over."""
    parts = [f"round {each.number}: {_victims(each)}"]
    if each.streams:
        parts.append(_streams(each))
    if each.error and not any(each.error in stream.problem for stream in each.streams):
        parts.append(f"FAILED: {each.error}")
    if each.struck and each.streams:
        parts.append(f"pause {each.pause_s:.2f} s{_parts(each.parts)}, {each.median_ms:.1f} ms a token")
    if each.taken_over:
        parts.append(", ".join(_taken(one) for one in each.taken_over))
    if each.epoch_after != each.epoch_before:
        parts.append(f"plan {each.epoch_before} -> {each.epoch_after}")
    return "; ".join(parts) + (f" ({each.note})" if each.note else "")


def summary_text(found: Summary) -> str:
    """The table, and which rounds failed."""
    lines = [
        f"{found.identical} of {found.rounds} round(s) identical, {found.streams} stream(s), "
        f"{found.tokens} tokens, {found.median_token_ms:.1f} ms a token, "
        f"longest pause {found.longest_pause_s:.2f} s"
    ]
    if any(role.kind != "none" for role in found.roles):
        lines.append(ROW.format("role", "rounds", "identical", "median", "longest", "with a warm spare"))
        lines += [_row(role) for role in found.roles]
    if found.failed:
        lines.append(f"NOT IDENTICAL: round(s) {', '.join(map(str, found.failed))}")
    return "\n".join(lines)


def _row(role: RoleSummary) -> str:
    warm = f"{role.warm_rounds} round(s), {role.longest_warm_pause_s:.2f} s" if role.warm_rounds else "-"
    usual, longest = f"{role.median_pause_s:.2f} s", f"{role.longest_pause_s:.2f} s"
    return ROW.format(role.kind, role.rounds, role.identical, usual, longest, warm)


def _victims(each: Round) -> str:
    if not each.struck:
        return "nobody struck"
    names = " and ".join(f"{one.role} {one.name}" for one in each.struck)
    return f"{names} {_DONE.get(each.how, each.how)} at token {each.at_token}"


def _streams(each: Round) -> str:
    bad = [stream for stream in each.streams if not stream.identical]
    if bad:
        return "NOT IDENTICAL: " + ", ".join(stream.problem for stream in bad)
    tokens = " + ".join(str(stream.tokens) for stream in each.streams)
    return f"{tokens} tokens identical"


def _parts(parts: PauseParts) -> str:
    told = [
        ("noticed", parts.noticed_s),
        ("planned", parts.planned_s),
        ("loaded", parts.loaded_s),
        ("next token", parts.token_s),
    ]
    words = [f"{name} {seconds:.2f}" for name, seconds in told if seconds is not None]
    if parts.replay_s is not None:
        words.append(f"{parts.replayed_positions} positions replayed in {parts.replay_s:.2f}")
    return f" ({', '.join(words)})" if words else ""


def _taken(one: TakenOver) -> str:
    names = " and ".join(one.by) or "nobody"
    if one.units is not None:
        return f"{names} took units {one.units[0]} to {one.units[1] - 1}"
    return f"{names} is the {one.what} now"
