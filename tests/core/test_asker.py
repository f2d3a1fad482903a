"""An asker alone: each token once, whatever order messages take, and an end in any case."""

from dataclasses import replace

import pytest
from builders import a_plan, an_id
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core import deadlines
from swisd.core.asker import MAX_ATTEMPTS, Asker
from swisd.core.effects import CancelTimer, Publish, SetTimer
from swisd.core.events import BusChanged, Received, Started, Stopping, Timer
from swisd.core.messages import Ask, Digest, MemberView, Out
from swisd.core.outlook import LOST
from swisd.core.request import Answered, Ended, Listen, Request, Waiting
from swisd.core.types import Plan, SamplingParams

PLAN = a_plan((0, 6, 1), epoch=3)
ELSEWHERE = a_plan((0, 6, 2), epoch=4)  # another device drives
REQUEST = Request("a" * 16, "f" * 16, (1, 2, 3), 5, SamplingParams(), 9, (0,), model_id="tiny")
quick = settings(deadline=None, derandomize=True)


class Desk:
    """An asker and what it said and gave, in order."""

    def __init__(self, request: Request = REQUEST, plan: Plan | None = PLAN) -> None:
        self.asker = Asker(request)
        self.now = 10.0
        self.tokens: list[int] = []
        self.rows: list[tuple[int, ...]] = []
        self.words: list[str] = []
        self.timers: dict[str, float] = {}
        self.ended: Ended | None = None
        self.do(Started())
        if plan is not None:
            self.hear(plan)

    def do(self, event: object) -> list[Ask]:
        """The asks that an event leads to."""
        asks: list[Ask] = []
        for effect in self.asker.handle(event, self.now):
            match effect:
                case Publish(message=Ask() as ask):
                    asks.append(ask)
                case Answered(out=out):
                    self.tokens += out.tokens
                    self.rows += out.top_ids
                case Waiting(text=text):
                    self.words.append(text)
                case Ended():
                    assert self.ended is None
                    self.ended = effect
                case SetTimer():
                    self.timers[effect.name] = effect.at
                case other:
                    assert isinstance(other, (CancelTimer, Listen))
        return asks

    def hear(self, message: object, driver: int = 1) -> list[Ask]:
        return self.do(Received(an_id(driver), message))  # type: ignore[arg-type]

    def wait(self, seconds: float) -> list[Ask]:
        self.now += seconds
        return self.do(Timer("ask"))

    def out(self, index: int, *tokens: int, **changes: object) -> Out:
        out = Out(self.asker.session, index, 3, tokens, self.asker._answer.base)
        return replace(out, **changes)  # type: ignore[arg-type]


def a_stream(desk: Desk, count: int) -> list[Out]:
    tokens = [desk.out(index, 50 + index) for index in range(count - 1)]
    return [*tokens, desk.out(count - 1, 50 + count - 1, finish="length")]


@quick
@given(st.data(), st.integers(1, 8))
def test_each_token_is_given_once_whatever_order_messages_take(data: st.DataObject, count: int):
    desk = Desk()
    stream = a_stream(desk, count)
    extra = data.draw(st.lists(st.sampled_from(stream), max_size=6))
    for out in data.draw(st.permutations(stream + extra)):
        desk.hear(out)
        assert desk.tokens == list(range(50, 50 + len(desk.tokens)))
    assert desk.tokens == list(range(50, 50 + count))
    assert desk.ended is not None and desk.ended.finish == "length"


@quick
@given(st.data(), st.integers(1, 8))
def test_what_was_lost_is_asked_for_again(data: st.DataObject, count: int):
    desk = Desk()
    stream = a_stream(desk, count)
    lost = data.draw(st.sets(st.integers(0, count - 1)))
    for index, out in enumerate(stream):
        if index not in lost:
            desk.hear(out)
    if lost:
        (renew,) = desk.wait(deadlines.RENEW)
        assert (renew.op, renew.from_index) == ("renew", min(lost))
        for out in stream[renew.from_index :]:
            desk.hear(out)
    assert desk.tokens == list(range(50, 50 + count)) and desk.ended is not None


