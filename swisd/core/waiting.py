"""Requests that a driver has not begun: in order of arrival, refused where they can never run."""

from collections import deque
from collections.abc import Iterator

from swisd.core import deadlines
from swisd.core.messages import Ask, SessionView
from swisd.core.model import Manifest
from swisd.core.types import Plan

MAX_WAITING = 64


class Waiting:
    """First come, first served. Whoever is not heard for `deadlines.LEASE` seconds loses its place."""

    def __init__(self) -> None:
        self._asks: deque[Ask] = deque()
        self._heard: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._asks)

    def __iter__(self) -> Iterator[Ask]:
        return iter(list(self._asks))

    def __contains__(self, session: object) -> bool:
        return session in self._heard

    def add(self, ask: Ask, now: float) -> None:
        self._asks.append(ask)
        self._heard[ask.session] = now

    def heard(self, session: str, now: float) -> None:
        """Its asker listens still."""
        if session in self._heard:
            self._heard[session] = now

    def place(self, session: str) -> int | None:
        """How many of those that wait come before it; None if it does not wait."""
        return next((place for place, ask in enumerate(self._asks) if ask.session == session), None)

    def first(self) -> Ask | None:
        return self._asks[0] if self._asks else None

    def remove(self, session: str) -> None:
        self._heard.pop(session, None)
        self._asks = deque(ask for ask in self._asks if ask.session != session)

    def clear(self) -> list[Ask]:
        """Take all of them out, in order."""
        asks, self._asks = list(self._asks), deque()
        self._heard.clear()
        return asks

    def sweep(self, now: float) -> None:
        """Forget those whose asker fell silent."""
        for session, heard in list(self._heard.items()):
            if now - heard > deadlines.LEASE:
                self.remove(session)

    def views(self) -> list[SessionView]:
        return [SessionView(ask.session, ask.asker, len(ask.prompt), 0, 0.0, True) for ask in self._asks]


def refusal(ask: Ask, plan: Plan, manifest: Manifest | None) -> str:
    """Why a request cannot run under this plan, in words; empty if it can."""
    if not ask.prompt:
        return "the prompt is empty: say something"
    room = plan.context - (0 if ask.score_top else 1)
    if len(ask.prompt) > room:
        return (
            f"the prompt has {len(ask.prompt)} tokens, the swarm's memory holds {room} under this plan: "
            "shorten it, or offer more memory (swisd up --memory)"
        )
    known = len(ask.prompt) + len(ask.emitted)
    if known > room:
        return (
            f"prompt and answer have {known} tokens, the swarm's memory holds {room} under this plan: "
            "offer more memory (swisd up --memory)"
        )
    edges = [edge for span in ask.alone for edge in span]
    if edges and (sorted(set(edges)) != edges or edges[-1] >= len(ask.prompt) or ask.score_top):
        return "the spans that were answers once are not in order, or not in the prompt"
    largest = max((*ask.prompt, *ask.emitted))
    if manifest is not None and largest >= manifest.vocab:
        return f"the prompt holds token {largest}, the model's vocabulary has {manifest.vocab}"
    return ""
