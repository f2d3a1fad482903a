"""How a command that runs devices of its own ends when it is told to: through the blocks that stop them."""

import signal
from types import FrameType


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does from now on, also where that is ignored, as behind `nohup`."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