def test_it_is_submitted_once_to_the_driver_of_an_active_plan():
    desk = Desk(plan=None)
    assert desk.hear(replace(PLAN, active=False)) == []
    (ask,) = desk.hear(PLAN)
    assert ask == Ask("start", "a" * 14 + "00", "f" * 16, 3, (1, 2, 3), (), (0,), 5, 9)
    assert desk.hear(PLAN) == []
    assert desk.hear(replace(PLAN, active=False)) == []  # came late
    assert [ask.op for ask in desk.wait(2)] == ["renew"]


def test_the_same_driver_goes_on_with_a_renewal():
    """The session lives through the change of plan: nothing is started again, a gap is repaired."""
    desk = Desk()
    desk.hear(desk.out(0, 50)), desk.hear(desk.out(1, 51))
    assert desk.hear(replace(PLAN, epoch=4, active=False)) == []
    (renew,) = desk.hear(replace(PLAN, epoch=4))
    assert (renew.op, renew.session, renew.epoch, renew.from_index) == ("renew", desk.asker.session, 4, 2)
    desk.hear(desk.out(2, 52)), desk.hear(desk.out(3, 53, epoch=4, finish="stop"))
    assert desk.tokens == [50, 51, 52, 53]


def test_another_driver_starts_again_with_the_tokens_that_came():
    desk = Desk()
    desk.hear(desk.out(0, 50)), desk.hear(desk.out(1, 51))
    old = desk.out(2, 52)
    assert desk.hear(replace(ELSEWHERE, active=False)) == []
    (again,) = desk.hear(ELSEWHERE)
    assert (again.op, again.session, again.epoch) == ("start", "a" * 14 + "00", 4)
    assert (again.emitted, again.prompt, again.seed) == ((50, 51), REQUEST.prompt, REQUEST.seed)
    assert again.again  # devices may hold rows of it still
    desk.hear(old), desk.hear(replace(old, index=0))  # the former driver has not heard yet
    desk.hear(desk.out(0, 52, epoch=4), driver=2)
    desk.hear(desk.out(1, 53, epoch=4, finish="stop"), driver=2)
    assert desk.tokens == [50, 51, 52, 53]


def test_messages_that_came_early_do_not_leak_into_the_next_attempt():
    desk = Desk()
    desk.hear(desk.out(1, 99))
    desk.hear(ELSEWHERE)
    desk.hear(desk.out(0, 50, epoch=4), driver=2)
    assert desk.tokens == [50]


@pytest.mark.parametrize("epoch", [3, 5])
def test_late_words_of_the_same_driver_about_an_earlier_attempt_are_ignored(epoch: int):
    """It handed the session back and took it up again: its numbers begin anew, and the network is slow."""
    desk = Desk()
    early = [desk.out(0, 50), desk.out(1, 51), desk.out(2, 52), desk.out(3, finish="stop")]
    desk.hear(early[0]), desk.hear(early[1])
    desk.hear(desk.out(2, epoch=epoch, finish="error", error="the plan changed", retry=True))
    if epoch > 3:
        desk.hear(ELSEWHERE)
    desk.hear(replace(PLAN, epoch=epoch)), desk.do(Timer("again"))
    for late in early:
        desk.hear(late)
    desk.hear(desk.out(0, 52, epoch=epoch)), desk.hear(desk.out(1, 53, epoch=epoch))
    assert desk.tokens == [50, 51, 52, 53] and desk.ended is None


def test_a_session_that_the_swarm_lost_is_tried_again_after_a_while():
    desk = Desk()
    desk.hear(desk.out(0, 50))
    assert desk.hear(desk.out(1, finish="error", error="no answer", retry=True)) == []
    assert desk.words[-1].startswith("no answer")
    (again,) = desk.wait(2)
    assert (again.op, again.emitted, again.session[-2:]) == ("start", (50,), "00")


