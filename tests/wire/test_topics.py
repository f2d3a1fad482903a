"""Topics: names in and out, and nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.bus.filters import matches, valid_pattern, valid_topic
from swisd.wire.topics import Kind, Topic, parse, pattern, swarm_id

SWARM = swarm_id(b"k" * 16)
idents = st.binary(min_size=8, max_size=8).map(bytes.hex)


@given(st.sampled_from(Kind), idents)
def test_every_topic_reads_back_and_fits_its_pattern(kind: Kind, ident: str):
    topic = Topic(kind, "" if kind.single else ident)
    path = topic.path(SWARM)
    assert parse(path, SWARM) == topic
    assert valid_topic(path) and valid_pattern(pattern(kind, SWARM))
    for other in Kind:
        assert matches(pattern(other, SWARM), path) == (other is kind)


@given(st.text(max_size=80))
def test_other_names_are_nobodys(text: str):
    assert parse(text, SWARM) is None
    inside = parse(f"swisd/1/{SWARM}/{text}", SWARM)
    assert inside is None or inside.path(SWARM).endswith(text)


def test_another_swarm_is_not_ours():
    other = swarm_id(b"o" * 16)
    assert other != SWARM and len(other) == 16
    assert parse(Topic(Kind.PLAN).path(other), SWARM) is None


@pytest.mark.parametrize(
    ("kind", "ident"),
    [
        (Kind.PLAN, "0" * 16),
        (Kind.BEAT, ""),
        (Kind.BEAT, "0" * 15),
        (Kind.BEAT, "G" * 16),
        (Kind.OUT, "A" * 16),
    ],
)
def test_an_ident_where_it_belongs_and_well_formed(kind: Kind, ident: str):
    with pytest.raises(ValueError, match="not well formed"):
        Topic(kind, ident)
