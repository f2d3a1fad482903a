"""One session at its driver: which rows to run next, and what each answer means.

A session is a list of passes (`passes.py`), and each new token is one more. Everything is derived from the
ask, so any driver can take it up.

Behind the row of the last token others may run at once, of tokens that may come next (`guess`). Each has its
own step and the bits that it would have alone. Where another token comes than was guessed, what lies behind
is given up, and the next row takes its place: nothing that is said depends on guesses.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from swisd.core.drafts import Drafted
from swisd.core.history import History, history, together
from swisd.core.lookup import REACH, Lookup
from swisd.core.messages import Ask, Out
from swisd.core.passes import Pass, all_passes
from swisd.core.rows import Sample, Score
from swisd.core.types import FinishReason, Slot

READ_AGAIN = "what was said before is held no more and read again"


@dataclass(slots=True)
class Session:
    """A running session. `outs` keeps what was said, so that a gap can be repaired."""

    ask: Ask
    epoch: int
    max_tokens: int
    started: float
    renewed: float
    begins: int = 0  # positions before were taken over from another session
    todo: deque[Pass] = field(default_factory=deque)
    running: dict[int, Pass] = field(default_factory=dict)
    fed_at: dict[int, float] = field(default_factory=dict)  # step -> when its rows were fed
    at_head: set[int] = field(default_factory=set)  # steps whose rows came as far as the head
    next_step: int = 0
    emitted: list[int] = field(default_factory=list)
    scored: int = 0
    outs: list[Out] = field(default_factory=list)
    finish: FinishReason | None = None
    finished_at: float = 0.0
    moved: float = 0.0  # when it was admitted, or a step last came back
    floor: int = 0  # steps below were given up
    tries: int = 0  # to bring it back under this plan, since a step last came round
    looked: float = 0.0  # when a late step was last looked for
    patience: float = 0.0  # what it might have taken then, in seconds
    slack: float = 1.0  # after so many times that it counts, next, against the device that has the step
    prompt_ms: float = 0.0
    token_times: deque[float] = field(default_factory=lambda: deque(maxlen=33))
    lookup: Lookup | None = None  # once a token was said
    drafted: Drafted = field(default_factory=Drafted)
    guessed: int = 0  # tokens that were guessed right
    together: tuple[int, int] = (0, 1)  # the first step and the number of the rows that were fed at once last
    left: tuple[int, float, float] = (-1, 0.0, 0.0)  # the row that left the first stage last, when, ms it ran
    at_once: int = 1  # rows that were worth their time together when the last one was fed
    shares: bool = False  # guesses of it ran with its last token
    company: int = 0  # sessions that ran then, itself among them; 0: those rows' time tells nothing
    round: tuple[float, int] = (0.0, 0)  # when the last token's row was fed, rows until now; 0: not counted

    @classmethod
    def begin(cls, ask: Ask, epoch: int, max_tokens: int, now: float, first_step: int = 0) -> "Session":
        session = cls(ask, epoch, max_tokens, now, now, next_step=first_step, emitted=list(ask.emitted))
        session.todo.extend(session._all_passes())
        return session

    @property
    def key(self) -> str:
        return self.ask.session

    @property
    def reserved(self) -> int:
        """Positions of the KV cache that it may fill."""
        return len(self.ask.prompt) + self.max_tokens

    @property
    def tokens_per_s(self) -> float:
        if len(self.token_times) < 2:
            return 0.0
        span = self.token_times[-1] - self.token_times[0]
        return (len(self.token_times) - 1) / span if span > 0 else 0.0

    @property
    def oldest(self) -> int | None:
        """The oldest step under way."""
        return min(self.running, default=None)

    @property
    def first_wanted(self) -> int:
        """Position of the first pass whose answer was not said yet."""
        return self.scored if self.ask.score_top else self._all_passes()[-1].position

    def odds(self, most: int) -> list[float]:
        """Of at most so many guesses at the next tokens, how likely each is right if those before it are."""
        return self.lookup.odds(most) if self.lookup is not None else []

    def halt(self) -> None:
        """Nothing is under way any more, and nothing is fed, until it is lined up again."""
        self.running.clear()
        self.at_head.clear()
        self.fed_at.clear()
        self.todo.clear()
        self.round = 0.0, 0

    def line_up(self, position: int) -> int:
        """Go on with the pass that holds this position; returns where that begins."""
        rest = [item for item in self._all_passes() if item.position + len(item.ids) > position]
        self.todo = deque(rest)
        return rest[0].position if rest else position

    def passes(self, start: int, end: int) -> list[Pass]:
        """The passes with any position in `[start, end)`, whole, as they were first run.

        Caches that moved may end within a pass: it is run from its beginning.
        """
        return [
            item
            for item in self._all_passes()
            if item.position < end and item.position + len(item.ids) > start
        ]

    def take(self) -> tuple[Slot, Pass] | None:
        """The next rows to run, if there are any now."""
        if self.finish is not None or not self.todo:
            return None
        self.together = self.next_step, 1
        return self._step(self.todo.popleft())

    def guess(self, rows: int) -> list[tuple[Slot, Pass]]:
        """Rows to run at once with that of the last token, `rows` in all at most, of tokens that may come."""
        ids = self.lookup.guess(self._room_behind(rows)) if self.lookup is not None else ()
        if ids:
            self.together = next(iter(self.running)), 1 + len(ids)
        return self._behind(ids)

    def follow(self, ids: Sequence[int]) -> list[tuple[Slot, Pass]]:
        """Rows to run behind that of the last token, which runs already, of tokens that may come."""
        found = self._behind(ids[: self._room_behind(1 + len(ids))])
        if found:
            self.together = -1, 1  # its time tells nothing of rows that run at once
            self.round = self.round[0], self.round[1] and 1 + len(found)
        return found

    @property
    def known(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.ask.prompt) + len(self.emitted)

    def _room_behind(self, rows: int) -> int:
        """How many guesses may run now, with the last token's row `rows`: none unless it runs alone."""
        if len(self.running) != 1 or self.todo:
            return 0
        (item,) = self.running.values()
        if not item.logits or item.position + len(item.ids) != self.known or len(item.ids) != 1:
            return 0
        return max(min(rows, self.max_tokens - len(self.emitted)) - 1, 0)

    def _behind(self, ids: Sequence[int]) -> list[tuple[Slot, Pass]]:
        """Steps of guesses behind the last token's row."""
        return [
            self._step(Pass(self.known - 1 + at, (token,), 1), guess=True) for at, token in enumerate(ids, 1)
        ]

    def _step(self, item: Pass, *, guess: bool = False) -> tuple[Slot, Pass]:
        slot = Slot(self.key, self.next_step, item.position, len(item.ids), item.logits, guess)
        self.running[self.next_step] = item
        self.next_step += 1
        return slot, item

    def head_request(self, step: int) -> Sample | Score | None:
        """What the head shall do with the rows of a step; None if they are no longer awaited."""
        item = self.running.get(step)
        if item is None or self.finish is not None:
            return None
        if self.ask.score_top:
            prompt = self.ask.prompt
            after = range(item.position + 1, item.position + 1 + len(item.ids))
            return Score(self.ask.score_top, tuple(prompt[p] if p < len(prompt) else None for p in after))
        position = item.position + len(item.ids)
        return Sample(self.ask.sampling, self.ask.seed, position, self._recent(position))

    def _recent(self, position: int) -> tuple[int, ...]:
        """The last tokens before a position, as many as the repetition penalty looks at, guesses among them.

        They are made for each token, so not of all.
        """
        window = self.ask.sampling.looks_back
        if not window:
            return ()
        known = len(self.ask.prompt) + len(self.emitted)
        guessed = [item.ids[0] for item in self.running.values() if known <= item.position < position]
        last = [*self.emitted[-window:], *guessed][-window:]
        more = window - len(last)
        return (*self.ask.prompt[-more:], *last) if more > 0 else tuple(last)

    def awaits(self, item: Pass) -> bool:
        """Whether the answer to these rows is the next token, and not that to a guess whose turn is later."""
        return item.position + len(item.ids) == len(self.ask.prompt) + len(self.emitted)

    @property
    def history(self) -> History:
        """What the caches hold of it, once all that was fed has run."""
        return history(self.ask.prompt, self.ask.alone, self.emitted, whole=self.finish != "length")

    def usable(self, agreed: int) -> int:
        """How many of the first `agreed` positions can be taken over, so that all others run as they would.

        The last one must be run, for what comes next, and no pass may be left with one row.
        """
        at = min(agreed, len(self.ask.prompt) + len(self.emitted) - 1)
        for start, end in together(len(self.ask.prompt), self.ask.alone):
            if start < at < end:
                at = min(at, end - 2)
                return at if at - start > 1 else start
        return at

    def answers_from(self, position: int) -> int:
        """Positions of the prompt from this one on that were answers once, and run one by one again."""
        return sum(max(0, end - max(start, position)) for start, end in self.ask.alone)

    def take_over(self, position: int) -> None:
        """Positions before are held already: the rest is run."""
        self.begins = position
        self.line_up(position)

    def start_over(self) -> None:
        """Nothing is held."""
        self.begins = 0
        self.line_up(0)

    def _all_passes(self) -> list[Pass]:
        return all_passes(self.ask, self.emitted, self.begins)

    def acknowledge(self, step: int) -> bool:
        """A pass went round; True if it was awaited."""
        self.at_head.discard(step)
        return self.running.pop(step, None) is not None

    def on_token(self, token: int, now: float) -> Out:
        """Take the sampled token: emit it and line up its step, or finish."""
        if not self.token_times:
            self.prompt_ms = (now - self.started) * 1000.0
        self.token_times.append(now)
        if token in self.ask.stop_ids:
            return self.say(finish="stop", now=now)
        self.emitted.append(token)
        self.drafted.add(token)
        if len(self.emitted) >= self.max_tokens:
            return self.say(tokens=(token,), finish="length", now=now)
        self._line_up_next(token)
        return self.say(tokens=(token,), now=now)

    def _line_up_next(self, token: int) -> None:
        """The row of the token that came runs next, unless it was guessed and is under way."""
        if self.lookup is None:
            self.lookup = Lookup((*self.ask.prompt, *self.emitted)[-REACH:])
        else:
            self.lookup.add(token)
        position = len(self.ask.prompt) + len(self.emitted) - 1
        guesses = [step for step, item in self.running.items() if item.position >= position]
        if guesses and self.running[guesses[0]].ids == (token,):
            self.guessed += 1
            return
        for step in guesses:
            self.acknowledge(step)
            self.fed_at.pop(step, None)
        self.todo.append(Pass(position, (token,), 1))

    def say(
        self,
        *,
        now: float,
        tokens: tuple[int, ...] = (),
        finish: FinishReason | None = None,
        error: str = "",
        retry: bool = False,
        freed: bool = False,
        **scores: tuple[object, ...],
    ) -> Out:
        """The next message to the asker."""
        out = Out(
            self.key, len(self.outs), self.epoch, tokens, len(self.ask.emitted), finish=finish,
            error=error[:500], retry=retry, freed=freed, prompt_ms=self.prompt_ms, held=self.begins,
            guessed=self.guessed, **scores,  # type: ignore[arg-type]
        )  # fmt: skip
        self.outs.append(out)
        if finish is not None:
            self.finish, self.finished_at = finish, now
            self.todo.clear()
            self.lookup = None  # it is as large as the text
        return out
