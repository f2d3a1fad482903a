"""Which message travels on which topic, and its JSON there."""

from typing import Any

from swisd.core.checked import Malformed, from_json, to_json
from swisd.core.messages import (
    Ask,
    Beat,
    Call,
    Digest,
    Gone,
    MemberView,
    Message,
    Out,
    Repair,
    SessionView,
)
from swisd.core.types import Capability, Plan
from swisd.wire.topics import Kind, Topic

__all__ = [
    "Ask",
    "Beat",
    "Call",
    "Capability",
    "Digest",
    "Gone",
    "MemberView",
    "Message",
    "Out",
    "Plan",
    "Repair",
    "SessionView",
    "decode_message",
    "encode_message",
    "topic_of",
]

_BODY: dict[Kind, Any] = {
    Kind.BEAT: Beat,
    Kind.CAP: Capability,
    Kind.GONE: Gone,
    Kind.ASK: Ask,
    Kind.OUT: Out,
    Kind.REPAIR: Repair,
    Kind.SWARM: Digest,
    Kind.PLAN: Plan,
    Kind.CALL: Call,
}


def topic_of(message: Message, to: str = "") -> Topic:
    """The topic of a message; `to` is the device that an `Ask` or a `Repair` is for, else unused."""
    match message:
        case Beat(device=device):
            return Topic(Kind.BEAT, device)
        case Capability(device=device):
            return Topic(Kind.CAP, device)
        case Gone(device=device):
            return Topic(Kind.GONE, device)
        case Ask():
            return Topic(Kind.ASK, to)
        case Out(session=session):
            return Topic(Kind.OUT, session)
        case Repair():
            return Topic(Kind.REPAIR, to)
        case Digest():
            return Topic(Kind.SWARM)
        case Plan():
            return Topic(Kind.PLAN)
        case Call():
            return Topic(Kind.CALL)


def encode_message(message: Message) -> bytes:
    """The JSON body of a message."""
    return to_json(message)


def decode_message(kind: Kind, body: bytes | memoryview) -> Message:
    """The message of a topic's kind from its JSON body. Raises `Malformed`."""
    if kind not in _BODY:
        raise Malformed(f"no message travels on topics of kind {kind.value}")
    message: Message = from_json(_BODY[kind], bytes(body), kind.delivery.limit)
    return message
