"""Errors a person reads: one line that says what happened, what it means and what to do next."""


class SwisdError(Exception):
    """An expected failure. Its text is shown as it is, without a traceback."""

    exit_code = 1


class BadInput(SwisdError):
    """What the user gave cannot be used (a file, an option, a prompt)."""

    exit_code = 2


class NoSwarm(SwisdError):
    """No swarm could be reached; the text says what was tried."""

    exit_code = 3


class WrongKey(SwisdError):
    """The other side does not share this swarm's key, or we hold none."""

    exit_code = 4


class ModelError(SwisdError):
    """A model file, card, manifest or blob cannot be used; the text names which and why."""

    exit_code = 5


class DoesNotFit(SwisdError):
    """The model fits nowhere in the swarm; the text says how much memory is missing."""

    exit_code = 6


class SessionFailed(SwisdError):
    """A session ended without its answer; the text says why."""

    exit_code = 7
