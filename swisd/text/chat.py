"""Chat templates: messages to the text, or the token ids, that a model was trained to answer.

Templates are jinja2 as Hugging Face writes them (https://huggingface.co/docs/transformers/chat_templating).
They come with the model file, so they run in a metered sandbox.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from swisd.core.errors import BadInput, ModelError
from swisd.text.blob import MAX_TEMPLATE_CHARS
from swisd.text.tokenizer import Tokenizer

# For models without a template: plain turns, in markup that base models have met in transcripts.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# A Unicode noncharacter, meant for use inside a program; it marks places and is taken out again.
_SHIELD = "\ufdd0"


def render_chat(
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos: str,
    eos: str,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    today: str | None = None,
) -> str:
    """The text of a chat.

    `messages` are tables with `role` and `content`, `bos` and `eos` the spelling of these tokens. `today` is
    an ISO date (2026-11-30) for templates that name the day; without it they see no `strftime_now` and use
    the day they were written with. No template: `FALLBACK_TEMPLATE`.

    Raises `ModelError` with one line if the template is wrong, refuses these messages or takes too much work.
    """
    # jinja2 takes a tenth of a second to import on a phone, and only the asker's side needs it.
    from jinja2 import TemplateError

    from swisd.text.meter import Meter
    from swisd.text.metered import metered_template

    source = FALLBACK_TEMPLATE if template is None else template
    if len(source) > MAX_TEMPLATE_CHARS:
        raise ModelError(f"chat template has {len(source)} characters, more than {MAX_TEMPLATE_CHARS}")
    values: dict[str, Any] = {
        "messages": [dict(message) for message in messages],
        "tools": [dict(tool) for tool in tools] if tools else None,
        "bos_token": bos,
        "eos_token": eos,
        "add_generation_prompt": add_generation_prompt,
    }
    if today is not None:
        values["strftime_now"] = _Calendar(today).strftime_now
    try:
        return metered_template(source, Meter()).render(values)
    except (
        TemplateError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"the model's chat template cannot render these messages: {reason}") from None


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    today: str | None = None,
) -> list[int]:
    """Token ids of a chat, BOS included where the tokenizer adds one and the template has not.

    Control tokens come from the template alone. If a message spells one (`<|im_end|>`), it stays plain text:
    its first character is followed by a mark before rendering, so that it is not found as a token, and the
    mark is taken out after. Errors as `render_chat`.
    """
    spelled = tokenizer.token_text(tokenizer.bos_id) if tokenizer.bos_id is not None else ""
    ends = sorted(tokenizer.eos_ids)
    text = render_chat(
        tokenizer.chat_template,
        [_shielded(tokenizer, message) for message in messages],
        bos=spelled,
        eos=tokenizer.token_text(ends[0]) if ends else "",
        add_generation_prompt=add_generation_prompt,
        tools=[_shielded(tokenizer, tool) for tool in tools] if tools else None,
        today=today,
    )
    parts = tokenizer.partition(text, special=True)
    ids = tokenizer.encode_parts(
        part if isinstance(part, int) else part.replace(_SHIELD, "") for part in parts
    )
    if tokenizer.add_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids.insert(0, tokenizer.bos_id)
    return ids


def _shielded(tokenizer: Tokenizer, value: Any) -> Any:
    """The same value with every control token's text broken up, in all texts that it holds."""
    if isinstance(value, str):
        return tokenizer.shield(value.replace(_SHIELD, ""), _SHIELD)
    if isinstance(value, Mapping):
        return {key: _shielded(tokenizer, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shielded(tokenizer, item) for item in value]
    return value


class _Calendar:
    """Tells a template the day it is given, not the clock's."""

    def __init__(self, today: str) -> None:
        try:
            self._today = date.fromisoformat(today)
        except ValueError:
            raise BadInput(f"{today[:40]!r} is not a date such as 2026-11-30") from None

    def strftime_now(self, form: str) -> str:
        # C libraries take a width ("%99999999d"), so a short form could ask for a long text.
        if len(form) > 64 or any(character.isdigit() for character in form):
            raise ValueError("it writes the date in a form that is not allowed here")
        return self._today.strftime(form)
