"""Work ahead: what comes next is made by another thread while this one is busy."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def made_ahead(items: Iterable[Item], num_ahead: int) -> Generator[Item, None, None]:
    """`items` in their order, made by a thread of their own, at most `num_ahead` before their turn.

    What they raise is raised here, in its turn. When this generator is closed, or ends in whatever
    way, the item in the making is still finished and the thread has ended; so close it
    (`contextlib.closing`) where it may not be read to its end. `items` itself is not closed.

    Pays where both sides leave Python's lock to others: decoding, encoding, networks.
    """
    iterator = ((item,) for item in items)  # so that None is their end
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
