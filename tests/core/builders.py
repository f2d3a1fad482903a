"""Small models and devices for tests of the core."""

from itertools import pairwise

from swisd.core.config import DeviceConfig
from swisd.core.effects import Effect, Publish
from swisd.core.messages import Ask, Beat, Message
from swisd.core.model import Blob, Manifest, Unit
from swisd.core.types import Capability, Member, PeerLink, Pipeline, Plan, Prediction, Profile, Stage

MODEL = "ab" * 32
MIB = 1 << 20


def a_manifest(
    layers: int | list[int] = 4,
    *,
    layer_bytes: int = 10 * MIB,
    embed_bytes: int = 2 * MIB,
    head_bytes: int = 30 * MIB,
    kv: int = 1024,
    hidden: int = 576,
    context: int = 8192,
) -> Manifest:
    """A model; `layers` is their number, or the bytes of each."""
    sizes = [layer_bytes] * layers if isinstance(layers, int) else layers
    units = [Unit("embed", (0,), (0, 0), embed_bytes, 0, embed_bytes)]
    units += [Unit("layer", (number + 1,), (0, 0), size, kv, size) for number, size in enumerate(sizes)]
    units.append(Unit("head", (0,), (0, 0), head_bytes, 0, head_bytes))
    blobs = tuple(Blob(f"{number:064x}", 100) for number in range(len(sizes) + 3))
    return Manifest(
        model_id="tiny",
        architecture="llama",
        licence="Apache-2.0",
        source_sha256="0" * 64,
        hidden=hidden,
        vocab=1000,
        context=context,
        blobs=blobs,
        units=tuple(units),
        graph=len(sizes) + 1,
        tokenizer=len(sizes) + 2,
    )


def a_profile(
    layer_ms: float = 2.0,
    *,
    head_ms: float | None = 5.0,
    embed_ms: float = 0.1,
    run_ms: float = 0.5,
    layer_row_ms: float = 1.0,
    model: str = MODEL,
    threads: int = 1,
) -> Profile:
    return Profile(model, layer_ms, layer_row_ms, head_ms, embed_ms, run_ms, threads)


def a_device(
    device: str,
    memory_mib: float = 200,
    *,
    profile: Profile | None = None,
    measured: bool = True,
    links: dict[str, tuple[float, float]] | None = None,
    boot: int = 0,
) -> Capability:
    """A device; `links` gives (round trip in ms, Mbit/s) by peer."""
    return Capability(
        device=device,
        boot=boot,
        name=f"name of {device}",
        addresses=("10.0.0.1",),
        port=1,
        memory_bytes=int(memory_mib * MIB),
        threads=2,
        platform="linux",
        version="0",
        broker=True,
        forge=True,
        rank=0,
        profiles=((profile or a_profile()),) if measured else (),
        links=tuple(PeerLink(peer, rtt, rate) for peer, (rtt, rate) in (links or {}).items()),
    )


def memory_used(manifest: Manifest, pipeline: Pipeline, context: int) -> dict[str, int]:
    """Bytes each device of a pipeline needs, added up unit by unit."""
    used: dict[str, int] = {}
    for stage in pipeline.stages:
        for unit in manifest.units[stage.start : stage.end]:
            need = unit.resident_bytes + unit.kv_bytes_per_token * context
            used[stage.device] = used.get(stage.device, 0) + need
    return used


def check_pipeline(manifest: Manifest, pipeline: Pipeline, devices: list[Capability], context: int) -> None:
    """Every unit once and in order, the driver at both ends only, memory within every offer."""
    stages: tuple[Stage, ...] = pipeline.stages
    assert stages[0].start == 0 and stages[-1].end == manifest.n_units
    assert all(stage.start < stage.end for stage in stages)
    assert all(before.end == after.start for before, after in pairwise(stages))
    ring = [stage.device for stage in stages]
    if len(ring) > 1:
        assert len(ring) >= 3 and ring[0] == ring[-1]
        assert len(set(ring)) == len(ring) - 1
    offers = {device.device: device.memory_bytes for device in devices}
    for device, need in memory_used(manifest, pipeline, context).items():
        assert need <= offers[device]


def an_id(number: int) -> str:
    """A device's id."""
    return f"{number:016x}"


def a_config(number: int = 1, **changes: object) -> DeviceConfig:
    values: dict[str, object] = {
        "device": an_id(number), "boot": 1000 + number, "name": f"d{number}", "port": 7000,
        "memory_bytes": 1 << 30, "broker": True, "rank": number, "model_id": "tiny",
    }  # fmt: skip
    return DeviceConfig(**(values | changes))  # type: ignore[arg-type]


def a_plan(*cuts: tuple[int, int, int], epoch: int = 1, host: int = 1, **changes: object) -> Plan:
    """A plan of one pipeline; each cut is (start, end, number of the device)."""
    stages = tuple(Stage(start, end, (Member(an_id(number)),)) for start, end, number in cuts)
    values: dict[str, object] = {
        "epoch": epoch, "host": an_id(host), "model": MODEL, "model_id": "tiny", "model_bytes": 1000,
        "context": 1024, "objective": "latency", "pipelines": (Pipeline(stages),) if stages else (),
        "prediction": Prediction(10.0, 1.0, (), ()), "active": bool(stages),
    }  # fmt: skip
    return Plan(**(values | changes))  # type: ignore[arg-type]


def a_start(
    session: str = "a" * 16, prompt: tuple[int, ...] = (5, 6, 7), *, epoch: int = 1, **changes: object
) -> Ask:
    """An asker's submission."""
    values: dict[str, object] = {"asker": "f" * 16, "max_tokens": 4, "seed": 1}
    return Ask("start", session, epoch=epoch, prompt=prompt, **(values | changes))  # type: ignore[arg-type]


def a_beat(number: int = 1, seq: int = 1, **changes: object) -> Beat:
    values: dict[str, object] = {
        "device": an_id(number), "boot": 1000 + number, "seq": seq, "state": "idle", "epoch": 0,
    }  # fmt: skip
    return Beat(**(values | changes))  # type: ignore[arg-type]


def said(effects: list[Effect], kind: type | None = None) -> list[Message]:
    """The messages among effects, of one kind or all."""
    messages = [effect.message for effect in effects if isinstance(effect, Publish)]
    return [message for message in messages if kind is None or isinstance(message, kind)]
