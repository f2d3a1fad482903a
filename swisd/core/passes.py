"""How a session is cut into passes: rows that run together, and those that run alone.

Prompt tokens go in chunks; tokens that were already answered (when a session is continued after a failure, or
where the prompt goes on with an earlier answer) go one by one, because one-token steps and longer passes
differ in their last bits. Everything is derived from the ask and the answer, so any driver cuts it alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from swisd.core.history import together
from swisd.core.messages import Ask

CHUNK = 128  # rows of a prompt pass: fixed, never by plan, so that every plan gives the same bits


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows to run: token ids from an absolute position on, and for how many of them an answer is wanted."""

    position: int
    ids: tuple[int, ...]
    logits: int


def chunk_sizes(tokens: int, chunk: int = CHUNK) -> list[int]:
    """Cut a prompt into passes of at most `chunk` rows, none of one row unless it is the whole prompt.

    A pass of a single row takes another path through the matrix products than a longer one.
    """
    sizes = [chunk] * (tokens // chunk)
    if rest := tokens % chunk:
        sizes.append(rest)
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] - 1, 2]
    return sizes


def all_passes(ask: Ask, emitted: Sequence[int], begins: int) -> list[Pass]:
    """The passes of a whole session, in order: those of the prompt, then one for each token of the answer.

    `begins`: where it goes on from what another one held; no pass reaches across.
    """
    passes: list[Pass] = []
    position = 0
    for size in _prompt_sizes(ask, begins):
        ids = ask.prompt[position : position + size]
        passes.append(Pass(position, ids, size if ask.score_top else 0))
        position += size
    for token in emitted:
        passes.append(Pass(position, (token,), 0))
        position += 1
    if not ask.score_top:
        last = passes[-1]
        passes[-1] = Pass(last.position, last.ids, 1)
    return passes


def _prompt_sizes(ask: Ask, begins: int) -> list[int]:
    """Rows of each pass of the prompt."""
    length = len(ask.prompt)
    sizes: list[int] = []
    for start, end in [*together(length, ask.alone), (length, length)]:
        sizes += [1] * (start - sum(sizes))
        parts = (start, begins, end) if start < begins < end else (start, end)
        for first, last in pairwise(parts):
            sizes += chunk_sizes(last - first)
    return sizes
