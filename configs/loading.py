"""Reads and writes configs: YAML with inheritance and overrides, all mistakes in one message.

`base: other.yaml` starts from another config, `base: [one.yaml, other.yaml]` from several in this
order; a file that is a base of both is applied once, before the first of them. Overrides
`key.sub=value` come last. Where the schema has a section, later keys are merged into earlier ones.
Everything else is replaced: numbers and lists, but also mappings whose keys are data, such as the
layers of a perceptual loss. A null section is switched off; later keys in it switch it on again.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from common.errors import UserError
from common.safe_paths import is_file, open_to_read, require_plain_file, resolve
from configs.motion.kinds import motion_kind
from configs.rules import violations
from configs.safe_yaml import MAX_BYTES, MAX_DEPTH, Dumper, check_tree, parse_yaml
from configs.schema import CONFIG_FORMAT, Config
from configs.section import Section

CONFIG_FOLDER = Path(__file__).parent

# The end of a message, `must be ...`, by pydantic's type of the mistake.
ALLOWED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "invalid_key": "text",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a section, that is, a mapping of keys",
    "string_type": "text (in quotes if it looks like a number)",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "value_error": "{error}",
}


class ConfigError(UserError):
    """A config cannot be used; the message lists every problem in it."""


class _Layer(NamedTuple):
    """The keys of one file or one override; `origin` names it in messages."""

    origin: str
    tree: dict[str, Any]


class _Problem(NamedTuple):
    key: str  # dotted
    text: str
    blocks: str  # dotted key whose further checks are left out because of this problem


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """Load the config of a YAML file, with its bases and `key.sub=value` overrides applied.

    `name_or_path` is a path, or the name of a file in configs/, with or without .yaml. If the
    config has no `run.output_dir`, that becomes runs/<name of the file>.

    Raises:
        ConfigError: a file or override cannot be read, or keys are wrong; names all of them.
    """
    path = _find(name_or_path, Path())
    config = _merge_and_check(
        [*_read_with_bases(path), *map(_read_override, overrides)], _label(path)
    )
    if config.run.output_dir is None:
        run = config.run.model_copy(update={"output_dir": f"runs/{path.stem}"})
        config = config.model_copy(update={"run": run})
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Apply `key.sub=value` overrides to a config, for example to the one in a checkpoint.

    Raises:
        ConfigError: an override cannot be read, or keys are wrong; names all of them.
    """
    stored = _Layer("stored config", config.model_dump())
    return _merge_and_check([stored, *map(_read_override, overrides)], stored.origin)


def parse_config(tree: Any, origin: str) -> Config:
    """Check a tree as `Config.model_dump` gives it, without bases, and return its config.

    `origin` names the file of the tree in messages.

    Raises:
        ConfigError: not a mapping, another format version, or wrong keys; names all of them.
    """
    try:
        check_tree(tree)
    except ValueError as error:
        raise ConfigError(f"{origin}: not a config of this program: it has {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin}: the config is {_show(tree)}, not a mapping of keys")
    return _validate(tree, origin, {})


def dump_config(config: Config) -> str:
    """Write every key as YAML, in the order of the schema; reading it gives an equal config."""
    return yaml.dump(config.model_dump(), Dumper=Dumper, sort_keys=False)


# Files and overrides


def _parse_yaml(text: str | bytes, origin: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _find(name: str, folder: Path) -> Path:
    """Find the config file `name`, which is a path relative to `folder` or a name in configs/."""
    for path in (folder / name, CONFIG_FOLDER / name, CONFIG_FOLDER / f"{name}.yaml"):
        if is_file(path):
            return path
        try:
            require_plain_file(path)
        except UserError as error:  # a pipe
            raise ConfigError(str(error)) from None
    names = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))
    raise ConfigError(
        f"{name}: no such config{_nearest(Path(name).stem, names)}; "
        f"give a path or a name in configs/: {', '.join(names)}"
    )


def _label(path: Path) -> str:
    return path.name if path.parent == CONFIG_FOLDER else str(path)


def _read_with_bases(path: Path) -> list[_Layer]:
    """Read a file and its bases; the bases come first."""
    layers: dict[Path, _Layer] = {}
    _add_with_bases(path, layers, {})
    return list(layers.values())


