"""The shared queue: every item once, every bit of its result, and no foreign message."""

import json
import time
from contextlib import suppress
from math import nan

import numpy as np
import pytest
import torch

from common.distributed import processes as distributed
from common.distributed.work_queue import Result, WorkQueue, _Connection, shared_queue
from common.errors import UserError
from tests.helpers.processes import finish_together, start_function

NUM_ITEMS = 9


def result_of(item):
    """A result with numbers whose bits are easily lost, and an array without any."""
    arrays = [np.array([[nan, -0.0], [1 / 3, item]]), np.zeros((0, 5)), np.array(0.1 * item)]
    return Result({"item": item, "text": "\ud800\n"}, arrays)


def described(result):
    return [result.values, *([array.shape, array.tobytes().hex()] for array in result.arrays)]


def share_items_and_send_nonsense(folder):
    received, own = {}, []

    def receive(item, result):
        assert item not in received
        received[item] = described(result)

    with shared_queue(NUM_ITEMS, receive) as queue:
        for item in queue:
            (folder / f"begun{distributed.rank()}").touch()
            while not (folder / f"begun{1 - distributed.rank()}").exists():
                queue.check()  # until the other process has an item, too
                time.sleep(0.01)
            own.append(item)
            queue.hand_in(item, result_of(item))
    with shared_queue(0, receive) as queue:
        assert list(queue) == []
    (folder / f"{distributed.rank()}.json").write_text(json.dumps([received, own]))
    with shared_queue(2, receive) as queue:
        if distributed.rank() == 1:
            queue._connections[0].send({"item": 0, "values": "never given"})
        while True:
            queue.check()
            time.sleep(0.01)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queue")
    processes = finish_together(start_function(share_items_and_send_nonsense, folder))
    files = [folder / f"{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), processes
    return [json.loads(file.read_text()) for file in files], processes


def test_rank_0_receives_every_result_with_the_same_bits(ended):
    (received, first), (nothing, second) = ended[0]
    assert sorted(first + second) == [*range(NUM_ITEMS)]
    assert first
    assert second
    assert first == sorted(first)
    assert second == sorted(second)
    assert nothing == {}
    expected = {str(item): described(result_of(item)) for item in range(NUM_ITEMS)}
    assert received == json.loads(json.dumps(expected))


def test_a_result_of_an_item_that_was_not_given_ends_both(ended):
    first, second = ended[1]
    assert (first.code, second.code) == (2, 2)
    assert first.stderr.splitlines() == [
        "processes: error: rank 1 has sent a strange message: another program, or another version "
        "of this one, has joined; choose another port"
    ]
    assert second.stderr == ""


def test_one_process_takes_every_item():
    received = []
    with shared_queue(3, lambda item, result: received.append((item, result.values))) as queue:
        for item in queue:
            queue.hand_in(item, Result(-item))
    assert received == [(0, 0), (1, -1), (2, -2)]


def test_an_error_of_the_receiver_is_no_error_of_the_item():
    """It ends the run, even where the errors of items are caught."""

    def receive(*_):
        raise UserError("the disk is full")

    def work():
        with shared_queue(3, receive) as queue:
            for item in queue:
                with suppress(UserError):
                    queue.hand_in(item, Result(None))

    with pytest.raises(UserError, match="the disk is full"):
        work()


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), MemoryError(), OSError("gone")])
def test_any_error_of_a_listening_thread_ends_the_queue(error):
    """Otherwise its process would wait forever. It concerns all items, so it is a UserError."""

    def listen(_other):
        raise error

    queue = WorkQueue(1, print)
    queue._noting_loss(listen, None)
    with pytest.raises(UserError, match=type(error).__name__) as found:
        queue.check()
    assert found.value.__cause__ is error


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"shapes": 1}',
        '{"shapes": [["a"]]}',
        '{"shapes": [[Infinity]]}',
        '{"shapes": [[NaN]]}',
        '{"shapes": [[1e30]]}',
        '{"shapes": [[4611686018427387904, 8]]}',
        '{"shapes": [[-1], [2]]}',
        '{"shapes": [[3]]}',
    ],
)
def test_foreign_messages(monkeypatch, content):
    parts = [torch.tensor([len(content), 0]), torch.tensor([*content.encode()], dtype=torch.uint8)]
    connection = _Connection(None, 1)
    monkeypatch.setattr(connection, "_receive", lambda _: parts.pop(0))
    with pytest.raises(UserError, match="rank 1 has sent a strange message"):
        connection.receive()
