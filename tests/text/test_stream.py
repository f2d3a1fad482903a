"""Streaming: whole characters, nothing lost, nothing of a stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swisd.core.errors import ModelError
from swisd.text.stream import IncrementalDecoder, StopMatcher

from .blobs import byte_pair_fields, tokenizer

repeatable = settings(deadline=None, derandomize=True)

TOKENIZER = tokenizer(byte_pair_fields)


def pushed(ids: list[int]) -> list[str]:
    decoder = IncrementalDecoder(TOKENIZER)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@repeatable
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40))
def test_pieces_join_to_the_decoded_whole(ids):
    assert "".join(pushed(ids)) == TOKENIZER.decode(ids)


@repeatable
@given(st.text(max_size=20))
def test_no_half_character_is_shown(text):
    pieces = pushed(TOKENIZER.encode(text, special=False))
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_an_emoji_appears_with_its_last_byte():
    ids = TOKENIZER.encode("🙂", special=False)
    assert pushed(ids) == ["", "", "", "🙂", ""]
    assert pushed(ids[:3]) == ["", "", "", "\ufffd"]
    assert pushed([*ids[:2], *TOKENIZER.encode("a", special=False)]) == ["", "", "\ufffda", ""]


def test_control_tokens_are_not_shown_and_split_nothing():
    first, *rest = TOKENIZER.encode("🙂", special=False)
    assert "".join(pushed([first, 1, *rest, 2])) == "🙂"


def test_an_unknown_id_is_an_error():
    with pytest.raises(ModelError):
        IncrementalDecoder(TOKENIZER).push(TOKENIZER.vocab_size)


def cut_at_first(text: str, stops: list[str]) -> str:
    places = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(places)] if places else text


@repeatable
@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", max_size=4), max_size=3), st.data())
def test_stops_do_not_depend_on_the_pieces(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    matcher = StopMatcher(stops)
    shown = ""
    expected = cut_at_first(text, stops)
    for piece in pieces:
        shown += matcher.push(piece)
        assert expected.startswith(shown)
    shown += matcher.flush()
    assert shown == expected
    assert matcher.stopped == any(stop and stop in text for stop in stops)


def test_only_a_possible_beginning_is_held_back():
    matcher = StopMatcher(["\n\nUser:"])
    assert matcher.push("one\n") == "one"
    assert matcher.push("two\n\nUs") == "\ntwo"
    assert matcher.push("e it") == "\n\nUse it"
    assert matcher.push("\n\nUser: hi") == ""
    assert matcher.stopped and matcher.push("more") == "" == matcher.flush()


def test_the_end_of_the_stream_releases_what_was_held():
    matcher = StopMatcher(["###"])
    assert matcher.push("a##") == "a"
    assert matcher.flush() == "##"
    assert not matcher.stopped
