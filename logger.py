"""Logs a training run: console, progress bar, metrics.jsonl, TensorBoard, pictures."""

import json
import math
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import say
from common.errors import UserError
from common.event_file import EventFile
from common.files import add_line, make_folder, named_failures, replacing
from common.json_files import parse_json
from common.safe_paths import read_plain_file
from media.images import write_image

METRICS_FILE, PICTURES_FOLDER = "metrics.jsonl", "pictures"
_MAX_LOG = 2**30  # bytes of metrics.jsonl
_MAX_LINES = 2**22  # of it; they take half a minute
_MAX_LINE = 2**16  # bytes of a line; those of a run have some 3,000
_MAX_UNREADABLE = 1000  # lines of it; each time that a run is killed, one may be torn


class Logger:
    """Logs one run into its folder. In all methods `step` is the number of finished steps.

    Args:
        first_step: the step that the run starts or resumes at.
        last_step: the step that the run will end at.
        logged_until: for a resumed run, by kind of scalars: the last step whose line in
            metrics.jsonl is kept. Later lines are removed, because the run writes them again. A
            kind that is missing counts as `first_step`.

    Raises:
        UserError: a file cannot be written; every method may raise this.
    """

    def __init__(
        self,
        output_dir: Path,
        first_step: int,
        last_step: int,
        logged_until: Mapping[str, int] | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.metrics_path = output_dir / METRICS_FILE
        try:
            make_folder(output_dir / PICTURES_FOLDER)
        except OSError as error:
            raise UserError(
                f"run.output_dir: {output_dir} cannot be written ({error.strerror})"
            ) from error
        _drop_later_lines(self.metrics_path, first_step, logged_until or {})
        self.events = EventFile(output_dir, first_step)
        self.bar = tqdm(
            total=last_step, initial=first_step, unit="step", dynamic_ncols=True, disable=None
        )

    def step_done(self) -> None:
        """Advance the progress bar."""
        self.bar.update(1)

    def expect(self, last_step: int) -> None:
        """Change the step that the progress bar counts to."""
        self.bar.total = last_step
        self.bar.refresh()

    def scalars(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Write scalars to metrics.jsonl and TensorBoard; `kind` is `train` or `validation`."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        # JSON has neither NaN nor infinity: null stands for both.
        line = {n: v if math.isfinite(v) else None for n, v in rounded.items()}
        add_line(self.metrics_path, json.dumps({"step": step, "kind": kind} | line))
        self.events.scalars(
            step, {f"{kind}/{n}" if "/" not in n else n: value for n, value in values.items()}
        )

    def status(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses and the discriminator's gap beside the progress bar, or print them as a
        line if there is no terminal.
        """
        shown = " ".join(
            f"{_short(name)} {value:.3g}"
            for name, value in values.items()
            if name.startswith("loss/") or name == "discriminator/gap"
        )
        speed = ""
        if "speed/samples_per_second" in values:
            speed = (
                f"{values['speed/samples_per_second']:.1f} samples/s "
                f"data {values['speed/data_share']:.0%} {values['speed/memory_gib']:.1f} GiB"
            )
        if self.bar.disable:
            self.message(f"step {step}/{self.bar.total} {speed} {shown}")
        else:
            self.bar.set_postfix_str(f"{speed} {shown}")

    def message(self, text: str) -> None:
        """Print a line to the console without breaking the progress bar."""
        say(text, sys.stderr)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, uint8 H x W x 3, as a PNG file and to TensorBoard."""
        path = self.output_dir / PICTURES_FOLDER / f"{name}-{step:08d}.png"
        write_image(path, image)
        with named_failures(path):
            png = path.read_bytes()
        self.events.picture(step, name, image.shape[:2], png)

    def close(self) -> None:
        """End the progress bar and close the TensorBoard file."""
        self.events.close()
        self.bar.close()


def _short(name: str) -> str:
    """A short label for a scalar: the last part of its name. Adversarial losses and scalars of the
    discriminator keep the part before it: discriminator/gap becomes discriminator_gap.
    """
    *_, owner, term = name.split("/")
    return f"{owner}_{term}" if owner in ("adversarial", "discriminator") else term


def _drop_later_lines(path: Path, step: int, logged_until: Mapping[str, int]) -> None:
    """Remove the lines that a run resumed at `step` will write again; see `Logger`."""
    try:
        content = read_plain_file(path, _MAX_LOG)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    num_unreadable = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        for number, line in enumerate(BytesIO(content)):  # they may be many, so none is kept
            try:
                if number >= _MAX_LINES or len(line) > _MAX_LINE:
                    raise ValueError
                entry = parse_json(line)
                if entry["step"] <= min(step, logged_until.get(entry["kind"], step)):
                    file.write(line.rstrip(b"\n") + b"\n")
            except (ValueError, KeyError, TypeError):  # a killed run tears its last line
                num_unreadable += 1
                if num_unreadable > _MAX_UNREADABLE:
                    raise UserError(
                        f"{path}: more than {_MAX_UNREADABLE} of its lines are not as a run writes "
                        "them; move it away"
                    ) from None
