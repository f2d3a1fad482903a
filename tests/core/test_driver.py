"""A device that holds the whole model: admission, queue, renewals, and every way a session ends."""

import re
from dataclasses import replace
from typing import Any

import pytest
from builders import MODEL, a_config, a_manifest, a_plan, a_start, an_id, said

from swisd.core import deadlines
from swisd.core.effects import CancelTimer, DropSession, Effect, Publish, RunStep, SendFrame, SetTimer
from swisd.core.events import FrameArrived, ManifestReady, Received, ShardsLoaded, StepDone, Timer
from swisd.core.machine import NodeMachine
from swisd.core.messages import Ask, Held, Out, Repair
from swisd.core.passes import CHUNK
from swisd.core.sessions import MOST_DONE
from swisd.core.shards import own_stages
from swisd.core.types import Plan, Scores
from swisd.core.waiting import MAX_WAITING

ASKER = "f" * 16
WHOLE = a_plan((0, 6, 1))
RING = a_plan((0, 2, 1), (2, 4, 2), (4, 6, 1))


STEP = "step:" + "a" * 16


class Desk:
    """A driver alone; what it asks for is done by hand."""

    def __init__(self, plan: Plan = WHOLE, **config: object) -> None:
        self.machine = NodeMachine(a_config(1, claims="never", **config))
        self.now = 100.0
        self.do(ManifestReady(MODEL, a_manifest(4)))
        self.take_up(plan)

    def do(self, event: object) -> list[Effect]:
        return self.machine.handle(event, self.now)  # type: ignore[arg-type]

    def take_up(self, plan: Plan) -> list[Effect]:
        effects = self.do(Received(plan.host, plan))
        mine = tuple(units for _, units in own(plan))
        return effects + self.do(ShardsLoaded(plan.epoch, mine, 1))

    def ask(self, ask: Ask) -> list[Effect]:
        return self.do(Received(ask.asker, ask))

    def renew(self, session: str, index: int = 0) -> list[Effect]:
        return self.ask(Ask("renew", session, ASKER, 1, from_index=index))

    def answer(self, step: RunStep, token: int) -> list[Effect]:
        return self.do(StepDone(step.work, 1, (), 1.0, token=token if step.sample else None))

    def come(self, step: RunStep) -> RunStep:
        """The rows go through the ring of three stages, as far as the head."""
        (sent,) = kinds(self.do(StepDone(step.work, 3, (0, 0, 0), 1.0)), SendFrame)
        back = replace(sent.activation, stage=2, rows=sent.activation.slots[0].logits)
        (head,) = steps(self.do(FrameArrived(sent.device, back)))
        assert head.onward == ""  # it ends here
        return head

    def round(self, step: RunStep, token: int) -> list[Effect]:
        """The rows go round the ring of three stages."""
        head = self.come(step)
        assert head.onward == head.inward == ""  # it ends here, and its session says how it is answered
        return self.answer(head, token)

    def beat(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.do(Timer("beat"))


def own(plan: Plan) -> list[tuple[int, tuple[int, int]]]:
    """The stages of device 1."""
    return [(number, stage.units) for number, stage in own_stages(plan, an_id(1))]


def steps(effects: list[Effect]) -> list[RunStep]:
    return [effect for effect in effects if isinstance(effect, RunStep)]


def kinds(effects: list[Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def outs(effects: list[Effect]) -> list[Out]:
    return said(effects, Out)  # type: ignore[return-value]


def key(number: int) -> str:
    return f"{number:016x}"


def test_a_session_runs_to_its_limit():
    desk = Desk()
    effects = desk.ask(a_start(max_tokens=3))
    tokens = []
    for token in (11, 12, 13):
        (step,) = steps(effects)
        effects = desk.answer(step, token)
        (out,) = outs(effects)
        tokens += out.tokens
    assert tokens == [11, 12, 13] and out.finish == "length"
    assert steps(effects) == []
    assert DropSession("a" * 16) in effects and CancelTimer("step:" + "a" * 16) in effects


def test_the_same_start_again_changes_nothing():
    desk = Desk()
    desk.ask(a_start())
    assert desk.ask(a_start()) == []


def test_sessions_are_admitted_as_the_context_allows_and_then_in_order():
    desk = Desk()  # room for 1024 tokens
    first = desk.ask(a_start(key(1), max_tokens=500))
    assert steps(first) and steps(desk.ask(a_start(key(2), max_tokens=500)))
    waiting = [desk.ask(a_start(key(number), max_tokens=500)) for number in (3, 4)]
    assert [steps(effects) for effects in waiting] == [[], []]
    assert [outs(effects)[0].waiting for effects in waiting] == [2, 3]
    ended = desk.ask(Ask("cancel", key(2), ASKER, 1))
    assert [step.work.session for step in steps(ended)] == [key(3)]
    assert outs(desk.renew(key(4)))[0].waiting == 2
    views = desk.machine.driver.views()
    assert [(view.session, view.waiting) for view in views] == [
        (key(1), False), (key(3), False), (key(4), True),
    ]  # fmt: skip


def test_a_finished_session_does_not_count_as_waiting_before_another():
    desk = Desk()
    desk.ask(a_start(key(1)))
    desk.ask(Ask("cancel", key(1), ASKER, 1))
    desk.ask(a_start(key(2), max_tokens=1000))
    assert outs(desk.ask(a_start(key(3), max_tokens=1000)))[0].waiting == 1


def test_a_session_that_wants_all_room_waits_until_it_is_alone():
    desk = Desk()
    desk.ask(a_start(key(1)))
    assert outs(desk.ask(a_start(key(2), max_tokens=0)))[0].waiting == 1
    assert steps(desk.ask(Ask("cancel", key(1), ASKER, 1)))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (a_start(prompt=()), "empty"),
        (a_start(prompt=(1,) * 1024), "1024 tokens.*holds 1023"),
        (a_start(prompt=(1,) * 1025, score_top=1), "1025 tokens.*holds 1024"),
        (a_start(prompt=(1, 1000)), "token 1000.*vocabulary has 1000"),
        (a_start(emitted=(2, 1000)), "token 1000.*vocabulary has 1000"),
        (a_start(prompt=(1,) * 600, emitted=(1,) * 424, max_tokens=0), "1024 tokens.*holds 1023"),
    ],
)
def test_what_cannot_run_is_refused_in_words(ask: Ask, words: str):
    desk = Desk()
    effects = desk.ask(ask)
    (out,) = outs(effects)
    assert (out.finish, out.retry, out.index) == ("error", False, 0)
    assert re.search(words, out.error)
    assert steps(effects) == [] and desk.machine.driver.views() == ()


def test_the_longest_prompts_that_fit_are_taken():
    assert steps(Desk().ask(a_start(prompt=(1,) * 1023)))
    assert steps(Desk().ask(a_start(prompt=(1,) * 1024, score_top=1)))


def test_the_queue_has_an_end():
    desk = Desk()
    for number in range(MAX_WAITING + 1):
        desk.ask(a_start(key(number), max_tokens=1000))
    (out,) = outs(desk.ask(a_start(key(999), max_tokens=1000)))
    assert out.finish == "error" and "64 requests wait" in out.error


def test_a_renewal_repairs_a_gap():
    desk = Desk()
    effects = desk.ask(a_start(max_tokens=5))
    for token in (11, 12, 13):
        effects = desk.answer(steps(effects)[0], token)
    assert [out.tokens for out in outs(desk.renew("a" * 16, 1))] == [(12,), (13,)]
    assert [(out.alive, out.tokens) for out in outs(desk.renew("a" * 16, 3))] == [(True, ())]
    assert [(out.alive, out.tokens) for out in outs(desk.renew("a" * 16, 99))] == [(True, ())]


def test_a_renewal_while_the_prompt_is_read_is_answered():
    """A long prompt on slow devices takes longer than an asker waits for a driver that says nothing."""
    desk = Desk(RING)
    desk.ask(a_start(prompt=(5,) * 300))
    (out,) = outs(desk.renew("a" * 16))
    assert out.alive and out.finish is None


def test_the_end_is_said_again_for_a_while():
    desk = Desk()
    desk.answer(steps(desk.ask(a_start(max_tokens=1)))[0], 11)
    desk.beat(deadlines.KEEP_DONE - 1)
    assert outs(desk.renew("a" * 16))[0].finish == "length"
    desk.beat(2)
    (out,) = outs(desk.renew("a" * 16, 1))
    assert (out.finish, out.retry, out.index) == ("error", True, 1)
    assert "does not know" in out.error


def test_a_silent_asker_is_cancelled_and_a_renewing_one_is_not():
    desk = Desk()
    desk.ask(a_start(key(1))), desk.ask(a_start(key(2)))
    desk.now += deadlines.LEASE - 1
    desk.renew(key(2))
    effects = desk.beat(2)
    assert [(out.session, out.finish) for out in outs(effects)] == [(key(1), "cancelled")]
    assert DropSession(key(1)) in effects and DropSession(key(2)) not in effects


def test_a_silent_asker_loses_its_place_in_the_queue():
    desk = Desk()
    desk.ask(a_start(key(1), max_tokens=1000))
    desk.ask(a_start(key(2), max_tokens=1000)), desk.ask(a_start(key(3), max_tokens=1000))
    desk.now += deadlines.LEASE - 1
    desk.renew(key(1)), desk.renew(key(3))
    desk.beat(2)
    assert [view.session for view in desk.machine.driver.views()] == [key(1), key(3)]


def test_a_late_step_costs_a_question_and_no_answer_is_lost():
    desk = Desk()
    effects = desk.ask(a_start())
    assert SetTimer(STEP, desk.now + deadlines.LATE_UNKNOWN) in effects
    (step,) = steps(effects)
    desk.now += deadlines.LATE_UNKNOWN
    late = desk.do(Timer(STEP))  # it is this device itself that takes so long
    assert outs(late) == [] and steps(late) == []
    assert SetTimer(STEP, desk.now + deadlines.LATE_UNKNOWN) in late
    (out,) = outs(desk.answer(step, 11))
    assert out.tokens == (11,)


def test_steps_that_take_long_give_the_others_time():
    """Many sessions wait for each other on a device that got slow: questions would only add to its work."""
    desk = Desk(RING)
    (slow,) = steps(desk.ask(a_start(key(1))))
    desk.now += 25.0
    desk.round(slow, 11)
    desk.ask(a_start(key(2)))
    began = desk.now
    desk.now += deadlines.STEP
    assert said(desk.do(Timer(f"step:{key(2)}")), Repair) == []
    desk.now = began + 25.0 * deadlines.ROUND_TIMES
    (probe,) = said(desk.do(Timer(f"step:{key(2)}")), Repair)
    assert isinstance(probe, Repair) and probe.op == "probe"


def test_cancelling_twice_or_a_stranger_does_nothing():
    desk = Desk()
    desk.ask(a_start())
    assert outs(desk.ask(Ask("cancel", "a" * 16, ASKER, 1)))[0].finish == "cancelled"
    assert desk.ask(Ask("cancel", "a" * 16, ASKER, 1)) == []
    assert desk.ask(Ask("cancel", "b" * 16, ASKER, 1)) == []


def test_a_cancelled_session_in_the_queue_is_gone():
    desk = Desk()
    desk.ask(a_start(key(1), max_tokens=1000)), desk.ask(a_start(key(2), max_tokens=1000))
    desk.ask(Ask("cancel", key(2), ASKER, 1))
    assert steps(desk.ask(Ask("cancel", key(1), ASKER, 1))) == []


def test_only_the_driver_of_the_plan_that_is_loaded_takes_sessions():
    desk = Desk()
    (out,) = outs(desk.ask(a_start(epoch=2)))
    assert (out.finish, out.retry, out.epoch) == ("error", True, 1)
    desk.do(Received(an_id(1), replace(a_plan((0, 3, 1), (3, 5, 2), (5, 6, 1)), epoch=2, active=False)))
    (out,) = outs(desk.ask(a_start(epoch=2)))  # that plan is not loaded yet
    assert (out.finish, out.retry) == ("error", True)
    desk.take_up(replace(WHOLE, epoch=3, pipelines=a_plan((0, 6, 2)).pipelines))
    (out,) = outs(desk.ask(a_start(epoch=3)))
    assert (out.finish, out.retry) == ("error", True)
    assert outs(NodeMachine(a_config()).handle(Received(ASKER, a_start()), 0.0))[0].retry


def test_an_asker_may_know_first_that_the_plan_is_active():
    desk = Desk(replace(WHOLE, active=False))
    assert steps(desk.ask(a_start()))


@pytest.mark.parametrize(
    "plan",
    [a_plan((0, 6, 2), epoch=2), a_plan(epoch=2, problem="no room"), replace(WHOLE, epoch=2, context=2)],
)
def test_a_plan_with_another_driver_or_none_hands_every_session_back(plan: Plan):
    desk = Desk()
    for number in (1, 2, 3, 4):
        desk.ask(a_start(key(number), max_tokens=500))
    effects = desk.do(Received(plan.host, plan))
    ended = {out.session: (out.finish, out.retry) for out in outs(effects)}
    assert ended == {key(number): ("error", True) for number in (1, 2, 3, 4)}
    assert steps(effects) == []  # none of the queue starts in between
    assert desk.machine.driver.views() == ()


@pytest.mark.parametrize("plan", [replace(WHOLE, epoch=2), replace(WHOLE, host=an_id(2))])
def test_the_same_driver_goes_on_with_every_session_and_nobody_hears_of_it(plan: Plan):
    """A host that began anew may use an epoch twice."""
    desk = Desk()
    runs = [steps(desk.ask(a_start(key(number), max_tokens=300))) for number in (1, 2)]
    desk.answer(runs[0][0], 11)
    effects = desk.do(Received(plan.host, plan))
    assert outs(effects) == []
    again = steps(effects)
    assert [(step.work.session, step.work.epoch) for step in again] == [
        (key(1), plan.epoch),
        (key(2), plan.epoch),
    ]
    # What was under way is fed anew: its rows are in the caches, or come there twice, to the same effect.
    assert [step.activation.slots[0].position for step in again] == [3, 0]
    assert desk.answer(runs[1][0], 99) == [] or plan.epoch == 1
    assert [out.index for out in outs(desk.answer(again[0], 12))] == [1]


def test_a_plan_with_less_room_takes_what_fits_and_hands_the_rest_back():
    """Whoever waits may be answered shorter; whoever runs was promised its room."""
    desk = Desk()
    for number, prompt in ((1, 3), (2, 3), (3, 3), (4, 30)):
        desk.ask(a_start(key(number), (5,) * prompt, max_tokens=500))
    effects = desk.do(Received(an_id(1), replace(WHOLE, epoch=2, context=20)))
    assert {out.session for out in outs(effects) if out.retry} == {key(1), key(2), key(4)}
    assert [view.session for view in desk.machine.driver.views()] == [key(3)]
    assert [step.activation.rows for step in steps(effects)] == [3]
    (out,) = outs(desk.ask(a_start(key(5), (5,) * 30, epoch=2)))  # and says why when it is asked again
    assert "holds 19" in out.error and not out.retry


def test_sessions_that_fit_a_smaller_plan_only_one_by_one_are_handed_back():
    desk = Desk()
    for number in (1, 2, 3):
        desk.ask(a_start(key(number), max_tokens=97))  # 100 positions each
    effects = desk.do(Received(an_id(1), replace(WHOLE, epoch=2, context=250)))
    assert [out.session for out in outs(effects) if out.retry] == [key(3)]


def test_a_plan_that_is_only_prepared_disturbs_nobody():
    desk = Desk()
    (step,) = steps(desk.ask(a_start()))
    assert steps(desk.do(Received(an_id(1), replace(RING, epoch=2, active=False)))) == []
    effects = desk.answer(step, 11)
    assert [out.tokens for out in outs(effects)] == [(11,)]
    assert [item.work.epoch for item in steps(effects)] == [1]


def test_trouble_on_a_worker_brings_the_session_back():
    desk = Desk(RING)
    (first,) = steps(desk.ask(a_start()))
    desk.do(StepDone(first.work, 3, (0, 0, 0), 1.0))
    effects = desk.do(
        Received(an_id(2), Repair("fail", "a" * 16, 1, first.work.step, an_id(2), note="no memory"))
    )
    assert outs(effects) == []
    ((asked, to),) = [(item.message, item.to) for item in effects if isinstance(item, Publish)]
    assert isinstance(asked, Repair) and (asked.op, to) == ("resume", an_id(2))
    answer = Repair("held", "a" * 16, 1, asked.step, an_id(2), (Held(1, 0, 0, 0),))
    (again,) = steps(desk.do(Received(an_id(2), answer)))
    assert again.activation.slots[0].position == 0 and again.work.step >= asked.step
    desk.round(again, 11)
    assert desk.machine.driver.views()[0].tokens == 1


def test_prompt_chunks_fill_the_pipeline_and_no_more():
    desk = Desk(RING)
    effects = desk.ask(a_start(prompt=(1,) * (CHUNK * 7)))
    fed = 0
    while running := steps(effects):
        fed += 1
        effects = desk.do(StepDone(running[0].work, CHUNK, (0,), 1.0))
    assert fed == len(RING.pipelines[0].stages) + 1


def test_scores_come_in_order_and_end_with_stop():
    desk = Desk()
    effects = desk.ask(a_start(prompt=tuple(range(CHUNK + 2)), score_top=1))
    rows, indices = 0, []
    for _ in range(2):
        (step,) = steps(effects)
        assert step.score is not None and step.sample is None
        count = len(step.score.next_ids)
        scores = Scores(((1,),) * count, ((-0.5,),) * count, (-1.0,) * count)
        effects = desk.do(StepDone(step.work, count, (), 1.0, scores=scores))
        rows += len(outs(effects)[0].top_ids)
        indices += [out.index for out in outs(effects)]
    assert rows == CHUNK + 2 and indices == [0, 1, 2]
    assert outs(effects)[-1].finish == "stop"


def test_the_head_of_one_pass_may_run_while_the_next_arrives():
    """A short last pass of a scored prompt is quicker than the head of the long one before it."""
    desk = Desk(RING)
    effects, frames = desk.ask(a_start(prompt=(1,) * (CHUNK + 2), score_top=1)), []
    for _ in range(2):
        (step,) = [item for item in steps(effects) if item.work.stage == 0]
        effects = desk.do(StepDone(step.work, step.activation.rows, (0,), 1.0))
        frames += [replace(item.activation, stage=2) for item in kinds(effects, SendFrame)]
    heads = [steps(desk.do(FrameArrived(an_id(2), frame))) for frame in frames]
    assert [[step.work.step for step in found] for found in heads] == [[0], [1]]


def test_rows_that_overtake_lost_ones_reach_no_head():
    desk = Desk(RING)
    effects, frames = desk.ask(a_start(prompt=(1,) * (CHUNK + 2), score_top=1)), []
    for _ in range(2):
        (step,) = [item for item in steps(effects) if item.work.stage == 0]
        effects = desk.do(StepDone(step.work, step.activation.rows, (0,), 1.0))
        frames += [replace(item.activation, stage=2) for item in kinds(effects, SendFrame)]
    effects = desk.do(FrameArrived(an_id(2), frames[1]))
    assert steps(effects) == [] and [word.op for word in said(effects, Repair)] == ["resume"]  # type: ignore[union-attr]


def test_rows_of_an_ended_session_are_dropped_at_the_head():
    desk = Desk(RING)
    (step,) = steps(desk.ask(a_start()))
    (effect,) = desk.do(StepDone(step.work, 3, (0, 0, 0), 1.0))
    back = FrameArrived(an_id(2), replace(effect.activation, stage=2))  # type: ignore[union-attr]
    desk.ask(Ask("cancel", "a" * 16, ASKER, 1))
    assert desk.do(back) == []
    assert desk.machine.local.drops == {"rows of a session that ended": 1}


def test_a_session_that_comes_again_goes_on_counting_its_steps():
    """A late word about its first life must not be taken for one of its second."""
    desk = Desk()
    (first,) = steps(desk.ask(a_start(prompt=(5, 6, 7), max_tokens=1)))
    desk.answer(first, 9)
    for _ in range(3):
        desk.beat(deadlines.KEEP_DONE)
    (again,) = steps(desk.ask(a_start(prompt=(5, 6, 7), max_tokens=1)))
    assert again.work.step > first.work.step


def say_in_order(desk: Desk, effects: list[Effect], tokens: int) -> list[Effect]:
    """A session says 1, 2, 3, 4 over and over; each round takes 10 ms and 1 ms for each row."""
    said_so_far = 0
    while said_so_far < tokens:
        rows = steps(effects)
        desk.now += 0.01 + 0.001 * len(rows)
        effects = []
        for row in rows:
            position = row.activation.slots[0].position + row.activation.rows
            effects += desk.answer(row, position % 4 + 1)
            said_so_far += 1
    return effects


def test_a_session_that_repeats_itself_has_the_rows_of_its_next_tokens_run_at_once():
    desk = Desk()
    effects = desk.ask(a_start(prompt=(1, 2, 3, 4, 1), max_tokens=80))
    rows = steps(say_in_order(desk, effects, 30))
    assert len(rows) == 8
    positions = [row.activation.slots[0].position for row in rows]
    assert positions == list(range(positions[0], positions[0] + 8))
    assert [row.activation.payload[0] for row in rows] == [position % 4 + 1 for position in positions]
    assert {row.activation.rows for row in rows} == {1}
    assert all(
        row.sample is not None and row.sample.position == at + 1
        for row, at in zip(rows, positions, strict=True)
    )
    wrong = desk.answer(rows[0], 77)
    assert steps(wrong)[0].activation.payload == (77,)
    assert [out.tokens for out in said(wrong, Out)] == [(77,)]  # type: ignore[union-attr]
    for row in rows[1:]:  # what was guessed is not heard of
        assert desk.answer(row, 5) == []


def test_nothing_is_guessed_where_others_share_its_passes_or_it_is_not_wanted():
    desk = Desk()
    effects = say_in_order(desk, desk.ask(a_start(prompt=(1, 2, 3, 4, 1), max_tokens=80)), 30)
    desk.ask(a_start("b" * 16, prompt=(5, 6), max_tokens=4))
    rows, effects = steps(effects), []
    for row in rows:
        effects += desk.answer(row, (row.activation.slots[0].position + 1) % 4 + 1)
    assert len(steps(effects)) == 1
    quiet = Desk(speculation=False)
    effects = say_in_order(quiet, quiet.ask(a_start(prompt=(1, 2, 3, 4, 1), max_tokens=80)), 30)
    assert len(steps(effects)) == 1


def test_as_many_sessions_as_devices_guess_each_for_itself():
    """Two devices have a pass of each under way: a third session would have to share one."""
    desk = Desk(RING)
    waiting = {
        number: desk.ask(a_start(key(number), prompt=(1, 2, 3, 4, 1), max_tokens=200)) for number in (1, 2)
    }

    def go_round(number: int) -> int:
        """One round of a session, of 20 ms and 1 ms for each row; how many rows it had."""
        rows, effects = steps(waiting[number]), []
        desk.now += 0.02 + 0.001 * len(rows)
        for row in rows:
            position = row.activation.slots[0].position + row.activation.rows
            effects += desk.answer(desk.come(row), position % 4 + 1)
        waiting[number] = effects
        return len(rows)

    for _ in range(12):
        sizes = go_round(1), go_round(2)
    assert sizes == (8, 8)
    desk.ask(a_start(key(3), prompt=(5, 6), max_tokens=4))
    go_round(1), go_round(2)  # what is under way
    assert (go_round(1), go_round(2)) == (1, 1)


def test_of_many_finished_sessions_the_last_ones_are_kept_for_a_resend():
    desk = Desk()
    for number in range(MOST_DONE + 2):
        (step,) = steps(desk.ask(a_start(f"{number:016x}", prompt=(5, 6, 7), max_tokens=1)))
        desk.answer(step, 9)
    desk.beat(1.0)
    (unknown,) = said(desk.renew(f"{1:016x}"), Out)
    assert unknown.retry and unknown.error  # type: ignore[union-attr]
    (again,) = said(desk.renew(f"{2:016x}"), Out)
    assert again.tokens == (9,)  # type: ignore[union-attr]


@pytest.mark.parametrize(("early", "beyond"), [(0.0, 6.0), (0.003, 6.0), (0.015, 4.0)])
def test_hops_are_timed_from_where_rows_leave_the_first_stage_to_where_the_head_begins(
    early: float, beyond: float
):
    """What the first stage computed ahead of time is no time that a hop saved."""
    desk = Desk(RING)
    (step,) = steps(desk.ask(a_start(prompt=(1,))))
    desk.now += 0.008  # fed at 100.0, left the first stage at 100.010, or before it was fed
    first = StepDone(step.work, 1, (0,), 2.0, ran_ms=2.0, ended=100.010 - early)
    (sent,) = kinds(desk.do(first), SendFrame)
    passed = replace(sent.activation, stage=2, spent_ms=5.0)
    (head,) = steps(desk.do(FrameArrived(sent.device, passed)))
    ended = 100.020 - early if early < 0.01 else 100.008
    desk.do(StepDone(head.work, 1, (), 1.0, token=5, ran_ms=1.0, ended=ended))
    assert desk.machine.driver.rounds.beyond.p50_ms == pytest.approx(beyond)
