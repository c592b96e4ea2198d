"""Means over steps, the log of a resumed run, speed, and the warning about slow data."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from configs.schema import DataConfig
from logger import METRICS_FILE, Logger
from training.diagnosis import data_warning
from training.meters import RunningMeans, StepClock


def test_means_leave_bad_steps_out_and_name_them():
    means = RunningMeans()
    for a, b, c in ((1.0, math.nan, 1.0), (math.inf, math.nan, 2.0), (4.0, math.nan, 6.0)):
        means.add({"a": torch.tensor(a), "b": torch.tensor(b), "c": torch.tensor(c)})
    values, bad = means.read()
    assert values["a"] == 2.5
    assert math.isnan(values["b"])
    assert values["c"] == 3
    assert bad == ["a", "b"]


def test_means_start_anew_after_clear():
    means = RunningMeans()
    assert means.read() == ({}, [])
    means.add({"a": torch.tensor(1.0)})
    assert means.read() == means.read() == ({"a": 1.0}, [])
    means.clear()
    means.add({"a": torch.tensor(5.0, requires_grad=True).bfloat16()})
    assert means.read() == ({"a": 5.0}, [])


def test_smallest_values_are_not_averaged():
    means = RunningMeans()
    for a, b in ((3.0, 3.0), (1.0, math.nan), (2.0, 5.0)):
        name = "motion/smallest_determinant"
        means.add({name: torch.tensor(a), "other/smallest_": torch.tensor(b)})
    values, bad = means.read()
    assert values == {"motion/smallest_determinant": 1.0, "other/smallest_": 3.0}
    assert bad == ["other/smallest_"]
    means.clear()
    means.add({name: torch.tensor(math.inf)})
    assert math.isnan(means.read()[0][name])


def test_means_continue_from_a_saved_state():
    """They are bit-equal, also for names that came later, and after a read that clears nothing."""
    steps = [{"a": 0.1, "c/smallest_d": 3.0}, {"a": 0.2, "b": math.nan}, {"a": 1e-9, "b": 5.0}]
    whole, first = RunningMeans(), RunningMeans()
    for number, step in enumerate(steps):
        values = {name: torch.tensor(value) for name, value in step.items()}
        whole.add(values)
        if number == 2:
            first.read()
            second = RunningMeans()
            second.load_state(first.state(), torch.device("cpu"))
            second.add(values)
        else:
            first.add(values)
    assert second.read() == whole.read()
    assert whole.read()[1] == ["b"]


@pytest.fixture
def open_logger(tmp_path):
    opened = []

    def open_at(step):
        opened.append(Logger(tmp_path, step, 10))
        return opened[-1]

    yield open_at
    for logger in opened:
        logger.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resumed_run_drops_the_lines_that_it_writes_again(tmp_path, open_logger):
    first = open_logger(0)
    for step in (1, 2, 3, 4):
        first.scalars(step, {"loss/total": step / 3})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "ki')  # killed while writing
    second = open_logger(2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    second.scalars(3, {"loss/total": 7.0}, kind="validation")
    assert lines(tmp_path)[0] == {"step": 1, "kind": "train", "loss/total": 0.333333}
    assert lines(tmp_path)[2] == {"step": 3, "kind": "validation", "loss/total": 7.0}


def test_lines_that_no_run_wrote(tmp_path, open_logger):
    """They are dropped if they are few, however deep they are nested."""
    path = tmp_path / METRICS_FILE
    line = b'{"step": 1, "kind": "train"}\n'
    path.write_bytes(line + b"[" * 100_000 + b"\n" + b'{"step": [1]}\n' * 999 + line)
    open_logger(5).close()
    assert path.read_bytes() == 2 * line
    path.write_bytes(line + 1001 * b"\n")
    with pytest.raises(UserError, match=f"{path}: more than 1000 of its lines are not as a run"):
        open_logger(5)


def test_the_log_of_another_takes_little_memory(tmp_path, open_logger):
    """A line of 20 bytes takes 60 where all are kept, and a list of two bytes takes 64."""
    kept = b'{"step":0,"kind":"train"}\n'
    large = b'{"step":0,"kind":"train","x":[' + b"[]," * 300_000 + b"1]}\n"
    (tmp_path / METRICS_FILE).write_bytes(large + kept * 50_000)
    tracemalloc.start()
    open_logger(4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / METRICS_FILE).read_bytes() == kept * 50_000
    assert peak < 6_000_000


def test_non_finite_scalar_is_null(tmp_path, open_logger):
    open_logger(0).scalars(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    assert lines(tmp_path) == [{"step": 1, "kind": "train", "a": None, "b": None, "c": 1.0}]


def test_picture_is_a_png_in_the_run_folder(tmp_path, open_logger):
    image = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)
    open_logger(0).picture(7, "train-motion", image)
    written = Image.open(tmp_path / "pictures" / "train-motion-00000007.png")
    assert np.array_equal(np.asarray(written), image)


def test_without_a_terminal_a_line_is_printed(capsys, open_logger):
    logger = open_logger(0)
    logger.bar.disable = True
    clock = StepClock()
    clock.step_done(waiting=0.0)
    logger.step_done()
    speed = clock.speed(batch_size=4)
    terms = {"loss/motion/pixel": 1, "loss/adversarial/encoder": 2, "discriminator/gap": 0.25}
    logger.status(5, {**terms, "loss/total": 1.5, "discriminator/cut_share": 0.5, **speed})
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("step 5/10 ")
    assert line.endswith(" pixel 1 adversarial_encoder 2 discriminator_gap 0.25 total 1.5")


class Time:
    """Replaces `time.perf_counter` by a clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def hours(monkeypatch):
    hours = Time()
    monkeypatch.setattr("time.perf_counter", hours)
    return hours


