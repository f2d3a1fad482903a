"""Measures what a source sends while empty devices fill up, each in a network namespace (root only).

    python -m tests.lab.filling MODEL.gguf --devices 4 --want whole --mbit 200

Every device is a process with the store, the server and the supply of a real one; what it sends is counted by
its network interface, so headers and what is sent twice are in it.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from swisd.core.messages import Digest, MemberView
from swisd.core.model import Manifest
from swisd.net.listener import Listener
from swisd.node.supply import Supply
from swisd.store.server import BlobServer
from swisd.wire.handshake import Purpose
from tests.live.hosts import Hosts
from tests.live.swarm import give_model, run

KEY, PORT = b"sixteen key byte", 7947


class Span(NamedTuple):
    start: int
    end: int


def name_of(number: int) -> str:
    return f"{number:016x}"


async def device(number: int, home: Path, addresses: Sequence[str], parts: int, sources: int) -> None:
    """Serve; on a line of input fetch the model or a part of it, say how long it took, and serve on."""
    supply = Supply(home / "blobs", home / "models", KEY, name_of(number))
    server = BlobServer(supply.store)
    listener = await Listener.start("0.0.0.0", PORT, KEY, {Purpose.STORE: server.serve})
    print("up", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if line.strip():
        model, size, units = line.split()
        members = [
            MemberView(
                name_of(other), str(other), "alive", "ready", (address,), PORT, 0, True, 0,
                ((model, 0, int(units)),) if other < sources else (),
            )
            for other, address in enumerate(addresses)
        ]  # fmt: skip
        supply.on_digest(Digest(name_of(0), 1, 1, tuple(members)))
        began = time.monotonic()
        manifest = await supply.manifest(model, int(size))
        cuts = [round(part * manifest.n_units / parts) for part in range(parts + 1)]
        mine = (number - sources) % parts
        first = 0.0

        def progress(fraction: float) -> None:
            nonlocal first
            first = first or (time.monotonic() - began if fraction > 0.5 else 0.0)

        await supply.units(model, manifest, [Span(cuts[mine], cuts[mine + 1])], progress)  # type: ignore[list-item]
        print(json.dumps({"s": time.monotonic() - began, "half_s": first}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    await supply.close()
    server.close()
    await listener.close()


def sent(hosts: Hosts, host: str) -> int:
    path = "/sys/class/net/eth0/statistics/tx_bytes"
    done = subprocess.run([*hosts.prefix(host), "cat", path], capture_output=True, text=True, check=True)
    return int(done.stdout)


def measure(arguments: argparse.Namespace, root: Path) -> None:
    """Fill the devices and print what came of it."""
    run(["models", "add", str(arguments.model), "--id", "model", "--home", str(root / "full")])
    entry = json.loads((root / "full/models/model.json").read_text())
    data = (root / "full/blobs" / entry["manifest"]).read_bytes()
    manifest = Manifest.from_bytes(data)
    size = sum(blob.size for blob in manifest.blobs)
    count = arguments.sources + arguments.devices
    hosts, children, lost = Hosts(), list[subprocess.Popen[str]](), list[subprocess.Popen[str]]()
    try:
        names = [hosts.add() for _ in range(count)]
        for name in names:
            if arguments.mbit:
                limit = ["tbf", "rate", f"{arguments.mbit}mbit", "burst", "256k", "latency", "50ms"]
                subprocess.run(
                    [*hosts.prefix(name), "tc", "qdisc", "add", "dev", "eth0", "root", *limit], check=True
                )
        addresses = ",".join(hosts.address(name) for name in names)
        parts = arguments.devices if arguments.want == "parts" else 1
        for number, name in enumerate(names):
            home = root / f"device{number}"
            if number < arguments.sources:
                give_model(root / "full", home)
            command = [sys.executable, "-m", "tests.lab.filling", "--child", str(number), str(home)]
            command += [addresses, str(parts), str(arguments.sources)]
            children.append(
                subprocess.Popen(
                    [*hosts.prefix(name), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "up\n"
        before = [sent(hosts, name) for name in names]
        for child in children[arguments.sources :]:
            assert child.stdin is not None
            child.stdin.write(f"{entry['manifest']} {len(data)} {manifest.n_units}\n")
            child.stdin.flush()
            time.sleep(arguments.apart)
        waited = children[arguments.sources :]
        if arguments.lose:
            time.sleep(arguments.lose_s)
            lost.append(waited.pop(0))
            lost[0].send_signal(getattr(signal, arguments.lose))
        told = [json.loads(child.stdout.readline()) for child in waited if child.stdout]
        after = [sent(hosts, name) for name in names]
        copies = [(end - start) / size for start, end in zip(before, after, strict=True)]
        print(f"model {size / 1e6:.1f} MB; sent, in copies of it:", *(f"{one:.2f}" for one in copies))
        print("seconds:", *(f"{one['s']:.1f}" for one in told))
    finally:
        for child in children:
            if child in lost:
                child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.communicate("\n", timeout=20)
        hosts.close()


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        number, home, addresses, parts, sources = sys.argv[2:]
        asyncio.run(device(int(number), Path(home), addresses.split(","), int(parts), int(sources)))
        return
    parser = argparse.ArgumentParser(prog="python -m tests.lab.filling")
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--devices", type=int, default=4, help="that start empty")
    parser.add_argument("--sources", type=int, default=1, help="that have the model")
    parser.add_argument("--want", choices=("whole", "parts"), default="whole")
    parser.add_argument("--mbit", type=int, default=0, help="what each device can send; 0: no limit")
    parser.add_argument("--apart", type=float, default=0.0, help="seconds between their starts")
    parser.add_argument("--lose", choices=("SIGKILL", "SIGSTOP"), help="what the first empty device gets")
    parser.add_argument("--lose-s", type=float, default=3.0, help="so many seconds after the last start")
    with tempfile.TemporaryDirectory() as root:
        measure(parser.parse_args(), Path(root))


if __name__ == "__main__":
    main()
