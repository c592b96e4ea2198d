"""Divides the items of a long list among the processes of a group, such as clips to measure.

Each process takes the next item when it has finished one, and rank 0 receives all results. Items
are given in order, so a result waits only for those of earlier items that others work on. Between
rank 0 and each other process there is one connection, in a gloo group of its own. A thread at each
end listens, so that an end, a failure and a lost process are noticed while an item is being worked
on. Messages are JSON and arrays of float64; nothing is unpickled.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from common.distributed import processes as distributed
from common.distributed.processes import PeerLost
from common.errors import UserError, in_one_line

_TIMEOUT: Final = timedelta(minutes=10)  # without any message; then a process counts as lost
_BEAT: Final = 60.0  # seconds between two messages that only say that a process is there
_POLL: Final = 0.2  # seconds between two looks at what the listening threads have noted
_STOPPING: Final = 10.0  # seconds that rank 0 waits for the others to stop after an error
_ENDING: Final = 30.0  # seconds that they wait then for rank 0 to end
_MAX_BYTES: Final = 2**34  # of a message

Arrays = Sequence[NDArray[np.float64]]


class Result(NamedTuple):
    """The result of an item.

    values: what JSON can hold.
    arrays: they arrive with the same bits.
    """

    values: Any
    arrays: Arrays = ()


Receive = Callable[[int, Result], object]  # called with an item and its result


@contextmanager
def shared_queue(num_items: int, receive: Receive) -> Iterator["WorkQueue"]:
    """Context manager: a queue of the items 0 to `num_items` - 1. All processes must enter it.

    The block ends well when every item has been handed in. An error in any process ends all of
    them: rank 0 raises it, and the others end without a word, unless rank 0 is gone.

    Args:
        receive: called in rank 0 with every result as it arrives, in the thread of the block.
    """
    queue = WorkQueue(num_items, receive)
    try:
        yield queue
        queue.finish()
    except BaseException as error:
        queue.leave(error)
        if isinstance(error, KeyboardInterrupt) and not distributed.is_main():
            raise SystemExit(130) from error  # rank 0 says it
        if isinstance(error, UserError) and queue.is_told:
            raise SystemExit(2) from error
        raise


class WorkQueue:
    """See `shared_queue`. Iterating over it gives the items of this process.

    Attributes:
        is_told: whether rank 0 knows of the error of this process, and prints it.
    """

    def __init__(self, num_items: int, receive: Receive) -> None:
        self.is_told = False
        self._num_items, self._receive = num_items, receive
        self._items = iter(range(num_items))
        self._lock = threading.Lock()  # for `_items`
        self._num_received = 0
        self._results: SimpleQueue[tuple[int, Result]] = SimpleQueue()  # not received yet
        self._replies: SimpleQueue[int | None] = SimpleQueue()  # items that rank 0 gives this one
        self._error: Exception | None = None  # of another process or of `receive`, or a loss
        self._is_over: bool | None = None  # what rank 0 said at its end: whether all went well
        self._closing = threading.Event()
        self._connections: list[_Connection] = []
        self._listeners: list[threading.Thread] = []
        if distributed.world_size() == 1:
            return
        group = distributed.new_host_group(_TIMEOUT)
        others = range(1, distributed.world_size()) if distributed.is_main() else [0]
        self._connections = [_Connection(group, other) for other in others]
        listen = self._serve if distributed.is_main() else self._follow
        self._listeners = [
            threading.Thread(target=self._noting_loss, args=(listen, connection), daemon=True)
            for connection in self._connections
        ]
        beat = threading.Thread(target=self._beat, daemon=True)
        for thread in (*self._listeners, beat):
            thread.start()

    def __iter__(self) -> Iterator[int]:
        while (item := self._next()) is not None:
            yield item

    def hand_in(self, item: int, result: Result) -> None:
        """Give rank 0 the result of an item."""
        if distributed.is_main():
            self._results.put((item, result))
        else:
            self._tell_main({"item": item, "values": result.values}, result.arrays)
        self.check()

    def check(self) -> None:
        """Receive what has arrived, in rank 0. Call it often, in the thread of the block.

        Raises:
            UserError, SystemExit: as `raise_if_over`.
        """
        while True:
            try:
                item, result = self._results.get_nowait()
            except Empty:
                break
            self._num_received += 1
            try:
                self._receive(item, result)
            except Exception as error:  # must not pass for a failure of the current item
                self._error = error
                raise
        self.raise_if_over()

    def raise_if_over(self) -> None:
        """End this process if an error in another one ends all; any thread may call this.

        Raises:
            UserError: another process has failed or is lost.
            Exception: the function `receive` has raised it.
            SystemExit: rank 0 has ended, and says why.
        """
        if self._is_over is False:
            raise SystemExit(2)
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until rank 0 has all results."""
        if distributed.is_main():
            self.check()
            while self._num_received < self._num_items:
                time.sleep(_POLL)
                self.check()
            self._tell_all({"is_over": True}, is_last=True)
        while any(listener.is_alive() for listener in self._listeners):
            self.raise_if_over()
            time.sleep(_POLL)
        self.raise_if_over()
        self._closing.set()

    def leave(self, error: BaseException) -> None:
        """End all processes because of `error` in this one, or in another."""
        wait = _STOPPING
        if distributed.is_main():
            with suppress(Exception):  # what was finished counts; `error` is what is raised
                self._error = None
                self.check()
            self._tell_all({"is_over": False}, is_last=True)
        else:
            own = error if isinstance(error, Exception) and error is not self._error else None
            if own is None and self._is_over is None:
                return  # a signal, or rank 0 is lost: nobody waits for this process
            with suppress(PeerLost):
                if own is not None:
                    self._connections[0].send({"failure": in_one_line(own)})
                    self.is_told = True
                self._connections[0].send({"leaves": True}, is_last=True)
            # torchrun ends all processes when the first has ended; rank 0 must print the reason.
            wait = _ENDING
        deadline = time.monotonic() + wait
        for listener in self._listeners:
            listener.join(max(0.0, deadline - time.monotonic()))
        self._closing.set()

    def _next(self) -> int | None:
        """The next item for this process; None if there is none left."""
        self.check()
        if distributed.is_main():
            return self._take()
        self._tell_main({"wants": True})
        while not self._is_over:  # the others may have finished all items before this one asked
            with suppress(Empty):
                return self._replies.get(timeout=_POLL)
            self.check()
        return None

    def _take(self) -> int | None:
        with self._lock:
            return next(self._items, None)

    def _tell_main(self, message: dict[str, Any], arrays: Arrays = ()) -> None:
        try:
            self._connections[0].send(message, arrays)
        except PeerLost:
            self.raise_if_over()  # then rank 0 has said why it ended
            raise

    def _tell_all(self, message: dict[str, Any], *, is_last: bool = False) -> None:
        for connection in self._connections:
            with suppress(PeerLost):
                connection.send(message, is_last=is_last)

    def _beat(self) -> None:
        """Tell the others from time to time that this process is there."""
        while not self._closing.wait(_BEAT):
            self._tell_all({})

    def _noting_loss(self, listen: Callable[["_Connection"], None], other: "_Connection") -> None:
        """Run `listen`, and note the error that ends it, as a UserError: it is not of an item."""
        try:
            listen(other)
        except Exception as error:  # of any kind, else the block would wait for `other` forever
            if self._closing.is_set():
                return  # this process has ended the group
            noted = error if isinstance(error, UserError) else UserError(in_one_line(error))
            if noted is not error:
                noted.__cause__ = error
            self._error = self._error or noted

    def _serve(self, other: "_Connection") -> None:
        """In rank 0: give `other` items, and note its results, until it leaves."""
        given: int | None = None  # the item that it works on
        while True:
            message, arrays = other.receive()
            if "wants" in message:
                given = self._take()
                other.send({"next": given})
            elif "values" in message:
                if given is None or message.get("item") != given:
                    raise other.foreign()
                self._results.put((given, Result(message["values"], arrays)))
                given = None
            elif "failure" in message:
                reason = f"rank {other.rank}: {message['failure']}"
                self._error = self._error or UserError(reason)
            elif "leaves" in message:
                return

    def _follow(self, main: "_Connection") -> None:
        """In the other processes: note what rank 0 says, until all is over.

        After a failure that is until rank 0 has ended, which is then no loss.
        """
        while True:
            try:
                message, _ = main.receive()
            except PeerLost:
                if self._is_over is False:
                    return
                raise
            if "next" in message:
                self._replies.put(message["next"])
            elif "is_over" in message:
                self._is_over = bool(message["is_over"])
                if self._is_over:
                    main.send({"leaves": True}, is_last=True)
                    return