def test_a_session_whose_caches_were_freed_gets_another_name():
    """Words about the former one, that come late, must not be taken for words about this."""
    desk = Desk()
    desk.hear(desk.out(0, 50))
    desk.hear(desk.out(1, finish="error", error="could not be brought back", retry=True, freed=True))
    (again,) = desk.do(Timer("again"))
    assert (again.op, again.emitted, again.session[-2:]) == ("start", (50,), "01")
    desk.hear(replace(desk.out(0, 99), session="a" * 14 + "00"))
    assert desk.tokens == [50]


def test_the_pause_before_it_is_tried_again_doubles_until_a_token_comes():
    desk = Desk()
    desk.timers.clear()
    for index in range(3):
        desk.hear(desk.out(0, finish="error", error="busy", retry=True)), desk.do(Timer("again"))
        assert desk.timers["again"] == pytest.approx(desk.now + deadlines.AGAIN * 2**index)
    desk.hear(desk.out(0, 50)), desk.hear(desk.out(1, finish="error", error="busy", retry=True))
    assert desk.timers["again"] == pytest.approx(desk.now + deadlines.AGAIN)


def test_when_the_bus_moves_what_was_said_meanwhile_is_asked_for():
    desk = Desk()
    desk.hear(desk.out(0, 50))
    assert desk.do(BusChanged(False, "the host is gone")) == [] and desk.words[-1] == LOST
    (renew,) = desk.do(BusChanged(True))
    assert (renew.op, renew.from_index) == ("renew", 1)
    (renew,) = desk.hear(replace(PLAN, epoch=5, host=an_id(3)))  # the next host carried the plan on
    assert (renew.op, renew.epoch) == ("renew", 5)


def test_a_host_that_never_heard_of_its_plan_is_asked_anew():
    desk = Desk()
    desk.hear(desk.out(0, 50))
    desk.do(BusChanged(False, "cable")), desk.do(BusChanged(True))
    (again,) = desk.hear(replace(PLAN, epoch=1, host=an_id(3)))
    assert (again.op, again.epoch, again.emitted) == ("start", 1, (50,))


def test_tokens_behind_a_gap_that_nobody_fills_are_not_given():
    """A token was lost, later ones came, then the driver began anew and knows nothing of the session."""
    desk = Desk()
    desk.hear(desk.out(0, 50)), desk.hear(desk.out(2, 52)), desk.hear(desk.out(3, 53, finish="length"))
    desk.hear(desk.out(1, finish="error", error="the driver does not know this session", retry=True))
    assert desk.tokens == [50] and desk.ended is None
    (again,) = desk.wait(2)
    assert again.emitted == (50,)


def test_a_driver_that_lags_behind_is_not_asked_in_a_loop():
    desk = Desk()
    for _ in range(10):
        assert desk.hear(desk.out(0, epoch=0, finish="error", error="the plan changed", retry=True)) == []
    assert [(ask.op, ask.session[-2:]) for ask in desk.wait(2)] == [("start", "00")]


def test_attempts_have_an_end():
    desk = Desk()
    for _ in range(MAX_ATTEMPTS):
        desk.hear(desk.out(0, finish="error", error="lost", retry=True))
        desk.wait(2)
    assert desk.ended is not None and "lost 64 times" in desk.ended.error


def test_an_error_of_the_session_itself_ends_it():
    desk = Desk()
    desk.hear(desk.out(0, finish="error", error="the prompt is too long"))
    assert desk.ended == Ended("error", "the prompt is too long", PLAN, 0.0)
    assert desk.wait(2) == [] and desk.hear(replace(PLAN, epoch=9)) == []


def test_patience_ends_and_the_driver_is_told():
    desk = Desk()
    desk.wait(deadlines.PATIENCE)
    assert desk.ended is None
    (cancel,) = desk.wait(1)
    assert cancel.op == "cancel"
    assert desk.ended is not None and desk.ended.error.endswith("the driver does not answer")


