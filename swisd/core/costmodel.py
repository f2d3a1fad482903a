"""What a plan is expected to cost: milliseconds per token from what devices measured of themselves.

The model is a sum. One token passes every stage once, and the activation of one token travels from each
stage's device to the next:

    stage = run_ms + layers * layer_ms (+ embed_ms) (+ head_ms)      (see `Profile`)
    hop   = rtt_ms / 2 + 8 * bytes / bandwidth
    token = sum of stages + sum of hops between consecutive different devices

The driver runs the first and the last stage, so the ring closes without a further hop. `rtt / 2` plus
serialisation is the usual latency-bandwidth (Hockney) model of a message.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swisd.core.model import Manifest
from swisd.core.types import Capability, DeviceId, PeerLink, Pipeline, Prediction, Profile, Sha, Stage

FRAME_BYTES = 64  # header of an activation frame, rounded up
ACTIVATION_BYTES = 4  # activations travel as fp32
PROMPT_ROWS = 64  # rows of a prompt that one pass is priced with: the fixed costs are shared by them
# A pair nobody measured and the host cannot vouch for: one hop of a token costs about 13 ms, which is what
# owners of phones report of their Wi-Fi. Pessimistic on purpose: a measurement can only improve the plan.
DEFAULT_RTT_MS = 24.0
DEFAULT_MBIT_S = 20.0
LEAST_MBIT_S = 0.1  # a bandwidth measured as nothing is a failed measurement, not an infinite cost


class Unpriced(ValueError):
    """A plan names a device that is gone or has not measured what the plan asks of it."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way between two devices: round trip in ms, bandwidth in Mbit/s, and whether it was measured."""

    rtt_ms: float
    mbit_s: float
    measured: bool = False

    def transfer_ms(self, size: int) -> float:
        """Time on the wire of `size` bytes, in ms (1 Mbit/s is 1000 bits a millisecond)."""
        return size * 8 / (self.mbit_s * 1000)

    def hop_ms(self, size: int) -> float:
        """Time until `size` bytes have arrived at the other end, in ms."""
        return self.rtt_ms / 2 + self.transfer_ms(size)


DEFAULT_LINK = Link(DEFAULT_RTT_MS, DEFAULT_MBIT_S)
NO_LINK = Link(0.0, 1e9, measured=True)  # from a device to itself


class Links:
    """Every way between the devices, measured by either end or estimated.

    Measured by both ends, the worse of each figure counts. A pair without a measurement is estimated as if
    it went by way of the host (a star, as an access point is): round trips add up, the narrower side
    limits. Where an end has no measured link to the host either, `DEFAULT_LINK` holds.
    """

    def __init__(self, devices: Iterable[Capability], host: DeviceId) -> None:
        self.host = host
        self.peers: dict[DeviceId, dict[DeviceId, Link]] = {}
        for device in sorted(devices, key=lambda item: item.device):
            for peer, seen in _best_lanes(device.links).items():
                if peer == device.device:
                    continue
                link = seen
                known = self.peers.get(device.device, {}).get(peer)
                if known is not None:
                    link = Link(max(seen.rtt_ms, known.rtt_ms), min(seen.mbit_s, known.mbit_s), measured=True)
                self.peers.setdefault(device.device, {})[peer] = link
                self.peers.setdefault(peer, {})[device.device] = link

    def between(self, one: DeviceId, other: DeviceId) -> Link:
        if one == other:
            return NO_LINK
        link = self.peers.get(one, {}).get(other)
        if link is not None:
            return link
        left = self.peers.get(one, {}).get(self.host)
        right = self.peers.get(other, {}).get(self.host)
        if left is None or right is None:
            return DEFAULT_LINK
        return Link(left.rtt_ms + right.rtt_ms, min(left.mbit_s, right.mbit_s))


def _best_lanes(links: Sequence[PeerLink]) -> dict[DeviceId, Link]:
    """One link per peer; of several lanes the one with the shorter round trip."""
    best: dict[DeviceId, Link] = {}
    for item in links:
        link = Link(item.rtt_ms, max(item.mbit_s, LEAST_MBIT_S), measured=True)
        known = best.get(item.device)
        if known is None or (link.rtt_ms, -link.mbit_s) < (known.rtt_ms, -known.mbit_s):
            best[item.device] = link
    return best


def profile_of(device: Capability, model: Sha) -> Profile | None:
    """What the device measured for this model; None while it is still measuring."""
    return next((profile for profile in device.profiles if profile.model == model), None)


def token_bytes(manifest: Manifest) -> int:
    """Bytes of the frame that carries one token's activation."""
    return manifest.hidden * ACTIVATION_BYTES + FRAME_BYTES


def unit_bytes(manifest: Manifest, start: int, end: int, context: int) -> int:
    """Memory in bytes of units `[start, end)` with the KV cache of `context` tokens."""
    return manifest.resident_bytes(start, end) + manifest.kv_bytes_per_token(start, end) * context


def layers_of(manifest: Manifest, stage: Stage) -> int:
    """How many layers a stage runs (units without the embedding and the head)."""
    return min(stage.end, manifest.n_units - 1) - max(stage.start, 1)


def stage_ms(manifest: Manifest, profile: Profile, stage: Stage) -> float:
    """Milliseconds one token takes in a stage. Raises `Unpriced` if the device never measured the head."""
    total = profile.run_ms + layers_of(manifest, stage) * profile.layer_ms
    if stage.start == 0:
        total += profile.embed_ms
    if stage.end == manifest.n_units:
        if profile.head_ms is None:
            raise Unpriced(f"device {stage.device} has not measured the head")
        total += profile.head_ms
    return total


