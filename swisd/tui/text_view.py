"""The dashboard's facts as plain text with aligned columns, for `swisd plan`, `swisd status`, `swisd code`.

No Textual here: these commands must start at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swisd.core.types import Plan
from swisd.tui import words
from swisd.tui.columns import Column, table
from swisd.tui.cover import CoverRow, cover_line, cover_rows, gap_line
from swisd.tui.qr import qr_lines
from swisd.tui.rows import (
    DeviceRow,
    device_rows,
    links_of,
    name_of,
    names_of,
    predicted_of,
    session_rows,
    slots,
    spans_of,
    totals,
)
from swisd.wire.messages import Digest

WIDTH = 80  # of a terminal, for sentences

_SHARDS = [
    Column("device"),
    Column("units"),
    Column("predicted ms", right=True),
    Column("measured ms", right=True),
]
_NUMBERED = [Column("pipeline"), *_SHARDS]
_DEVICES = [
    Column("device"),
    Column("state"),
    Column("role"),
    Column("units"),
    Column("ms/layer", right=True),
    Column("memory", right=True),
    Column("link ms", right=True),
]
_COVER = [Column("if it is lost"), Column("units"), Column("taken over by"), Column("there")]
_SESSIONS = [
    Column("session"),
    Column("asked on"),
    Column("state"),
    Column("prompt", right=True),
    Column("tokens", right=True),
    Column("tokens/s", right=True),
]


def render_plan(plan: Plan | None, digest: Digest | None = None, you: str = "") -> str:
    """Shards with predicted beside measured figures, then the verdict on every device."""
    if plan is None:
        return "No plan yet. Start a device with: swisd up\n"
    blocks = [[plan_line(plan)]]
    if plan.pipelines:
        blocks.append(_shards(plan, digest, you))
        blocks.append(_totals(plan, digest))
        if cover := cover_rows(plan, digest):
            blocks.append(_cover(cover, _letters(plan, digest, you)))
    elif plan.problem:
        blocks.append([f"No device runs the model: {words.clean(plan.problem)}"])
    if plan.verdicts:
        blocks.append(_verdicts(plan, digest))
    return _page(blocks)


def render_status(digest: Digest | None, plan: Plan | None, you: str = "") -> str:
    """Who is in the swarm and in which state, the plan in one line, the sessions that run."""
    if digest is None:
        return "No report from the swarm's host yet. Is `swisd up` running on a device?\n"
    rows = _rows(plan, digest, you)
    host = name_of(digest.host, names_of(digest))
    blocks = [
        [
            f"{words.count(len(rows), 'device')}, host {host}",
            plan_line(plan) if plan else "No plan yet.",
        ]
    ]
    blocks.append(
        table(
            _DEVICES,
            [
                (
                    f"{row.letter} {row.name}",
                    row.state,
                    row.marks,
                    row.units,
                    words.millis(row.layer_ms),
                    words.memory(row.memory_used, row.memory_offered),
                    words.millis(row.rtt_ms),
                )
                for row in rows
            ],
        )
    )
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    notes += [f"{row.name}: {row.left_out}" for row in rows if row.left_out]
    if notes:
        blocks.append(notes)
    if cover := cover_rows(plan, digest):
        line = f"Spares: {cover_line(cover, _letters(plan, digest, you))}"
        blocks.append([*words.wrap(line, WIDTH), *words.wrap(gap_line(cover), WIDTH)])
    if digest.note:
        blocks.append([words.clean(digest.note)])
    if len(rows) < 2:
        blocks.append(["No other device yet: `swisd code` shows the join code for the next one."])
    sessions = session_rows(digest, {})
    if sessions:
        cells = [
            (
                s.short,
                s.asker,
                s.state,
                str(s.prompt_tokens),
                str(s.tokens),
                words.rate(s.tokens_per_s),
            )
            for s in sessions
        ]
        blocks.append(table(_SESSIONS, cells))
    else:
        blocks.append(["No session is running."])
    return _page(blocks)


def _letters(plan: Plan | None, digest: Digest | None, you: str) -> dict[str, int]:
    return slots(digest, plan, you, {}) if digest else {}


def _cover(cover: Sequence[CoverRow], letters: Mapping[str, int]) -> list[str]:
    """Who takes over from each device of the plan, and a sentence for each that nobody covers."""

    def named(device: str, name: str) -> str:
        return f"{words.letter(letters[device])} {name}" if device in letters else name

    body = [
        (
            named(row.device, row.name),
            row.units,
            named(row.by, row.by_name) if row.by else "nobody",
            words.NONE if row.state == "nobody" else row.state,
        )
        for row in cover
    ]
    return [*table(_COVER, body, WIDTH), *words.wrap(gap_line(cover), WIDTH)]


def render_join(code: str) -> str:
    """The join code for a phone's camera and for people."""
    return "\n".join([*qr_lines(code), "", code, ""])