@pytest.mark.parametrize("sign", ["token", "waiting", "alive", "plan", "progress"])
def test_any_progress_renews_patience(sign: str):
    desk = Desk()
    for step in range(5):
        desk.wait(deadlines.PATIENCE - 5)
        match sign:
            case "token":
                desk.hear(desk.out(step, 50))
            case "waiting":
                desk.hear(desk.out(0, waiting=3))
            case "alive":
                desk.hear(desk.out(0, alive=True))
            case "plan":
                desk.hear(replace(PLAN, epoch=4 + step))
            case _:
                desk.hear(a_digest(a_member(progress=step / 10)))
    assert desk.ended is None


def test_without_progress_in_the_digest_patience_ends():
    desk = Desk(plan=None)
    for _ in range(30):
        desk.hear(a_digest(a_member(state="failed", note="disk full")))
        desk.wait(2)
    assert desk.ended is not None and desk.ended.error.endswith("d1 failed: disk full")


def test_another_model_than_the_wanted_one_is_an_error_with_advice():
    desk = Desk(replace(REQUEST, model_id="other"))
    assert desk.ended is not None
    assert desk.ended.error.startswith("the swarm runs tiny, not other") and "swisd up" in desk.ended.error
    assert Desk(replace(REQUEST, model_id="")).ended is None


def test_stopping_cancels_at_the_driver():
    desk = Desk()
    (cancel,) = desk.do(Stopping())
    assert (cancel.op, cancel.session, cancel.epoch) == ("cancel", desk.asker.session, 3)
    assert desk.ended is not None and desk.ended.finish == "cancelled"
    assert Desk(plan=None).do(Stopping()) == []


def a_member(**changes: object) -> MemberView:
    member = MemberView(an_id(1), "d1", "alive", "idle", (), 0, 1, True, 0)
    return replace(member, **changes)  # type: ignore[arg-type]


def a_digest(*members: MemberView, note: str = "") -> Digest:
    return Digest(an_id(1), 1, 1, members, note=note)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (a_plan(problem="33 MiB missing"), "33 MiB missing"),
        (a_digest(note="downloads tiny: 40%"), "downloads tiny: 40%"),
        (a_digest(a_member(state="measuring")), "d1 is measuring"),
        (a_digest(a_member(state="loading", progress=0.25)), "d1 is loading 25%"),
        (a_digest(a_member(state="failed", note="disk full")), "d1 failed: disk full"),
        (a_digest(a_member()), "waiting for a plan"),
    ],
)
def test_why_nothing_comes_yet_is_said_once(message: object, words: str):
    desk = Desk(plan=None)
    desk.now += deadlines.BEAT
    desk.hear(message), desk.hear(message)
    assert desk.words == [words]


def test_a_digest_that_comes_before_the_plan_worries_nobody():
    desk = Desk(plan=None)
    desk.hear(a_digest(a_member()))
    desk.hear(PLAN)
    assert desk.words == []


def test_that_the_model_fits_nowhere_is_said_in_time():
    """Other news in between, of devices that do nothing about it, do not put it off."""
    desk = Desk(plan=None)
    desk.hear(a_digest(a_member())), desk.hear(a_plan(problem="33 MiB missing"))
    assert desk.timers["fit"] == desk.now + deadlines.NO_FIT
    desk.now += deadlines.NO_FIT - 0.5
    desk.hear(a_digest(a_member(state="ready"), note="news"))
    desk.do(Timer("fit"))
    assert desk.ended is None
    desk.now += 0.5
    desk.do(Timer("fit"))
    assert desk.ended is not None and desk.ended.error == "33 MiB missing"


@pytest.mark.parametrize("state", ["measuring", "fetching", "loading"])
def test_while_a_device_is_about_to_help_it_is_waited_for(state: str):
    desk = Desk(plan=None)
    desk.hear(a_digest(a_member())), desk.hear(a_plan(problem="33 MiB missing"))
    desk.hear(a_digest(a_member(state=state)))
    desk.now += 2 * deadlines.NO_FIT
    desk.do(Timer("fit"))
    assert desk.ended is None
    desk.hear(a_digest(a_member()))
    assert desk.timers["fit"] == desk.now + deadlines.NO_FIT


