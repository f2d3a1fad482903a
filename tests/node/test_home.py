"""The home folder: what lasts, who may read it, and what a damaged file does."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swisd.core.errors import BadInput
from swisd.node import home as home_module
from swisd.node.home import Home, Running, default_name
from swisd.node.process import alive, birth
from swisd.wire.joincode import key_text
from swisd.wire.topics import swarm_id


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def running(pid: int) -> Running:
    return Running(pid, "127.0.0.1", 7947, 7947)


def test_the_folder_is_the_one_given_else_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWISD_HOME", str(tmp_path / "from env"))
    assert Home().path == (tmp_path / "from env").resolve()
    assert Home(tmp_path / "given").path == (tmp_path / "given").resolve()
    monkeypatch.delenv("SWISD_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home().path == tmp_path.resolve() / ".swisd"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file" / "below", Path("~nobody-has-this-name/x")):
        with pytest.raises(BadInput, match="--home"):
            Home(bad)


def test_an_identity_is_made_once_and_stays(home: Home) -> None:
    made = home.identity()
    assert home.identity() == made == Home(home.path).identity()
    assert len(made.device) == 16 and int(made.device, 16) >= 0


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"device":"a"}', b'{"device":"not hexadecimal!","since":1}',
     b'{"device":"00112233aabbccdd","since":-1}', b'{"device":"00112233aabbccdd","since":1e9}', b"[" * 9999],
)  # fmt: skip
def test_a_damaged_identity_is_made_anew(home: Home, damaged: bytes) -> None:
    (home.path / "device.json").write_bytes(damaged)
    made = home.identity()
    bytes.fromhex(made.device)
    assert home.identity() == made


def test_of_two_who_make_an_identity_at_once_both_use_the_one_on_disk(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Home(home.path)
    write = Home.write

    def late(self: Home, name: str, value: object) -> None:
        monkeypatch.setattr(Home, "write", write)
        write(self, name, value)
        (self.path / name).unlink()
        other.identity()

    monkeypatch.setattr(Home, "write", late)
    assert home.identity() == other.identity()


def test_the_key_is_readable_by_its_owner_alone_at_every_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(self.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    before = os.umask(0)
    try:
        key = home.make_key()
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(home.key_file.stat().st_mode) == 0o600
    assert home.key() == key and len(key) == 16
    assert [path.name for path in home.path.iterdir()] == ["swarm.key"]


def test_a_key_that_is_replaced_is_kept_and_its_hosts_are_forgotten(home: Home) -> None:
    first = home.make_key()
    home.remember_host("10.0.0.1", 7947)
    home.set_key(first)
    assert home.hosts() == (("10.0.0.1", 7947),)
    home.set_key(b"another swarm's!")
    assert home.key() == b"another swarm's!"
    kept = home.path / f"swarm.key.{swarm_id(first)}"
    assert kept.read_text().strip() == key_text(first)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert home.hosts() == ()


@pytest.mark.parametrize("damaged", [b"", b"hello", b"\xff\xff", b"A" * 25, b"1" * 26, bytes(100)])
def test_a_damaged_key_is_refused_by_its_path_and_left_alone(home: Home, damaged: bytes) -> None:
    home.key_file.write_bytes(damaged)
    for use in (home.key, home.make_key):
        with pytest.raises(BadInput, match=r"swarm\.key"):
            use()
    assert home.key_file.read_bytes() == damaged


def test_hosts_are_remembered_latest_first_each_once_and_a_few(home: Home) -> None:
    for number in [*range(1, 12), 5]:
        home.remember_host("10.0.0.1", number)
    assert [port for _, port in home.hosts()] == [5, 11, 10, 9, 8, 7, 6, 4]
    (home.path / "peers.json").write_text('{"hosts":[["10.0.0.1",99999]]}')
    assert home.hosts() == ()


def test_the_process_that_runs_is_found_and_one_that_ended_is_not(home: Home) -> None:
    assert home.running() is None
    home.set_running(running(os.getpid()))
    found = home.running()
    assert found is not None and (found.pid, found.port) == (os.getpid(), 7947)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    home.set_running(running(ended.pid))
    assert home.running() is None
    home.set_running(None)
    home.set_running(None)
    assert not (home.path / "node.json").exists()


def test_an_id_that_another_process_has_now_is_not_ours(home: Home) -> None:
    """After a crash and a reboot the id in node.json often belongs to something else."""
    home.set_running(running(os.getpid()))
    path = home.path / "node.json"
    stored = json.loads(path.read_text())
    assert stored["born"] == birth(os.getpid()) != ""
    path.write_text(json.dumps(stored | {"born": "1 ticks"}))
    assert home.running() is None


def test_a_process_that_ended_uncollected_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()  # it closes its output when it ends
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(child.pid)


@pytest.mark.parametrize("pid", [-1, 0, 1 << 70, "1"])
def test_an_id_that_no_process_has_is_no_process(home: Home, pid: object) -> None:
    word = {"pid": pid, "host": "127.0.0.1", "port": 1, "lane_port": 1}
    (home.path / "node.json").write_text(json.dumps(word))
    assert home.running() is None


@given(st.binary(max_size=200))
def test_no_content_of_a_small_file_is_worse_than_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    home = Home(tmp_path_factory.getbasetemp() / "any content")
    for name in ("device.json", "peers.json", "node.json"):
        (home.path / name).write_bytes(data)
    home.hosts()
    home.running()
    home.identity()


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.remember_host("10.0.0.1", 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home_module.Path, "replace", full)
    with pytest.raises(BadInput, match=r"peers\.json: No space left"):
        home.remember_host("10.0.0.2", 2)
    monkeypatch.undo()
    assert home.hosts() == (("10.0.0.1", 1),)
    assert [path.name for path in home.path.iterdir()] == ["peers.json"]


def test_a_name_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in (("kitchen.lan", "kitchen"), ("", "device"), ("x" * 60, "x" * 32)):
        monkeypatch.setattr(home_module.socket, "gethostname", lambda host=host: host)
        assert default_name() == name
