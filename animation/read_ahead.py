"""Prefetching: another thread computes the next items of an iterable while this one is busy."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], num_ahead: int) -> Generator[Item, None, None]:
    """Yield `items` in order, computed by a thread, at most `num_ahead` items before their turn.

    An exception from `items` is raised here in its turn. When this generator is closed or ends, the
    thread finishes the item that it works on, and has ended. So close the generator
    (`contextlib.closing`) if it may not be read to its end. `items` itself is not closed.

    It saves time if both threads release Python's lock: decoding, encoding, networks.
    """
    iterator = ((item,) for item in items)  # in tuples, so that None marks the end
    with ThreadPoolExecutor(max_workers=1) as executor:
        waiting: deque[Future[tuple[Item] | None]] = deque()
        try:
            for _ in range(num_ahead):
                waiting.append(executor.submit(next, iterator, None))
            while (made := waiting.popleft().result()) is not None:
                waiting.append(executor.submit(next, iterator, None))
                yield made[0]
        finally:
            for future in waiting:
                future.cancel()
