"""Swarms as the host reports them, for the tests of the dashboard and for its picture."""

from dataclasses import replace

from swisd.core.types import Member, Pipeline, Plan, Prediction, Spare, Stage, Verdict
from swisd.tui.view import BusState, Identity, NoticeSeen, SwarmEvent
from swisd.wire.messages import Digest, MemberView, SessionView

NOW = 1_760_000_000.0
LAPTOP, PI, PHONE, NETBOOK = "a1" * 8, "b2" * 8, "c3" * 8, "d4" * 8
CODE = "swisd://192.168.1.20:7947/ABCDEFGHIJKLMNOPQRSTUVWX23"
IDENTITY = Identity(LAPTOP, "kitchen-laptop", CODE, "5f3a", "/home/ana/.swisd")
CONNECTED = BusState(True, "broker on this device, port 7947")


def member(device: str, name: str, **fields: object) -> MemberView:
    base: dict[str, object] = {
        "liveness": "alive",
        "state": "ready",
        "addresses": ("192.168.1.20",),
        "port": 7948,
        "rank": 1,
        "broker": True,
        "memory_bytes": 1536 << 20,
    }
    return MemberView(device=device, name=name, **(base | fields))  # type: ignore[arg-type]


def laptop(**fields: object) -> MemberView:
    base = {"layer_ms": 1.42, "stage_ms": 21.3, "resident_bytes": 112 << 20, "memory_bytes": 2 << 30}
    return member(LAPTOP, "kitchen-laptop", **(base | fields))


def pi(**fields: object) -> MemberView:
    base = {"layer_ms": 1.98, "stage_ms": 17.6, "resident_bytes": 34 << 20, "memory_bytes": 800 << 20}
    return member(PI, "garage-pi4", **(base | {"rtt_ms": 0.61} | fields))


def phone(**fields: object) -> MemberView:
    base = {"layer_ms": 1.21, "stage_ms": 12.1, "resident_bytes": 34 << 20, "memory_bytes": 600 << 20}
    return member(PHONE, "anas-old-phone", **(base | {"rtt_ms": 4.2, "broker": False} | fields))


def netbook(**fields: object) -> MemberView:
    base = {"layer_ms": 9.8, "memory_bytes": 400 << 20, "rtt_ms": 0.9}
    return member(NETBOOK, "attic-netbook", **(base | {"state": "idle"} | fields))


def a_stage(start: int, end: int, device: str) -> Stage:
    return Stage(start, end, (Member(device),))


def plan(epoch: int = 7, active: bool = True, verdicts: tuple[Verdict, ...] = ()) -> Plan:
    return Plan(
        epoch=epoch,
        host=LAPTOP,
        model="0" * 64,
        model_id="smollm2-135m-instruct-q4_1",
        model_bytes=7_100,
        context=2048,
        objective="latency",
        pipelines=(
            Pipeline(
                (
                    a_stage(0, 13, LAPTOP),
                    a_stage(13, 22, PI),
                    a_stage(22, 31, PHONE),
                    a_stage(31, 32, LAPTOP),
                )
            ),
        ),
        prediction=Prediction(57.9, 9.4, (17.2, 18.1, 11.0, 3.6), (1.3, 2.6, 2.1, 2.0)),
        verdicts=verdicts,
        active=active,
    )


VERDICTS = (
    Verdict(
        LAPTOP,
        True,
        "runs the embedding, layers 1-12 and the head: as many as its 2048.0 MiB hold (1.4 ms per layer)",
    ),
    Verdict(PI, True, "runs layers 13-21: 2.0 ms per layer"),
    Verdict(PHONE, True, "runs layers 22-30: fastest per layer (1.2 ms)"),
    Verdict(
        NETBOOK,
        False,
        "left out: using it would make each token 41.0 ms slower "
        "(a layer takes it 9.8 ms, the fastest 1.2 ms)",
    ),
)


def session(number: int, tokens: int, speed: float, **fields: object) -> SessionView:
    asker = (LAPTOP, PHONE)[number % 2]
    return SessionView(f"{number:x}f2ac8" * 2 + "0000", asker, 42, tokens, speed, **fields)  # type: ignore[arg-type]


def digest(seq: int, *members: MemberView, epoch: int = 7, **fields: object) -> Digest:
    return Digest(LAPTOP, epoch, seq, members, **fields)  # type: ignore[arg-type]