def plan_line(plan: Plan) -> str:
    """The plan in one line: epoch, state, model, context, objective."""
    state = "active" if plan.active else "being loaded" if plan.pipelines else "without a pipeline"
    context = f", context {plan.context} tokens" if plan.context else ""
    several = f", {len(plan.pipelines)} pipelines" if len(plan.pipelines) > 1 else ""
    model = words.clean(plan.model_id)
    return f"Plan {plan.epoch}, {state}: {model}{context}, chosen for {plan.objective}{several}"


def _page(blocks: list[list[str]]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _rows(plan: Plan | None, digest: Digest, you: str) -> tuple[DeviceRow, ...]:
    return device_rows(digest, plan, you, _letters(plan, digest, you))


def _shards(plan: Plan, digest: Digest | None, you: str) -> list[str]:
    """One row for each device of the plan, in its order, also those that the digest does not know."""
    rows = {row.device: row for row in _rows(plan, digest, you)} if digest else {}
    total = max(stage.end for pipeline in plan.pipelines for stage in pipeline.stages)
    predicted = predicted_of(plan)
    body: list[tuple[str, str, str, str, str]] = []
    for number, (pipeline, links) in enumerate(zip(plan.pipelines, links_of(plan), strict=True), start=1):
        for device, spans in spans_of(replace(plan, pipelines=(pipeline,))).items():
            row = rows.get(device)
            body.append(
                (
                    str(number),
                    f"{row.letter} {row.name}" if row else name_of(device, {}),
                    words.units(spans, total),
                    words.millis(predicted.get(device, 0.0)),
                    words.millis(row.measured_ms if row else 0.0),
                )
            )
        if links > 0:
            body.append((str(number), "links between them", "", words.millis(links), words.NONE))
    if len(plan.pipelines) > 1:
        return table(_NUMBERED, body)
    return table(_SHARDS, [cells[1:] for cells in body])


def _totals(plan: Plan, digest: Digest | None) -> list[str]:
    figures = totals(digest, plan)
    several = len(plan.pipelines) > 1
    columns = [
        Column("one token, slowest pipeline" if several else "one token"),
        Column("predicted", right=True),
        Column("measured", right=True),
        Column(""),
    ]
    rates = words.per_second(figures.predicted_ms), words.per_second(figures.measured_ms)
    body = [
        ("ms/token", words.millis(figures.predicted_ms), words.millis(figures.measured_ms), figures.gap),
        ("tokens/s", words.rate(rates[0]), words.rate(rates[1]), ""),
        ("ms/prompt token", words.millis(figures.prompt_token_ms), "", ""),
    ]
    if several:
        body.append(("tokens/s of all, kept busy", words.rate(figures.together_per_s), "", ""))
    return table(columns, body)


def _verdicts(plan: Plan, digest: Digest | None) -> list[str]:
    names = names_of(digest)
    ordered = sorted(plan.verdicts, key=lambda verdict: not verdict.used)
    return table(
        [Column("device"), Column("verdict"), Column("why")],
        [
            (
                name_of(verdict.device, names),
                "used" if verdict.used else "left out",
                words.clean(verdict.reason).removeprefix("left out: "),
            )
            for verdict in ordered
        ],
    )
