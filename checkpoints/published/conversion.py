"""Converts the published checkpoints of other projects to the names of our networks.

Each project has a module in this package, which lists the parts of its files, renames the tensors
and derives settings from their shapes. Optimizers are left out, and so are blur kernels
(`down.weight`), since ours follow from the scale.
"""

from collections.abc import Iterator
from typing import Any, Final

from checkpoints.published import fomm, monkey_net, perturbed_masks, tpsmm, x2face
from checkpoints.published.layout import Published
from configs.loading import load_config
from configs.schema import Config

# Monkey-Net comes before FOMM: their files have the same parts, but only the kernels of Monkey-Net
# have five axes.
_PROJECTS: Final = (monkey_net, fomm, perturbed_masks, x2face, tpsmm)
PROJECTS: Final = tuple(project.PROJECT for project in _PROJECTS)


def convert(content: Any) -> Published | None:
    """Convert the content of a file; None if it is not a published checkpoint.

    Raises:
        Exception: of any kind, if the parts are those of a published file but the tensors are not.
    """
    if not isinstance(content, dict):
        return None
    for project in _PROJECTS:
        published = project.read(content)
        if published is not None:
            return published
    return None


def wrong_branch(published: Published, config: Config) -> str | None:
    """Say why `config` has no branch for the networks of `published`; None if it has one."""
    if published.section not in config.branches:
        return f"{published.section} is null, and the file holds this branch"
    if config.motion is not None and published.kind not in (None, config.motion.kind):
        return f"motion.kind must be {published.kind}, found {config.motion.kind}"
    return None


def problems(published: Published, config: Config) -> list[str]:
    """Say which keys of `config` must change to animate with `published`."""
    reason = wrong_branch(published, config)
    if reason is not None:  # then there are no keys to compare
        return [reason]
    others = [name for name in config.branches if name != published.section]
    if others:
        return [f"{name} must be null, since the file holds {published.section}" for name in others]
    return [*_wrong_subsections(published, config), *_wrong_settings(published, config)]


def fitting_config(published: Published) -> str:
    """Name the shipped config whose networks are most like those of the file.

    It may be for another data set with the same networks. If several are equally like them, the
    first of `published.configs` is named.
    """

    def num_problems(name: str) -> tuple[int, int]:
        config = load_config(name)
        wrong = _wrong_subsections(published, config), _wrong_settings(published, config)
        return len([*wrong[0]]), len([*wrong[1]])

    return min(published.configs, key=num_problems)


def _wrong_subsections(published: Published, config: Config) -> Iterator[str]:
    """Name the sections that are null although the file holds their network, or the reverse."""
    for section, is_held in published.subsections.items():
        is_null = _find(config, section) is None
        if is_held and is_null:
            yield f"{section} must not be null, since the file holds it"
        elif not is_held and not is_null:
            yield f"{section} must be null, since the file does not hold it"


def _wrong_settings(published: Published, config: Config) -> Iterator[str]:
    """Name the keys whose values differ from those that follow from the shapes of the tensors."""
    for key, value in published.settings.items():
        found = _find(config, key)
        if found is not None and found != value:
            yield f"{key} must be {_show(value)}, found {_show(found)}"


def _find(config: Config, key: str) -> Any:
    """Return the value of a dotted key; None if one of its sections is null."""
    found: Any = config
    for name in key.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _show(value: Any) -> str:
    """Format a value as a config file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