def alone() -> list[SwarmEvent]:
    return [IDENTITY, CONNECTED, digest(1, laptop(state="fetching", progress=0.43, stage_ms=0.0), epoch=0)]


def running() -> list[SwarmEvent]:
    """Three devices answer two prompts; a fourth is left out."""
    members = (laptop(), pi(), phone(), netbook())
    events: list[SwarmEvent] = [
        IDENTITY,
        CONNECTED,
        NoticeSeen(NOW + 4, "info", "connected to the swarm's bus"),
        NoticeSeen(NOW + 5, "info", "this device is the host: it plans for the swarm"),
        digest(1, laptop(state="measuring", stage_ms=0.0), pi(state="measuring"), epoch=0),
        digest(2, *members, epoch=6),
        plan(active=False, verdicts=VERDICTS),
        NoticeSeen(NOW + 16, "info", "plan 7 (devices joined): 3 device(s), 57.9 ms/token predicted"),
        plan(verdicts=VERDICTS),
        NoticeSeen(NOW + 20, "info", "plan 7 is active"),
        digest(3, *members, token_ms=60.1),
    ]
    speeds = (0.0, 8.1, 12.9, 15.8, 16.6, 16.2, 16.9, 15.1, 16.4, 16.8, 16.5, 16.7)
    for step, speed in enumerate(speeds):
        sessions = [session(3, step * 16, speed)]
        if step >= 5:
            sessions.append(session(10, (step - 5) * 12, speed * 0.8, waiting=step == 5))
        events.append(digest(4 + step, *members, token_ms=60.1, sessions=tuple(sessions)))
    stranger = "1 message from 192.168.1.77 dropped: bad proof of the key"
    return [*events, NoticeSeen(NOW + 69, "warning", stranger)]


def covered() -> list[SwarmEvent]:
    """The netbook stands in for the pi, the pi still loads what the phone runs, nobody has the laptop's."""
    spares = (Spare(NETBOOK, 13, 22), Spare(PI, 22, 31))
    members = (
        laptop(warm=((0, 13), (31, 32))),
        pi(warm=((13, 22),)),
        phone(warm=((22, 31),)),
        netbook(state="ready", warm=((13, 22),)),
    )
    chosen = replace(plan(verdicts=VERDICTS), spares=spares)
    return [*running(), chosen, digest(60, *members, token_ms=60.1, uncovered=(LAPTOP,))]


def replicas() -> list[SwarmEvent]:
    """The pi and the phone run one pipeline, the laptop another one by itself."""
    chosen = replace(
        plan(epoch=9),
        objective="throughput",
        pipelines=(
            Pipeline((a_stage(0, 17, PI), a_stage(17, 31, PHONE), a_stage(31, 32, PI))),
            Pipeline((a_stage(0, 32, LAPTOP),)),
        ),
        prediction=Prediction(62.4, 9.4, (16.0, 20.0, 4.0, 62.4), (2.5, 2.5, 0.0, 0.0)),
        verdicts=(
            Verdict(LAPTOP, True, "runs the whole model in pipeline 2 of 2: 62.4 ms per token"),
            Verdict(
                PI, True, "runs the embedding, layers 1-16 and the head in pipeline 1 of 2: 0.9 ms per layer"
            ),
            Verdict(PHONE, True, "runs layers 17-30 in pipeline 1 of 2: 1.4 ms per layer"),
            Verdict(
                NETBOOK,
                False,
                "left out: it cannot hold the model by itself, and no pipeline would be much faster with it",
            ),
        ),
    )
    members = (laptop(stage_ms=60.0), pi(stage_ms=21.0), phone(stage_ms=19.5), netbook())
    speeds = (session(3, 40, 15.1), session(10, 60, 21.0))
    return [*running(), chosen, digest(60, *members, epoch=9, token_ms=65.5, sessions=speeds)]


def broken() -> list[SwarmEvent]:
    """The phone died, the netbook's disk is full, the rest loads the next plan."""
    note = "disk full: 31 MB needed in /home/ana/.swisd, 12 MB free"
    before = running()
    now = digest(
        40,
        laptop(state="loading", progress=0.6, stage_ms=0.0),
        pi(liveness="suspect"),
        phone(liveness="dead"),
        netbook(state="failed", note=note),
        epoch=8,
        sessions=(session(3, 176, 0.0, waiting=True),),
    )
    return [*before, now, plan(epoch=8, active=False)]


def lost_bus() -> list[SwarmEvent]:
    return [*running(), BusState(False, "connection refused by 192.168.1.20:7947")]