def _add_with_bases(path: Path, layers: dict[Path, _Layer], waiting: dict[Path, str]) -> None:
    """Add the bases of a file in their order, then the file, unless they are in `layers` already.

    `waiting` has the labels of the files whose bases are being added.
    """
    file, label = resolve(path), _label(path)
    if file in layers:
        return
    if file in waiting:
        chain = [*waiting.values(), label]
        raise ConfigError(f"{chain[-2]}: base: files in a circle: {' -> '.join(chain)}")
    tree = _read_file(path)
    for name in _base_names(tree.pop("base", None), label):
        try:
            base = _find(name, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{label}: base: {error}") from error
        _add_with_bases(base, layers, waiting | {file: label})
    layers[file] = _Layer(label, tree)


def _base_names(base: Any, label: str) -> list[str]:
    if base is None:
        return []
    names = [base] if isinstance(base, str) else base
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    raise ConfigError(
        f"{label}: base: found {_show(base)}; must be the name of a config, or a list of names"
    )


def _read_file(path: Path) -> dict[str, Any]:
    label = _label(path)
    try:
        with open_to_read(path) as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror}") from error
    except UserError as error:
        raise ConfigError(str(error)) from None
    tree = _parse_yaml(text, label)
    if tree is None:
        raise ConfigError(f"{label}: the file is empty; a config is a mapping of keys")
    if not isinstance(tree, dict):
        raise ConfigError(f"{label}: the top level is {_show(tree)}, not a mapping of keys")
    return tree


def _read_override(override: str) -> _Layer:
    key, equals, value = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names) or len(names) > MAX_DEPTH:
        raise ConfigError(
            f"override {override!r}: must be key.sub=value, for example train.max_steps=10"
        )
    sections: list[type[Section]] = [Config]  # several where the kind is not known here
    for depth, name in enumerate(names[:-1], start=1):
        if not any(name in section.model_fields for section in sections):
            break  # an unknown key, which is reported with all the others
        sections = [kind for section in sections for kind in _kinds(section, name).values()]
        if not sections:
            whole = ".".join(names[:depth])
            raise ConfigError(f"override {override!r}: {whole} is set as a whole: {whole}=...")
    tree = _parse_yaml(value, f"override {override!r}")
    for name in reversed(names):
        tree = {name: tree}
    return _Layer("command line", tree)


def _merge_and_check(layers: Sequence[_Layer], label: str) -> Config:
    """Merge all layers, later ones over earlier ones, and check the result."""
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        tree = _merge(tree, layer.tree, Config)
        origins |= dict.fromkeys(_dotted_keys(layer.tree), layer.origin)
    return _validate(tree, label, origins)


def _merge(below: dict[str, Any], above: dict[str, Any], section: type[Section]) -> dict[str, Any]:
    """Lay `above` over `below`; a section that becomes another kind keeps nothing of the old."""
    merged = dict(below)
    for key, value in above.items():
        kinds = _kinds(section, key)
        if not kinds or not isinstance(value, dict):
            merged[key] = value
            continue
        old = merged.get(key)
        if not isinstance(old, dict):
            old = {}
        if "kind" in value and motion_kind(value) != motion_kind(old) and len(kinds) > 1:
            old = {}
        kind = _pick(kinds, value if "kind" in value else old)
        merged[key] = value if kind is None else _merge(old, value, kind)
    return merged


def _kinds(section: type[Section], key: object) -> dict[str, type[Section]]:
    """Return the schemas that the subsection at `key` may have, by kind.

    Most have one, of kind "". It is empty for a single value and for an unknown key.
    """
    field = section.model_fields.get(str(key))
    return {} if field is None else _find_sections(field.annotation)


