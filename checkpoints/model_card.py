"""The model card of a checkpoint for sharing: what the model is, its data, metrics and licence.

It follows Mitchell et al. 2019, "Model Cards for Model Reporting", as far as a checkpoint knows the
answers; what only its author knows is marked. The head in YAML is what the Hugging Face hub reads.
"""

import html
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from checkpoints.checkpoint import Checkpoint
from common.files import name_as_text
from common.safe_paths import printable
from configs.loading import dump_config
from configs.schema import BRANCHES

_TO_FILL_IN: Final = "**To be filled in:**"
# For these data nobody was filmed.
_PUPPETS: Final = "Puppets that this program draws: no person is in them."
_IN_CODE: Final = str.maketrans({"`": "'", "|": "/", "<": "&lt;"})  # there no escape would work
_MARKS: Final = re.compile(r"([\\`*_{}\[\]|#~])")


def model_card(small: Checkpoint, path: Path) -> str:
    """The card, in Markdown, of the file at `path`, which `small` was written to."""
    sections = {
        "Use": _use(path),
        "Model": _model(small),
        "Data": _data(small),
        "Metrics": _metrics(small),
        "Limits": (
            "The model moves pictures of people. Do not use it on people who have not agreed, and "
            "say of a result that it was generated. It works best on pictures like those of its "
            "training."
        ),
        "Licence": _licence(small),
        "Config": f"Every key, paths included, as stored in the file:\n\n{_fenced(small)}",
    }
    licence = str(small.provenance.get("licence") or "unknown")
    head = f"---\nlicense: {_in_quotes(licence)}\ntags:\n- image-animation\n---\n"
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{head}\n# {_inline(path.stem)}\n\n{body}\n"


def _use(path: Path) -> str:
    name = shlex.quote(printable(name_as_text(path.name)))
    return (
        "```bash\n"
        f"python animate.py --checkpoint {name} --source source.png --driving driving.mp4 "
        "--output result.mp4\n"
        "```\n\n"
        "The file has the weights and the config; no code in it is run. "
        f"{_code(f'{path.stem}.json')} has its SHA-256."
    )


def _model(small: Checkpoint) -> str:
    config = small.config
    height, width = config.data.size
    kind = "" if config.motion is None else f" ({config.motion.kind})"
    branches = [
        name + (kind if name == "motion" else "")
        for name in BRANCHES
        if getattr(config, name) is not None
    ]
    tensors = [t for state in small.evaluation_networks.values() for t in state.values()]
    count = sum(tensor.numel() for tensor in tensors)
    rows = {
        "branches": ", ".join(branches),
        "pictures": f"{width} x {height} pixels",
        "size": f"{count:,} numbers in {len(tensors)} tensors",
        "trained": f"{small.age}; {small.provenance['weights']} {small.stored}",
        "exported from": str(small.provenance["exported_from"]),
    }
    if "branches_from" in small.provenance:
        rows["with branches from"] = str(small.provenance["branches_from"])
    return _table(("", ""), rows)


def _data(small: Checkpoint) -> str:
    data = small.config.data
    if "published" in small.provenance:
        project = _inline(str(small.provenance["published"]))
        return f"Those of the published file of {project}; see its authors' pages."
    if data.kind == "puppets":
        return _PUPPETS
    name = _code(Path(data.root or "").name)
    return (
        f"The clips of a folder {name}, split `train`.\n\n"
        f"{_TO_FILL_IN} what these clips are, who is in them, whether they agreed, and under which "
        "licence the clips may be used."
    )


def _metrics(small: Checkpoint) -> str:
    found = {name: value for name, value in small.metrics.items() if math.isfinite(value)}
    if not found:
        return f"None are stored with these weights.\n\n{_TO_FILL_IN} those of `reconstruct.py`."
    log, is_half = small.config.log, "dtype" in small.provenance
    rows = {_code(name): f"{value:.4f}" for name, value in found.items()}
    rounded = " All are those of the weights before they were rounded." if is_half else ""
    return (
        f"Validation during the training: at most {log.num_validation_clips} clips of the split "
        f"`test`, {log.num_validation_frames} frames each, reconstructed from the first one; "
        "`baseline_` is the source repeated. The best checkpoint of a run was chosen by such "
        f"numbers.{rounded}\n\n{_table(('metric', 'mean'), rows)}\n\n"
        f"{_TO_FILL_IN} the full evaluation by `reconstruct.py`."
    )


def _licence(small: Checkpoint) -> str:
    given = small.provenance.get("licence")
    if given is not None:
        stated = f"Of the weights: {_inline(str(given))}."
    elif "published" in small.provenance:
        stated = (
            f"The weights are those of a file of {_inline(str(small.provenance['published']))}: "
            "the licence of its authors holds."
        )
    else:
        stated = (
            f"{_TO_FILL_IN} the licence of these weights (`--licence`). Without one nobody may use "
            "them. It must be one that the licence of the training data allows: many data sets are "
            "for research only."
        )
    return f"{stated}\n\nThe licence of the code does not cover weights."


def _fenced(small: Checkpoint) -> str:
    """The config as a block of YAML, whose fence no text in it can end."""
    text = dump_config(small.config)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}yaml\n{text}{fence}"


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [head, ("---", "---"), *((name, _inline(str(value))) for name, value in rows.items())]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def _inline(text: str) -> str:
    """Text of others for use within a line: no line ends, and nothing that Markdown marks up."""
    return _MARKS.sub(r"\\\1", html.escape(printable(name_as_text(text)), quote=False))


def _code(text: str) -> str:
    """Text of others as code within a line; what could end the code or a column is replaced."""
    return f"`{printable(name_as_text(text)).translate(_IN_CODE)}`"


def _in_quotes(text: str) -> str:
    """A string of YAML; names without odd characters stay as they are."""
    if text.replace("-", "").replace(".", "").isalnum():
        return text
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