def test_queue_and_bus_are_said():
    desk = Desk()
    desk.hear(desk.out(0, waiting=2)), desk.hear(desk.out(0, waiting=2))
    desk.do(BusChanged(False))
    assert desk.words == ["busy: 2 before you", LOST]
    desk.hear(desk.out(0, 50))  # the place in the queue took no number
    assert desk.tokens == [50]


def test_scores_of_a_repeated_attempt_are_given_once():
    desk = Desk(replace(REQUEST, score_top=1))

    def scores(index: int, *ids: int) -> Out:
        count = len(ids)
        top = tuple((item,) for item in ids)
        return desk.out(index, top_ids=top, top_logprobs=((0.0,),) * count, next_logprobs=(None,) * count)

    desk.hear(scores(0, 1, 2))
    desk.hear(ELSEWHERE)
    for out in (scores(0, 1), scores(1, 2, 3), scores(2, 4)):
        desk.hear(replace(out, epoch=4), driver=2)
    assert desk.rows == [(1,), (2,), (3,), (4,)]


events = st.one_of(
    st.builds(
        lambda epoch, active, driver: ("plan", epoch, active, driver),
        st.integers(1, 4),
        st.booleans(),
        st.integers(1, 2),
    ),
    st.builds(lambda epoch: ("empty", epoch), st.integers(1, 4)),
    st.builds(lambda step: ("driver", step), st.integers(0, 5)),
    st.builds(lambda index: ("again", index), st.integers(0, 9)),
    st.builds(lambda freed: ("lost", freed), st.booleans()),
    st.just(("renew",)),
)


@quick
@given(st.lists(events, max_size=40))
def test_over_any_changes_of_plan_the_stream_has_no_gap_and_no_repeat(steps: list[tuple]):
    """Drivers that answer each attempt from its emitted tokens on, while plans come and go.

    One that goes on answers the renewal; the words of all earlier attempts may come again at any time.
    """
    desk, count = Desk(plan=None), 5
    attempt: Ask | None = None
    sent: list[Out] = []
    earlier: list[tuple[Out, int]] = []
    driver, epochs = 1, {epoch: epoch % 2 + 1 for epoch in range(1, 5)}

    def take(asks: list[Ask]) -> None:
        nonlocal attempt, sent, driver
        for ask in asks:
            if ask.op == "start":
                earlier.extend((out, driver) for out in sent)
                attempt, sent, driver = ask, [], epochs[ask.epoch]
            elif ask.op == "renew" and attempt is not None and ask.session == attempt.session:
                for out in sent[ask.from_index :]:
                    take(desk.hear(out, driver))

    for step in steps:
        match step:
            case ("plan", epoch, active, device):
                if epoch > (desk.asker._plan.epoch if desk.asker._plan else 0):
                    epochs[epoch] = device
                plan = a_plan((0, 6, epochs[epoch]), epoch=epoch, active=active)
                take(desk.hear(plan))
            case ("empty", epoch):
                take(desk.hear(a_plan(epoch=epoch, problem="no room")))
            case ("driver", arrives) if attempt is not None:
                at = len(attempt.emitted) + len(sent)
                if at < count:
                    finish = "length" if at == count - 1 else None
                    base = len(attempt.emitted)
                    sent.append(
                        Out(attempt.session, len(sent), attempt.epoch, (50 + at,), base, finish=finish)
                    )
                    if arrives:
                        take(desk.hear(sent[-1], driver))
            case ("again", index) if index < len(sent):
                take(desk.hear(sent[index], driver))
            case ("again", index) if earlier:
                out, device = earlier[index % len(earlier)]
                take(desk.hear(out, device))
            case ("lost", freed) if attempt is not None:
                error = Out(
                    attempt.session, len(sent), attempt.epoch, finish="error", error="lost", retry=True,
                    freed=freed,
                )  # fmt: skip
                sent.append(error)
                take(desk.hear(error, driver))
                attempt = None
            case ("renew",):
                take(desk.wait(2))
        assert desk.tokens == list(range(50, 50 + len(desk.tokens)))
        assert desk.ended is None or desk.tokens == list(range(50, 50 + count))
