"""Means that survive a bad step, and what a resumed run leaves in the log."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from logger import Logger, RunningMeans


def test_means_leave_bad_steps_out_and_name_them():
    means = RunningMeans()
    for a, b, c in ((1.0, math.nan, 1.0), (math.inf, math.nan, 2.0), (4.0, math.nan, 6.0)):
        means.add({"a": torch.tensor(a), "b": torch.tensor(b), "c": torch.tensor(c)})
    values, bad = means.read()
    assert values["a"] == 2.5
    assert math.isnan(values["b"])
    assert values["c"] == 3
    assert bad == ["a", "b"]


def test_means_start_anew_after_reading():
    means = RunningMeans()
    assert means.read() == ({}, [])
    means.add({"a": torch.tensor(1.0)})
    means.read()
    means.add({"a": torch.tensor(5.0, requires_grad=True).bfloat16()})
    assert means.read() == ({"a": 5.0}, [])


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


def test_resumed_run_forgets_what_it_does_again(tmp_path, open_logger):
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
    logger.step_done(seconds_waiting=0.0)
    speed = logger.speed(batch_size=4)
    assert speed["speed/samples_per_second"] == pytest.approx(4 * speed["speed/steps_per_second"])
    logger.restart_clock()  # what came before, its steps included, is out of the next speed
    assert logger.speed(batch_size=4) == {}
    assert 0 <= speed["speed/data_share"] <= 1
    terms = {"loss/motion/pixel": 1, "loss/adversarial/encoder": 2, "discriminator/gap": 0.25}
    logger.status(5, {**terms, "loss/total": 1.5, "discriminator/cut_share": 0.5, **speed})
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("step 5/10 ")
    assert line.endswith(" pixel 1 adversarial_encoder 2 discriminator_gap 0.25 total 1.5")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.output_dir: .*file.* cannot be written"):
        Logger(tmp_path / "file" / "run", 0, 10)


def test_a_name_may_come_later():
    means = RunningMeans()
    means.add({"a": torch.tensor(1.0)})
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(math.nan)})
    means.add({"a": torch.tensor(5.0), "b": torch.tensor(8.0)})
    values, not_finite = means.read()
    assert values == {"a": 3.0, "b": 8.0}
    assert not_finite == ["b"]
    assert means.read() == ({}, [])