def _find_sections(annotation: Any) -> dict[str, type[Section]]:
    """Return the sections in a type such as `A | None` or `Annotated[A, Tag("a")] | ...`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {"": annotation}
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        tags = [extra.tag for extra in arguments[1:] if isinstance(extra, Tag)]
        found = _find_sections(arguments[0])
        return {tag: schema for tag in tags for schema in found.values()} if tags else found
    if get_origin(annotation) not in (Union, UnionType):
        return {}
    return {kind: schema for part in arguments for kind, schema in _find_sections(part).items()}


def _pick(kinds: Mapping[str, type[Section]], tree: Mapping[str, Any]) -> type[Section] | None:
    """Return the schema of the section `tree`; None for one of an unknown kind."""
    return kinds[""] if "" in kinds else kinds.get(motion_kind(tree))


def _dotted_keys(tree: Mapping[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in _dotted_keys(value))


# Checks


def _validate(tree: dict[str, Any], label: str, origins: Mapping[str, str]) -> Config:
    """Check a tree and return its config.

    `origins` says in which file a dotted key was written; for other keys it is `label`.
    """
    version = tree.get("format", CONFIG_FORMAT)
    if version != CONFIG_FORMAT:
        raise ConfigError(
            f"{origins.get('format', label)}: format: found {_show(version)}; "
            f"this version of the program reads format {CONFIG_FORMAT}"
        )
    config, problems = _check(tree)
    lines = [
        f"{origins.get(problem.key.partition('[')[0], label)}: {problem.key}: {problem.text}"
        for problem in problems
    ]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        raise ConfigError(f"{len(lines)} problems in the config", lines)
    return config


def _check(tree: dict[str, Any]) -> tuple[Config, list[_Problem]]:
    """Return the config and its problems; a value that is wrong by itself gets its default."""
    problems: list[_Problem] = []
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        for details in error.errors():
            problems.append(_translate(details))
            tree = _without(tree, _field_path(details["loc"]).path)
        config = Config.model_validate(tree)
    blocked = [problem.blocks for problem in problems]
    for keys, reason in violations(config):
        if not any(_overlap(key, other) for key in keys for other in blocked):
            problems.append(_Problem(keys[0], reason, blocks=keys[0]))
    return config, problems


def _translate(error: ErrorDetails) -> _Problem:
    """Put pydantic's description of a mistake into plain words."""
    path, parent, items = _field_path(error["loc"])
    key = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        prefix = "".join(f"{name}." for name in path[:-1])
        known = list(parent.model_fields)
        hint = _nearest(str(path[-1]), known, prefix) or f"; known here: {', '.join(known)}"
        return _Problem(
            key, f"unknown key{_describe_kind(parent)}{hint}", blocks=prefix.removesuffix(".")
        )
    if error["type"] == "union_tag_invalid":
        kinds, found = ", ".join(_kinds(parent, path[-1])), error["input"]["kind"]
        return _Problem(f"{key}.kind", f"found {_show(found)}; must be one of: {kinds}", blocks=key)
    item = "".join(f"[{i}]" if isinstance(i, int) else f".{i}" for i in items if i != "[key]")
    template = ALLOWED.get(error["type"], "{message}")
    allowed = template.format(message=error["msg"], **error.get("ctx", {}))
    return _Problem(key + item, f"found {_show(error['input'])}; must be {allowed}", blocks=key)


def _describe_kind(section: type[Section]) -> str:
    """Return " of kind ..." for a section that is one of several kinds."""
    kind = section.model_fields.get("kind")
    names = get_args(kind.annotation) if kind is not None else ()
    return f" of kind {names[0]}" if len(names) == 1 else ""


class _Place(NamedTuple):
    """Where a mistake is.

    path: the names of its sections, and its key.
    parent: the schema of the last of these sections.
    items: the position in the key's value, a list or a mapping whose keys are data.
    """

    path: tuple[int | str, ...]
    parent: type[Section]
    items: tuple[int | str, ...]


def _field_path(location: Sequence[int | str]) -> _Place:
    """Read a pydantic location; it also names the kinds of sections, which are left out here."""
    section: type[Section] = Config
    parent = section
    path: list[int | str] = []
    rest = list(location)
    while rest:
        parent = section
        path.append(rest.pop(0))
        kinds = _kinds(section, path[-1])
        if "" in kinds:
            section = kinds[""]
        elif kinds and rest:
            section = kinds[str(rest.pop(0))]
        else:
            break
    return _Place(tuple(path), parent, tuple(rest))


def _without(tree: dict[str, Any], path: Sequence[Any]) -> dict[str, Any]:
    """Return a copy of `tree` without the value at `path`."""
    name, *rest = path
    if rest and name in tree:
        return tree | {name: _without(tree[name], rest)}
    return {key: value for key, value in tree.items() if key != name}


def _overlap(key: str, other: str) -> bool:
    """Whether one dotted key is or contains the other; the empty key, the root, contains all."""
    shorter, longer = sorted((key, other), key=len)
    return not shorter or f"{longer}.".startswith(f"{shorter}.")


def _nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{matches[0]}?" if matches else ""


def _show(value: Any) -> str:
    """Show a value as in YAML, on one line, and cut off if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
