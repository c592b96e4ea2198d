"""Published checkpoints: the files of other projects, by the names of our networks.

Each project has a file beside this one, which knows the names of its tensors and reads settings
from their shapes. Optimizers are left out.
"""

from collections.abc import Iterator
from typing import Any, Final

from checkpoints.published import fomm, monkey_net, perturbed_masks, tpsmm, x2face
from checkpoints.published.layout import Published
from configs.schema import Config

# Monkey-Net comes before FOMM, whose files have the same parts.
_PROJECTS: Final = (monkey_net, fomm, perturbed_masks, x2face, tpsmm)
PROJECTS: Final = tuple(project.PROJECT for project in _PROJECTS)


def convert(content: Any) -> Published | None:
    """The published checkpoint that was read as `content`; None if it is of no such layout."""
    if not isinstance(content, dict):
        return None
    for project in _PROJECTS:
        published = project.read(content)
        if published is not None:
            return published
    return None


def wrong_kind(published: Published, config: Config) -> str | None:
    """How `motion.kind` must change for `published`; None if it fits, or either has no kind."""
    if published.kind is None or config.motion is None or config.motion.kind == published.kind:
        return None
    return f"motion.kind must be {published.kind}, found {config.motion.kind}"


def problems(published: Published, config: Config) -> list[str]:
    """What must change in `config` to animate with `published`, by dotted key."""
    if published.section not in config.branches:
        return [f"{published.section} is null, and the file holds this branch"]
    kind = wrong_kind(published, config)
    if kind is not None:  # the keys of two kinds cannot be compared
        return [kind]
    others = [name for name in config.branches if name != published.section]
    if others:
        return [f"{name} must be null, since the file holds {published.section}" for name in others]
    return [*_wrong_subsections(published, config), *_wrong_settings(published, config)]


def _wrong_subsections(published: Published, config: Config) -> Iterator[str]:
    for section, is_held in published.subsections.items():
        is_null = _find(config, section) is None
        if is_held and is_null:
            yield f"{section} must not be null, since the file holds it"
        elif not is_held and not is_null:
            yield f"{section} must be null, since the file does not hold it"


def _wrong_settings(published: Published, config: Config) -> Iterator[str]:
    for key, value in published.settings.items():
        found = _find(config, key)
        if found is not None and found != value:
            yield f"{key} must be {_show(value)}, found {_show(found)}"


def _find(config: Config, key: str) -> Any:
    """The value of a dotted key; None if it is in a section that is null."""
    found: Any = config
    for name in key.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