def prompt_pass_ms(manifest: Manifest, profile: Profile, stage: Stage, rows: int) -> float:
    """Milliseconds of a pass of `rows` prompt rows; the head is left out, only the last pass needs it."""
    return profile.run_ms + rows * layers_of(manifest, stage) * profile.layer_row_ms


def predict(
    manifest: Manifest,
    model: Sha,
    devices: Sequence[Capability],
    host: DeviceId,
    pipelines: Sequence[Pipeline],
) -> Prediction:
    """Price pipelines with what the devices say now, so a plan in force can be compared with a new one.

    `stage_ms` has one entry per stage, `hop_ms` the hop that leaves that stage (0 where the next stage is
    on the same device, and for the last). Of several pipelines the figures per token are those of the
    slowest, and the stages follow one another in order. A prompt token is priced as its part of one pass of
    `PROMPT_ROWS` rows that visits the stages one after the other, without overlap.

    Raises `Unpriced` where a device is missing or has no profile for what it is to run.
    """
    links = Links(devices, host)
    profiles = {device.device: profile_of(device, model) for device in devices}
    stages: list[float] = []
    hops: list[float] = []
    token = prompt = 0.0
    for pipeline in pipelines:
        here, way, rows = _price(manifest, profiles, links, pipeline)
        stages += here
        hops += way
        token = max(token, sum(here) + sum(way))
        prompt = max(prompt, rows / PROMPT_ROWS)
    return Prediction(token, prompt, tuple(stages), tuple(hops))


def _price(
    manifest: Manifest, profiles: Mapping[DeviceId, Profile | None], links: Links, pipeline: Pipeline
) -> tuple[list[float], list[float], float]:
    """One pipeline: ms of each stage, ms of the hop after each, ms of one prompt pass."""
    stages: list[float] = []
    hops: list[float] = []
    prompt = 0.0
    for number, stage in enumerate(pipeline.stages):
        profile = profiles.get(stage.device)
        if profile is None:
            raise Unpriced(f"device {stage.device} has no measurements of this model")
        stages.append(stage_ms(manifest, profile, stage))
        prompt += prompt_pass_ms(manifest, profile, stage, PROMPT_ROWS)
        hop = 0.0
        if number + 1 < len(pipeline.stages):
            after = pipeline.stages[number + 1].device
            if after != stage.device:
                link = links.between(stage.device, after)
                hop = link.hop_ms(token_bytes(manifest))
                prompt += link.hop_ms(PROMPT_ROWS * manifest.hidden * ACTIVATION_BYTES)
        hops.append(hop)
    return stages, hops, prompt


def bottlenecks_ms(prediction: Prediction, pipelines: Sequence[Pipeline]) -> list[float]:
    """Of each pipeline, the ms for which one token keeps its busiest device: all stages of a device together.

    With many tokens under way, one leaves the pipeline each time these have passed. A stage without a figure
    counts as nothing.
    """
    figures = iter(prediction.stage_ms)
    found = []
    for pipeline in pipelines:
        busy: dict[DeviceId, float] = {}
        for stage in pipeline.stages:
            busy[stage.device] = busy.get(stage.device, 0.0) + next(figures, 0.0)
        found.append(max(busy.values(), default=0.0))
    return found


def tokens_ms(prediction: Prediction, pipelines: Sequence[Pipeline]) -> list[float]:
    """Of each pipeline, the ms that one token takes in it, hops included; nothing for what has no figure."""
    stages, hops = iter(prediction.stage_ms), iter(prediction.hop_ms)
    return [sum(next(stages, 0.0) + next(hops, 0.0) for _ in item.stages) for item in pipelines]


def together_ms(prediction: Prediction, pipelines: Sequence[Pipeline]) -> float:
    """Milliseconds from token to token that all pipelines give together when they are kept busy.

    0 where a pipeline takes no measurable time, or where there is none.
    """
    each = bottlenecks_ms(prediction, pipelines)
    return 1 / sum(1 / busy for busy in each) if each and min(each) > 0 else 0.0


def tokens_per_s(prediction: Prediction, pipelines: Sequence[Pipeline]) -> float:
    """Tokens per second that all pipelines give together when they are kept busy; 0 where that is unknown."""
    between = together_ms(prediction, pipelines)
    return 1000 / between if between > 0 else 0.0


def explain(prediction: Prediction, pipelines: Sequence[Pipeline] = ()) -> str:
    """The totals of a prediction in one line for people; with its pipelines, what several give together."""
    if not prediction.stage_ms:
        return "nothing is planned"
    speed = f"{1000 / prediction.token_ms:.1f} tokens/s" if prediction.token_ms > 0 else "no measurable time"
    travel = [hop for hop in prediction.hop_ms if hop > 0]
    parts = [f"computing {sum(prediction.stage_ms):.1f} ms in {_count(len(prediction.stage_ms), 'stage')}"]
    if travel:
        parts.append(f"travelling {sum(travel):.1f} ms in {_count(len(travel), 'hop')}")
    parts.append(f"slowest stage {max(prediction.stage_ms):.1f} ms")
    prompt = f"{prediction.prompt_token_ms:.1f} ms per prompt token"
    if len(pipelines) > 1:
        rate = tokens_per_s(prediction, pipelines)
        several = f"{len(pipelines)} pipelines, together {rate:.1f} tokens/s"
        return f"{several}; in the slowest {prediction.token_ms:.1f} ms per token ({speed}) and {prompt}"
    return f"{prediction.token_ms:.1f} ms per token ({speed}): {', '.join(parts)}; {prompt}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
