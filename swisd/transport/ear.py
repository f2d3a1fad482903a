"""The reading side of a connection, lent to a thread that waits for one frame.

The event loop wakes up, reads, and hands on what it read to a thread that must wake up, too. Where it is
known which frame comes next and which thread it is for, that thread waits at the socket itself. What it
cannot use it leaves where it is, and the loop goes on with that as if it had read it.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

Wait = Callable[[int], bool]
"""Blocks until a file descriptor can be read; False if something else is to be done first."""


class Lent(Protocol):
    """What a connection offers to whoever reads it meanwhile."""

    def free_buffer(self) -> memoryview:
        """Where the next bytes go."""

    def whole_frame(self, nbytes: int) -> bytes | None:
        """So many bytes came: the frame, if all that is here is one; empty if more of it is to come.

        None for all else.
        """

    def frame_used(self) -> None:
        """The frame needs no reader any more."""

    def returned(self) -> None:
        """The loop reads again, what is left first."""


class Ear:
    """Made, given back and closed in the event loop; `listen` and `use` are the other thread's.

    The socket is closed with it, but not before it is given back.
    """

    def __init__(self, link: Lent, sock: socket.socket) -> None:
        self._link, self._socket = link, sock
        self.lent = False
        self._over = False

    def listen(self, wait: Wait) -> bytes | None:
        """The next frame's bytes, unchecked, if it comes whole and alone while `wait` says to go on.

        None: give this back.
        """
        while wait(self._socket.fileno()):
            try:
                nbytes = self._socket.recv_into(self._link.free_buffer())
            except BlockingIOError:
                continue
            except OSError:  # the loop finds out what it is
                return None
            data = self._link.whole_frame(nbytes) if nbytes else None
            if data is None:
                return None
            if data:
                return data
        return None

    def use(self) -> None:
        """The frame that was heard last is taken: the loop does not see it."""
        self._link.frame_used()

    def give_back(self) -> None:
        """The loop reads again."""
        self.lent = False
        if self._over:
            self._socket.close()
        else:
            self._link.returned()

    def close(self) -> None:
        """The connection is over. Whoever listens wakes up, and gives this back."""
        self._over = True
        if self.lent:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._socket.close()
