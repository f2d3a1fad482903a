"""The answer of a session so far, in order without gap or repeat, over however many submissions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from swisd.core.messages import Out


class Answer:
    """Tokens and scores that came. A submission's messages are counted from 0, and go on behind `base`."""

    def __init__(self, emitted: Sequence[int]) -> None:
        self.tokens = list(emitted)
        self.base = 0  # tokens at the submission: others are said of an earlier attempt
        self.next = 0  # index of the next message of this attempt
        self._early: dict[int, Out] = {}
        self._rows = 0  # scored positions delivered
        self._seen_rows = 0  # scored positions of this attempt

    def submit(self) -> None:
        """The session is submitted with the tokens that are here."""
        self.base, self.next = len(self.tokens), 0
        self._early.clear()
        self._seen_rows = 0

    def of_earlier(self, said: Out) -> bool:
        """Whether a message belongs to an earlier submission; a failure counts whichever it is of."""
        return said.base != self.base and (bool(said.tokens) or said.finish in ("stop", "length"))

    def in_turn(self, said: Out) -> Iterator[Out]:
        """The messages whose turn it is by this one."""
        if said.index >= self.next:
            self._early[said.index] = said
        while (item := self._early.pop(self.next, None)) is not None:
            self.next += 1
            yield item

    def forget_early(self) -> None:
        """What came before its turn lies behind a gap that nobody fills."""
        self._early.clear()

    def add(self, item: Out) -> Out:
        """Take tokens or scores. Returns what of them is new.

        Scores of a repeated attempt begin again: the rows that were delivered are left out.
        """
        self.tokens.extend(item.tokens)
        if not item.top_ids:
            return item
        start = self._seen_rows
        skip = max(0, self._rows - start)
        self._seen_rows = start + len(item.top_ids)
        self._rows = max(self._rows, self._seen_rows)
        return replace(
            item,
            top_ids=item.top_ids[skip:],
            top_logprobs=item.top_logprobs[skip:],
            next_logprobs=item.next_logprobs[skip:],
        )
