"""Reads and writes the YAML of configs, with limits on its size, and with 1e-4 as a number.

A few hundred bytes of YAML can stand for billions of values, because an alias repeats what it
refers to. So the values are counted as if every alias were written out. The limits are far above
any config: the largest one of this project has 300 values, nested 5 deep.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

MAX_BYTES: Final = 2**18  # of a file
MAX_VALUES: Final = 2**12  # keys are counted too
MAX_DEPTH: Final = 20
MAX_TEXT: Final = 2**12  # characters of one value; the longest path has as many
MAX_DIGITS: Final = 64  # characters of a number

# NUL ends a path for the system, and a lone surrogate cannot be written as UTF-8.
_NOT_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_NO_TEXT: Final = "text with a NUL character or half of a surrogate pair"


class Loader(yaml.SafeLoader):
    """Reads safe YAML. 1e-4 is a number, and a key that appears twice in a mapping is an error."""

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a finished node -> number of values in it

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(f"more than {MAX_DEPTH} levels", event)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_TEXT:
            _refuse(f"a value of more than {MAX_TEXT} characters", event)
        if isinstance(event, yaml.ScalarEvent) and _NOT_TEXT.search(event.value):
            _refuse(_NO_TEXT, event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                _refuse(f"*{event.anchor} refers to itself", event)
            return node
        is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if is_number and isinstance(node.value, str) and len(node.value) > MAX_DIGITS:
            _refuse(f"a number of more than {MAX_DIGITS} digits", event)
        size = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if size > MAX_VALUES:
            _refuse(f"more than {MAX_VALUES} values, those that aliases repeat included", event)
        self._sizes[id(node)] = size
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise yaml.MarkedYAMLError(None, None, "a key that is not text", key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} appears twice"
                raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


class Dumper(yaml.SafeDumper):
    """Writes lists on one line, and puts text that `Loader` would read as a number in quotes."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


# In YAML 1.1, which PyYAML follows, only 1.0e-4 is a number, but people write 1e-4.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
for _yaml_class in (Loader, Dumper):
    _yaml_class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
Dumper.add_representer(list, Dumper.represent_list)


def parse_yaml(text: str | bytes) -> Any:
    """Return the content of a YAML text.

    Raises:
        ValueError: the text is wrong or too large; the message is one line and says where.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes of YAML, too long for a config")
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{place}{problem}") from error
    except RecursionError as error:
        raise ValueError("not YAML: it is nested too deeply") from error
    except Exception as error:  # a date such as 2024-13-01, a tag such as !!bool on other text
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"not YAML: {reason}") from error


def check_text(text: str) -> None:
    """Raise ValueError if a text can be neither part of a path nor written to a file."""
    if _NOT_TEXT.search(text):
        raise ValueError(_NO_TEXT)


def check_tree(tree: Any) -> None:
    """Check a tree that was not read from YAML, such as the config in a checkpoint.

    The limits are those of YAML files.

    Raises:
        ValueError: the tree is larger, or holds something other than plain values.
    """
    num_left = MAX_VALUES
    waiting = [(tree, 1)]
    while waiting:
        value, depth = waiting.pop()
        num_left -= 1
        if depth > MAX_DEPTH or num_left < 0:
            raise ValueError(f"more than {MAX_VALUES} values, or {MAX_DEPTH} levels")
        if isinstance(value, dict):
            waiting += ((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple):
            waiting += ((part, depth + 1) for part in value)
        elif isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise ValueError(f"a value of more than {MAX_TEXT} characters")
            check_text(value)
        elif isinstance(value, int):
            if value.bit_length() > 4 * MAX_DIGITS:
                raise ValueError(f"a number of more than {MAX_DIGITS} digits")
        elif value is not None and not isinstance(value, float):
            raise ValueError(f"a value of type {type(value).__name__}")


def _parts(node: yaml.Node) -> Iterable[yaml.Node]:
    """The nodes directly inside a node."""
    if isinstance(node, yaml.MappingNode):
        return (part for pair in node.value for part in pair)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _refuse(problem: str, event: Any) -> None:
    raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)
