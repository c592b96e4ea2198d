"""What a rule between keys of a config says when it is broken."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from configs.schema import Config


class Violation(NamedTuple):
    """A broken rule.

    keys: the dotted keys that the rule depends on; the first is the one to report.
    reason: what was found and what to do.
    """

    keys: tuple[str, ...]
    reason: str


Rule = Callable[[Config], Iterator[Violation]]


def image_size(config: Config) -> str:
    """The size of the frames as messages show it: 256 x 256."""
    height, width = config.data.size
    return f"{height} x {width}"