def test_speed_by_hand(hours):
    clock = StepClock()
    for waiting in (0.5, 0.1):
        hours.now += 2.0
        clock.step_done(waiting)
        hours.now += 5.0  # validation
        clock.restart()
    speed = clock.speed(batch_size=6)
    assert speed["speed/steps_per_second"] == pytest.approx(0.5)
    assert speed["speed/samples_per_second"] == pytest.approx(3.0)
    assert speed["speed/data_share"] == pytest.approx(0.15)
    assert clock.speed(batch_size=6) == {}  # no step since


@pytest.mark.parametrize(("waiting", "share"), [(0.12, 0.12), (0.08, None)])
def test_data_is_called_the_bottleneck_once(hours, waiting, share):
    """Each step takes one second; the first twenty wait for the workers to start."""
    clock, found = StepClock(), {}
    for step in range(1, 401):
        hours.now += 1.0
        clock.step_done(1.0 if step <= 20 else waiting)
        if (data_share := clock.bottleneck()) is not None:
            found[step] = data_share
    assert found == ({} if share is None else {200: pytest.approx(share)})


def test_waiting_at_the_start_is_no_bottleneck(hours):
    """A first log that comes late decides at once, from all steps since the warm-up."""
    clock = StepClock()
    for step in range(1, 1001):
        hours.now += 1.0
        clock.step_done(0.9 if step <= 110 else 0.0)
    assert clock.bottleneck() is None  # 81 of 980 seconds


@pytest.mark.parametrize(
    ("data", "packed", "cures"),
    [
        ({"kind": "puppets"}, False, ["data.num_workers"]),
        ({"root": "vox"}, True, ["data.num_workers"]),
        (
            {"root": "vox"},
            False,
            ["data.num_workers", "python -m datasets.prepare --input vox --output FOLDER"],
        ),
    ],
)
def test_warning_names_the_cure(data, packed, cures):
    line = data_warning(0.345, DataConfig(num_workers=3, **data), packed, 3)
    assert line.startswith("data is the bottleneck, 34% of the time is spent waiting for it: raise")
    assert "(now 3; " in line
    assert all(cure in line for cure in cures)
    assert ("datasets.prepare" in line) == (len(cures) == 2)


def test_warning_counts_workers_and_cores_of_a_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {4, 5, 6}, raising=False)
    monkeypatch.setattr("common.distributed.processes.world_size", lambda: 2)
    data = DataConfig(num_workers=1, kind="puppets")
    line = data_warning(0.5, data, packed=False, num_wanted=1)
    assert line.endswith("raise data.num_workers (now 1 in each process; 3 cores here)")
    line = data_warning(0.5, data, packed=False, num_wanted=4)
    assert line.endswith("data.num_workers: no more than 1 fit beside the step (3 cores here)")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.output_dir: .*file.* cannot be written"):
        Logger(tmp_path / "file" / "run", 0, 10)


def test_a_folder_of_pictures_that_is_a_link_to_nothing(tmp_path):
    (tmp_path / "pictures").symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match=r"pictures: is a link to .*none, which is missing"):
        Logger(tmp_path, 0, 1)


def test_a_name_may_come_later():
    means = RunningMeans()
    means.add({"a": torch.tensor(1.0)})
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(math.nan)})
    means.add({"a": torch.tensor(5.0), "b": torch.tensor(8.0)})
    values, not_finite = means.read()
    assert values == {"a": 3.0, "b": 8.0}
    assert not_finite == ["b"]


@pytest.mark.parametrize("is_there", [True, False])
def test_scalars_are_not_written_through_a_link(tmp_path, is_there):
    """A run folder from somebody else may hold a link: it is replaced, or the error names it."""
    victim = tmp_path / "victim"
    if is_there:
        victim.write_text("mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / METRICS_FILE).symlink_to(victim)
    logger = Logger(tmp_path / "run", 0, 10)
    if is_there:
        logger.scalars(1, {"a": 1.0})
        assert victim.read_text() == "mine\n"
    else:
        with pytest.raises(UserError, match=r"metrics\.jsonl: is a link, and nothing is written"):
            logger.scalars(1, {"a": 1.0})
        assert not victim.exists()
    logger.close()
