"""The battery: read as systems tell it, and a floor with room above it so that no device comes and goes."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.errors import BadInput
from swisd.node import memory, power
from swisd.node.memory import JOURNAL_MOST, Offering
from swisd.node.power import STEP, Charge, is_low, read_charge
from swisd.node.settings import DeviceSettings

MIB = 1 << 20
PERCENTS = st.floats(0, 100)


def on_battery(percent: float) -> Charge:
    return Charge(percent, plugged=False)


@pytest.mark.parametrize(
    ("was", "charge", "floor", "low"),
    [
        (False, on_battery(20), 20, False), (False, on_battery(19.9), 20, True),
        (True, on_battery(24.9), 20, True), (True, on_battery(25), 20, False),
        (True, Charge(3, True), 20, False), (False, None, 20, False), (True, None, 20, False),
        (False, on_battery(1), 0, False), (True, on_battery(99), 98, True),
        (True, on_battery(100), 98, False),
    ],
)  # fmt: skip
def test_the_floor(was: bool, charge: Charge | None, floor: int, low: bool) -> None:
    assert is_low(was, charge, floor) is low


@given(st.lists(PERCENTS, min_size=2, max_size=50), st.integers(1, 90))
def test_it_changes_only_where_the_battery_crosses_the_whole_step(levels: list[float], floor: int) -> None:
    low = False
    for level in levels:
        now = is_low(low, on_battery(level), floor)
        if now != low:
            assert level < floor if now else level >= floor + STEP
        else:
            assert level < floor + STEP if now else level >= floor
        low = now


def supply(folder: Path, name: str, **lines: str) -> None:
    (folder / name).mkdir()
    for key, value in lines.items():
        (folder / name / key).write_text(value + "\n")


@pytest.fixture
def supplies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(power, "SUPPLIES", tmp_path)
    return tmp_path


def test_a_laptop_with_two_batteries(supplies: Path) -> None:
    assert read_charge() is None
    supply(supplies, "AC", type="Mains", online="0")
    supply(supplies, "BAT0", type="Battery", capacity="10", status="Discharging")
    supply(supplies, "BAT1", type="Battery", capacity="40", status="Discharging")
    supply(supplies, "hidpp_battery_0", type="Battery", scope="Device", capacity="3", status="Discharging")
    assert read_charge() == Charge(25.0, False)
    (supplies / "AC" / "online").write_text("1\n")
    assert read_charge() == Charge(25.0, True)


@pytest.mark.parametrize(
    ("lines", "charge"),
    [
        ({"capacity": "18", "status": "Charging"}, Charge(18, True)),
        ({"capacity": "100", "status": "Full"}, Charge(100, True)),
        ({"capacity": "18"}, Charge(18, True)),  # unknown is no reason to leave a device out
        ({"capacity": "180", "status": "Discharging"}, None),
        ({"capacity": "-1", "status": "Discharging"}, None),
        ({"capacity": "\u0663", "status": "Discharging"}, None),
        ({"status": "Discharging"}, None),
        ({"capacity": "9" * 5000}, None),
    ],
)
def test_what_the_kernel_may_say(supplies: Path, lines: dict[str, str], charge: Charge | None) -> None:
    supply(supplies, "battery", type="Battery", **lines)
    assert read_charge() == charge


def test_what_psutil_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SUPPLIES", tmp_path / "nothing")

    def said(percent: float, plugged: bool | None) -> SimpleNamespace:
        return SimpleNamespace(
            sensors_battery=lambda: SimpleNamespace(percent=percent, power_plugged=plugged)
        )

    def fails() -> None:
        raise FileNotFoundError("charge_now")

    for module, charge in (
        (said(18.4, False), Charge(18.4, False)), (said(18.4, True), Charge(18.4, True)),
        (said(18.4, None), Charge(18.4, True)), (said(255, False), None),
        (SimpleNamespace(sensors_battery=lambda: None), None),
        (SimpleNamespace(), None), (SimpleNamespace(sensors_battery=fails), None),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, "psutil", module)
        assert read_charge() == charge


# --- what is offered ---------------------------------------------------------------------------------


class Machine:
    """A machine with memory and a battery."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int = 1024 * MIB) -> None:
        self.charge: Charge | None = None
        self.told: list[str] = []
        monkeypatch.setattr(memory, "available_bytes", lambda: free)

    def offering(self, asked: int | None, journal: int | None = None, floor: int = 20) -> Offering:
        return Offering(asked, journal, floor, self.told.append, lambda: self.charge)


@pytest.mark.parametrize(
    ("asked", "journal", "kept", "offered"),
    [
        (64 * MIB, None, 2 * MIB, 62 * MIB), (64 * MIB, MIB, MIB, 63 * MIB), (64 * MIB, 0, 0, 64 * MIB),
        (None, None, 24 * MIB, 744 * MIB), (1 << 40, None, JOURNAL_MOST, 992 * MIB),
    ],
)  # fmt: skip
def test_the_journal_is_taken_from_the_offer(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, journal: int | None, kept: int, offered: int
) -> None:
    offering = Machine(monkeypatch).offering(asked, journal)
    assert (offering.journal, offering.now(0)) == (kept, offered)


def test_a_journal_that_leaves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"device\.journal"):
        Machine(monkeypatch).offering(MIB, MIB)
    assert Machine(monkeypatch, free=0).offering(64 * MIB).now(0) == 0


def test_a_low_battery_takes_the_device_out_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.charge = on_battery(18)
    offering = machine.offering(64 * MIB)
    assert offering.journal == 2 * MIB  # for when it takes part again
    assert [offering.now(0), offering.now(0)] == [0, 0]
    assert machine.told == ["battery at 18 %: takes no part until it is plugged in, or at 25 %"]
    machine.charge = on_battery(24)
    assert offering.now(0) == 0
    machine.charge = Charge(24, True)
    assert offering.now(0) == 62 * MIB
    assert machine.told[1:] == ["battery at 24 %, plugged in: takes part again"]
    machine.charge = on_battery(24)
    assert offering.now(0) == 62 * MIB and len(machine.told) == 2


def test_settings_say_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(power, "SUPPLIES", Path("/nonexistent"))
    offering = Offering.of(
        DeviceSettings(memory="64MiB", journal="4MiB", battery_floor=0), machine.told.append
    )
    assert (offering.journal, offering.now(0)) == (4 * MIB, 60 * MIB)