class _Connection:
    """The connection to another process. Any thread may send; one alone receives."""

    def __init__(self, group: dist.ProcessGroup, rank: int) -> None:
        self.rank = rank
        self._group = group
        self._lock = threading.Lock()
        self._is_closed = False

    def send(self, message: dict[str, Any], arrays: Arrays = (), *, is_last: bool = False) -> None:
        """Send a message that JSON can hold, with arrays; nothing is sent after the last one.

        Raises:
            PeerLost: the other process has ended or does not answer.
        """
        head = json.dumps(message | {"shapes": [array.shape for array in arrays]}).encode()
        parts = [torch.frombuffer(bytearray(head), dtype=torch.uint8)]
        numbers = [np.ascontiguousarray(array, np.float64).reshape(-1) for array in arrays]
        if sum(map(len, numbers)) > 0:
            parts.append(torch.from_numpy(np.concatenate(numbers)))
        lengths = torch.tensor([len(head), sum(map(len, numbers))])
        with self._lock, distributed.exchanging(f"rank {self.rank}"):
            if self._is_closed:
                return
            self._is_closed = is_last
            for tensor in (lengths, *parts):
                dist.send(tensor, group=self._group, group_dst=self.rank)

    def receive(self) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
        """Wait for the next message.

        Raises:
            PeerLost: the other process has ended or does not answer.
            UserError: the message is not one of this program.
        """
        lengths = self._receive(torch.zeros(2, dtype=torch.int64))
        num_bytes, num_numbers = map(int, lengths)
        if num_bytes <= 0 or num_numbers < 0 or num_bytes + 8 * num_numbers > _MAX_BYTES:
            raise self.foreign()
        content = self._receive(torch.zeros(num_bytes, dtype=torch.uint8))
        numbers = np.zeros(0)
        if num_numbers > 0:
            numbers = self._receive(torch.zeros(num_numbers, dtype=torch.float64)).numpy()
        try:
            message = json.loads(content.numpy().tobytes())
            shapes = [tuple(map(int, shape)) for shape in message.pop("shapes")]
            ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
            parts = np.split(numbers, ends)
            arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=False)]
        except (ValueError, ArithmeticError, TypeError, KeyError, AttributeError, RecursionError):
            raise self.foreign() from None
        return message, arrays

    def _receive(self, tensor: torch.Tensor) -> torch.Tensor:
        with distributed.exchanging(f"rank {self.rank}"):
            dist.recv(tensor, group=self._group, group_src=self.rank)
        return tensor

    def foreign(self) -> UserError:
        """The error for a message that no process of this run can have sent."""
        return UserError(f"rank {self.rank} has sent a strange message: {distributed.FOREIGN}")
