"""What is seen of a run: progress bar, console lines, metrics.jsonl, TensorBoard, pictures."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets.images import write_image
from errors import UserError
from files import replacing

METRICS_FILE = "metrics.jsonl"


class RunningMeans:
    """Means of scalars over the steps since the last log, kept on the device.

    Non-finite values are left out of the mean and counted, so that one bad step does not hide
    the curve and the guilty loss can be named. A name need not come in every step: a loss may
    start later.
    """

    def __init__(self) -> None:
        # One vector for each set of names that came together: few operations in a step.
        self.sums: dict[tuple[str, ...], Tensor] = {}  # 3 x names: total, finite, all

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        finite = torch.isfinite(stacked)
        row = torch.stack((torch.where(finite, stacked, 0.0), finite, torch.ones_like(stacked)))
        names = tuple(values)
        self.sums[names] = self.sums[names] + row if names in self.sums else row

    def read(self) -> tuple[dict[str, float], list[str]]:
        """Means by name (NaN where no value was finite) and the names that had non-finite values.

        This is where the host waits for the device. Starts afresh.
        """
        totals: dict[str, tuple[float, float, float]] = {}
        for names, rows in self.sums.items():
            for name, *row in zip(names, *rows.tolist(), strict=True):
                total, finite, count = totals.get(name, (0.0, 0.0, 0.0))
                totals[name] = (total + row[0], finite + row[1], count + row[2])
        self.sums = {}
        means = {
            n: total / finite if finite else math.nan for n, (total, finite, _) in totals.items()
        }
        return means, [n for n, (_, finite, count) in totals.items() if finite < count]


class Logger:
    """Writes into one run folder; `step` counts finished steps."""

    def __init__(self, output_dir: Path, first_step: int, last_step: int) -> None:
        self.output_dir = output_dir
        self.metrics_path = output_dir / METRICS_FILE
        try:
            (output_dir / "pictures").mkdir(parents=True, exist_ok=True)
            _forget_after(self.metrics_path, first_step)
        except OSError as error:
            raise UserError(
                f"run.output_dir: {output_dir} cannot be written ({error.strerror})"
            ) from error
        self.tensorboard = SummaryWriter(str(output_dir), purge_step=first_step + 1)
        self.bar = tqdm(
            total=last_step, initial=first_step, unit="step", dynamic_ncols=True, disable=None
        )
        self.restart_clock()

    def step_done(self, seconds_waiting: float) -> None:
        """Advance the progress bar; `seconds_waiting` is the time this step waited for data."""
        self.num_steps += 1
        self.waiting += seconds_waiting
        self.bar.update(1)

    def speed(self, batch_size: int) -> dict[str, float]:
        """Throughput and share of time spent waiting for data since the last call, peak memory so
        far; nothing where no step was timed.
        """
        if self.num_steps == 0:
            return {}
        elapsed = time.perf_counter() - self.started
        values = {
            "speed/steps_per_second": self.num_steps / elapsed,
            "speed/samples_per_second": self.num_steps * batch_size / elapsed,
            "speed/data_share": self.waiting / elapsed,
            "speed/memory_gib": _peak_memory() / 2**30,
        }
        self.restart_clock()
        return values

    def restart_clock(self) -> None:
        """Leave what came before (validation, pictures) out of the next speed."""
        self.started, self.waiting, self.num_steps = time.perf_counter(), 0.0, 0

    def scalars(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Write scalars everywhere; `kind` is `train` or `validation`."""
        with self.metrics_path.open("a") as file:
            rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
            # NaN is no JSON: null.
            line = {n: v if math.isfinite(v) else None for n, v in rounded.items()}
            file.write(json.dumps({"step": step, "kind": kind} | line) + "\n")
        for name, value in values.items():
            tag = f"{kind}/{name}" if "/" not in name else name
            self.tensorboard.add_scalar(tag, value, step)

    def status(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses, and the gap of the discriminator, beside the bar; without a terminal,
        print a line instead.
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
        """One line for the person at the terminal."""
        tqdm.write(text, file=sys.stderr)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 H x W x 3, to TensorBoard and as PNG."""
        self.tensorboard.add_image(name, image, step, dataformats="HWC")
        write_image(self.output_dir / "pictures" / f"{name}-{step:08d}.png", image)

    def close(self) -> None:
        self.tensorboard.close()
        self.bar.close()


def _short(name: str) -> str:
    """loss/motion/perceptual as perceptual; what is no term of a branch with what it belongs to."""
    *_, owner, term = name.split("/")
    return f"{owner}_{term}" if owner in ("adversarial", "discriminator") else term


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue  # the torn last line of a killed run
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))


def _peak_memory() -> float:
    """Bytes: of the CUDA device where it is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return math.nan  # Windows has no getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
