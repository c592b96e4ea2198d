"""Published numbers: for which image size and metrics they are shown."""

import numpy as np
import pytest

from common.errors import UserError
from evaluation.published_tables import TABLES, console_text, published_table
from evaluation.report import MeasuredClip, summarize


@pytest.mark.parametrize("size", [(64, 64), (256, 128)])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match=r"--published taichi: measured on 256 x 256 pixels"):
        published_table("taichi", size)


def test_the_table_ends_with_the_models_own_numbers():
    metrics = {name: np.array([value]) for name, value in (("l1", 0.05), ("psnr", 20), ("ssim", 1))}
    clip = MeasuredClip("a", 1, metrics | {f"baseline_{name}": metrics[name] for name in metrics})
    table = console_text(published_table("vox", (256, 256)), summarize([clip]))
    rows = [line.split() for line in table.splitlines()]
    assert ["FOMM", "0.0413", "24.28", "0.791"] in rows
    assert ["this", "model", "0.0500", "20.00", "1.0000"] in rows
    assert "AKD, MKR, AED and salient metrics are not shown" in table


def test_metrics_that_depend_on_a_detector_are_left_out():
    assert {name for table in TABLES.values() for name in table.metrics} == {"l1", "psnr", "ssim"}
