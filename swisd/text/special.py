"""Special tokens: which there are, which of them end an answer, and where they stand in a text.

The names are those that llama.cpp recognises (src/llama-vocab.cpp, `special_eog_ids`): model files often
name only one end token in their metadata, while the model ends its turn with another.
"""

from collections.abc import Iterable

from swisd.text.blob import TokenType, Vocabulary

# End of a turn, a message or a document, in the spelling of the various model families.
END_NAMES = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|file_sep|>",
    "<|repo_name|>",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
)
# These end an answer only where the file itself calls them control tokens: in Gemma's vocabulary "</s>" is
# the HTML tag for struck-out text, and a text that contains it must not be cut there.
END_NAMES_IF_CONTROL = ("</s>", "<eos>", "[EOS]", "<reponame>", "<fim-pad>", "<fim_pad>")
# Some files call these user-defined, which would let a user's raw text open a turn.
START_NAMES = ("<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|turn>")


class SpecialTokens:
    """The special tokens of one vocabulary.

    `control` are the ids that steer the model and never show in a text, `eos_ids` those that end an answer.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        types = vocabulary.token_type
        wanted = {*END_NAMES, *END_NAMES_IF_CONTROL, *START_NAMES}
        named = {text: i for i, text in enumerate(vocabulary.tokens) if text in wanted}
        control = {i for i, kind in enumerate(types) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)}
        control.update(named[name] for name in (*END_NAMES, *START_NAMES) if name in named)
        ends = {named[name] for name in END_NAMES if name in named}
        ends.update(named[name] for name in END_NAMES_IF_CONTROL if named.get(name) in control)
        if {"<|return|>", "<|end|>"} <= named.keys() and named.keys() & {"<|call|>", "<|calls|>"}:
            # Harmony format: <|end|> closes one message of an answer that goes on.
            ends.discard(named["<|end|>"])
        given = {vocabulary.eos_id, vocabulary.eot_id} - {None}
        self.eos_ids: frozenset[int] = frozenset(ends | {i for i in given if i is not None})
        self.control: frozenset[int] = frozenset(control | self.eos_ids)
        user_defined = [
            i for i, kind in enumerate(types) if kind == TokenType.USER_DEFINED and i not in self.control
        ]
        # A control token of one character could not be shielded, and no model spells one so.
        spelled = [i for i in sorted(self.control) if len(vocabulary.tokens[i]) > 1]
        self._plain = _longest_first(vocabulary.tokens, user_defined)
        self._steering = _longest_first(vocabulary.tokens, spelled)
        self._all = _longest_first(vocabulary.tokens, [*user_defined, *spelled])

    def partition(self, text: str, *, special: bool) -> list[str | int]:
        """Cut `text` at its special tokens: ids for these, non-empty texts for what is between.

        User-defined tokens (runs of newlines, markup) are always matched, control tokens only if `special`.
        Longest token first over the whole text, then from left to right, as llama.cpp does.
        """
        parts: list[str | int] = [text] if text else []
        present = set(text)
        for token, token_id in self._all if special else self._plain:
            # One look at the first character spares most of Gemma's six thousand tokens a search.
            if token[0] in present and token in text:
                parts = list(_cut(parts, token, token_id))
        return parts

    def shield(self, text: str, mark: str) -> str:
        """`text` with `mark` after the first character of every control token's text in it, so that
        `partition` finds none."""
        present = set(text)
        for token, _ in self._steering:
            if token[0] in present and token in text:
                text = text.replace(token, token[0] + mark + token[1:])
        return text


def _longest_first(tokens: tuple[str, ...], ids: Iterable[int]) -> tuple[tuple[str, int], ...]:
    entries = [(tokens[i], i) for i in ids if tokens[i]]
    entries.sort(key=lambda entry: (-len(entry[0].encode()), entry[1]))
    return tuple(entries)


def _cut(parts: list[str | int], token: str, token_id: int) -> Iterable[str | int]:
    for part in parts:
        if isinstance(part, int) or token not in part:
            yield part
            continue
        first, *rest = part.split(token)
        if first:
            yield first
        for piece in rest:
            yield token_id
            if piece:
                yield piece
