"""A peer in a process of its own, which is frozen and killed."""

import asyncio
import signal
import sys

import pytest

from swisd.transport.api import LaneDown
from swisd.transport.tcp import TcpLanes
from swisd.wire.frames import Frame, FrameKind

from .conftest import KEY, A, B, Device, quick

CHILD = """
import asyncio, sys
from swisd.net.listener import Listener
from swisd.transport.tcp import TcpLanes
from swisd.wire.handshake import Purpose

async def main(key, device):
    lanes = TcpLanes(key, device, lambda _: [], lambda *_: None, lambda *_: None)
    listener = await Listener.start("127.0.0.1", 0, key, {Purpose.LANE: lanes.serve})
    print(listener.port, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(bytes.fromhex(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.live
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
async def test_a_frozen_peer_and_a_killed_one() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, KEY.hex(), B, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        port = int(await quick(child.stdout.readline()))
        a = Device(A)
        lanes = TcpLanes(
            KEY, A, lambda _: [("127.0.0.1", port)], a.on_frame, a.on_down, send_s=0.3, answer_s=0.3
        )
        child.send_signal(signal.SIGSTOP)  # frozen before we connect: its kernel still accepts
        with pytest.raises(LaneDown):
            await quick(lanes.connect(B))
        child.send_signal(signal.SIGCONT)
        await quick(lanes.connect(B))
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(LaneDown, match="no answer to a ping"):
            await quick(lanes.probe(B, 1000, 1))
        with pytest.raises(LaneDown, match="did not read"):
            while True:
                await quick(lanes.send(B, Frame(FrameKind.ACTIVATION, 1, A, payload=bytes(4 << 20))))
        assert (await quick(a.downs.get()))[0] == B
        child.send_signal(signal.SIGCONT)
        await quick(lanes.connect(B))
        child.kill()
        assert (await quick(a.downs.get()))[0] == B
        with pytest.raises(LaneDown):
            await quick(lanes.send(B, Frame(FrameKind.ACTIVATION, 1, A)))
        await quick(lanes.close())
    finally:
        if child.returncode is None:
            child.kill()
        await quick(child.wait())
