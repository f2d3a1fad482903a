"""A conversation: each turn goes on where the one before ended, on what the devices still hold of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from swisd.client.answers import Answer, Piece, Status
from swisd.client.asking import Options, answer_ids, check_prompt, encode_messages
from swisd.client.link import SwarmLink
from swisd.core.errors import BadInput
from swisd.core.history import History, same
from swisd.core.types import Units
from swisd.node.settings import AnswerSettings


class Talk:
    """The turns of one conversation over one link. `options` hold for all of them.

    Whether the devices still hold the earlier turns changes how long an answer takes, and nothing else that a
    person would notice: what they let go of is read again, as a part of the prompt.
    """

    def __init__(self, link: SwarmLink, options: Options, settings: AnswerSettings) -> None:
        if options.raw:
            raise BadInput("a conversation needs the chat template: leave out raw")
        self._link, self._options, self._settings = link, options, settings
        system = options.system if options.system is not None else settings.system
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self._held: History | None = None

    async def say(self, text: str) -> AsyncGenerator[Status | Piece | Answer, None]:
        """The answer to the next message: pieces as they come, the whole `Answer` last.

        A turn that fails or is broken off is not a part of the conversation. Raises `SwisdError`.
        """
        check_prompt(text, self._options)
        model = await self._link.model(self._options.patience)
        asked = [*self.messages, {"role": "user", "content": text}]
        ids = encode_messages(model[2], asked)
        items = answer_ids(
            self._link, model, ids, text, self._options, self._settings,
            alone=self._alone(ids), note=self._note,
        )  # fmt: skip
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Answer) and item.finish_reason in ("stop", "length"):
                    self.messages = [*asked, {"role": "assistant", "content": item.text}]
                yield item

    def _note(self, held: History | None) -> None:
        self._held = held

    def _alone(self, ids: list[int]) -> tuple[Units, ...]:
        """Which tokens of the prompt the devices ran one by one, when they were answers."""
        if self._held is None:
            return ()
        return self._held.alone_before(min(same(self._held.ids, ids), len(ids) - 1))
