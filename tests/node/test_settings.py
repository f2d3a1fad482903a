"""Settings: what is wrong is named with its file, and sizes are read as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.errors import BadInput
from swisd.node.settings import Settings, load_settings, parse_size


def load(folder: Path, text: str | bytes) -> Settings:
    (folder / "swisd.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(folder)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()


def test_what_is_said_counts_and_the_rest_stays(tmp_path: Path) -> None:
    read = load(tmp_path, "[device]\nname = 'ann'\n[swarm]\nprobe_ports = [7950]\nfind_seconds = 2\n")
    assert (read.device.name, read.swarm.probe_ports, read.swarm.find_seconds) == ("ann", (7950,), 2.0)
    assert read.model == Settings().model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[device]\nmemry = '1GiB'", ["device.memry", "memory", "threads"]),
        ("[devise]\nname = 'a'", ["devise", "device", "swarm"]),
        ("[device]\nthreads = 'four'", ["device.threads", "number"]),
        ("[device]\nthreads = 4.5", ["device.threads", "whole"]),
        ("[device]\nthreads = true", ["device.threads"]),
        ("[device]\nport = 70000", ["device.port", "65535"]),
        ("[device]\nmemory = 'lots'", ["device.memory", "lots", "64MiB"]),
        ("[device]\nmemory = 64", ["device.memory", "text"]),
        ("[device]\njournal = 'some'", ["device.journal", "some", "64MiB"]),
        ("[device]\nbattery_floor = 101", ["device.battery_floor", "100"]),
        ("device = 3", ["device", "table"]),
        ("[model]\nobjective = 'speed'", ["model.objective", "latency"]),
        ("[swarm]\nprobe_ports = [0]", ["swarm.probe_ports"]),
        ("[swarm]\nlane = 'udp'", ["swarm.lane", "tcp"]),
        ("[answer]\ntemperature = nan", ["answer.temperature"]),
        ("[device", ["TOML"]),
        (b"[device]\nname = '\xff'", ["swisd.toml"]),
    ],
)
def test_an_error_names_the_file_and_the_setting(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, text)
    said = str(caught.value)
    assert "\n" not in said
    for word in [str(tmp_path / "swisd.toml"), *words]:
        assert word in said, said


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "swisd.toml").mkdir()
    with pytest.raises(BadInput, match=r"swisd\.toml"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("64M", 64 << 20), ("1.5GB", 1_500_000_000),
        ("2GiB", 2 << 30), ("2g", 2 << 30), ("100kB", 100_000), ("100K", 102_400), ("12", 12), ("12B", 12),
        ("0", 0), ("1TiB", 1 << 40), (" 3TB ", 3 * 10**12),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "lots", "-1", "1e3", "1,5GB", "64 MiB free", "MiB", "1PB", "0x10", "9" * 400, "inf", "nan"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="64MiB"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_plain_bytes_stay_what_they_are(size: int) -> None:
    assert abs(parse_size(str(size)) - size) <= size >> 52
    assert parse_size(f"{size}B") == parse_size(str(size))


@given(st.integers(0, 10**6), st.sampled_from("KMGT"))
def test_binary_and_decimal_units(count: int, unit: str) -> None:
    power = "KMGT".index(unit) + 1
    assert parse_size(f"{count}{unit}iB") == parse_size(f"{count}{unit.lower()}") == count * 1024**power
    assert parse_size(f"{count}{unit}B") == count * 1000**power


@given(st.text(max_size=40))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except BadInput as error:
        assert "\n" not in str(error)
