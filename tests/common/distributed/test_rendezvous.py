"""The rendezvous: processes find each other, or one line says why they do not."""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import TCPStore

import train
from common.distributed import rendezvous
from common.distributed.rendezvous import ProcessPlace, meet
from tests.helpers.processes import free_port, place
from tests.helpers.runs import call, error_line, tiny


@pytest.fixture
def one_of_two(monkeypatch):
    """Makes this process one of two, the other of which never starts."""

    def become(rank):
        port = free_port()
        for name, value in place(rank, 2, port).items():
            monkeypatch.setenv(name, value)
        return port

    return become


@pytest.mark.parametrize(("rank", "missing"), [(0, 1), (1, 0)])
def test_missing_process(tmp_path, capfd, one_of_two, rank, missing):
    port = one_of_two(rank)
    begun = time.monotonic()
    assert call(train, *tiny(tmp_path / "run"), "--join-timeout", 1) == 2
    assert time.monotonic() - begun < 10
    assert error_line(capfd, "train.py") == (
        f"train.py: error: rank {rank}: after 1 s no sign of rank {missing}, of 2 processes "
        f"(MASTER_ADDR and MASTER_PORT: 127.0.0.1:{port}); start all of them, or wait longer with "
        "--join-timeout"
    )
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken(tmp_path, capsys, one_of_two):
    port = one_of_two(0)
    with socket.create_server(("127.0.0.1", port)):
        assert call(train, *tiny(tmp_path / "run")) == 2
    line = error_line(capsys, "train.py")
    assert line.startswith(f"train.py: error: MASTER_PORT: {port} cannot be opened (")
    assert line.endswith("; choose another")


def answers(address, port):
    with socket.socket() as caller:
        return caller.connect_ex((address, port)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine on Linux")
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_rank_0_listens_at_the_address_given(address):
    port = free_port()
    store = rendezvous._open_store(ProcessPlace(0, 2, address, port), time.monotonic() + 10)
    own = socket.gethostbyname(address)
    assert answers(own, port)
    assert not answers({"127.0.0.1": "127.0.0.2", "127.0.0.2": "127.0.0.1"}[own], port)
    store.set("question", "answer")
    other = rendezvous._open_store(ProcessPlace(1, 2, address, port), time.monotonic() + 10)
    assert other.get("question") == b"answer"


@pytest.mark.parametrize(
    ("known_as", "local_size", "expected"),
    [
        (
            ["127.0.1.1"],
            None,
            None,
        ),  # Debian's entry for its own name, which no other machine reaches
        (["127.0.1.1"], "2", "127.0.1.1"),
        (["192.0.2.1"], None, None),  # the address of a router in front of this machine
        (["192.0.2.1", "127.0.0.1"], "2", "127.0.0.1"),
        (["::1", "127.0.0.1"], "2", "127.0.0.1"),
    ],
)
def test_addresses_that_other_machines_cannot_reach(
    monkeypatch, caplog, known_as, local_size, expected
):
    def getaddrinfo(_name, port, **_kind):
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in a], socket.SOCK_STREAM, 0, "", (a, port)) for a in known_as]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    if local_size is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local_size)
    listener = rendezvous._listen(ProcessPlace(0, 2, "anna", free_port()))
    if expected is None:
        assert listener is None
        assert caplog.messages == [
            "MASTER_ADDR: other machines cannot reach this one at the address that anna has here; "
            "rank 0 listens at all addresses of this machine"
        ]
    else:
        with listener:
            assert listener.getsockname()[0] == expected
        assert caplog.messages == []


def test_a_name_that_nobody_knows(tmp_path, capsys, one_of_two, monkeypatch):
    one_of_two(0)
    monkeypatch.setenv("MASTER_ADDR", "no.such.name.invalid")
    assert call(train, *tiny(tmp_path / "run")) == 2
    line = error_line(capsys, "train.py")
    assert "MASTER_ADDR: no.such.name.invalid is no address and no known name (" in line
    assert line.endswith("; give the address of the machine of rank 0")


def test_names_left_by_an_earlier_start_do_not_count_as_processes(one_of_two, monkeypatch):
    """After a restart, torchrun's store still has the names of processes that have ended."""
    port = one_of_two(0)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    left = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for rank in (0, 1):
        left.set(f"name/{rank}", f"gone{rank}")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet, ProcessPlace(0, 2, "127.0.0.1", port), 10.0)
        time.sleep(0.3)
        assert not first.done()
        second = pool.submit(meet, ProcessPlace(1, 2, "127.0.0.1", port), 10.0)
        first.result().set("question", "answer")
        assert second.result().get("question") == b"answer"


def test_several_processes_without_their_places(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert call(train, *tiny(tmp_path / "run")) == 2
    line = error_line(capsys, "train.py")
    assert "WORLD_SIZE is 2, but RANK, " in line
    assert line.endswith("start several processes with torchrun, or unset WORLD_SIZE for one")


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_there_cannot_be(tmp_path, capsys, monkeypatch, port):
    for name, value in (place(1, 2, free_port()) | {"MASTER_PORT": port}).items():
        monkeypatch.setenv(name, value)
    assert call(train, *tiny(tmp_path / "run")) == 2
    assert error_line(capsys, "train.py") == (
        f"train.py: error: MASTER_PORT: found {port} in the environment; must be from 1 to 65535"
    )


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"])
def test_place_that_is_no_number(tmp_path, capsys, one_of_two, monkeypatch, name):
    one_of_two(0)
    monkeypatch.setenv(name, "two")
    assert call(train, *tiny(tmp_path / "run")) == 2
    assert error_line(capsys, "train.py").startswith(
        f"train.py: error: {name}: found 'two' in the environment; must be a whole number"
    )
