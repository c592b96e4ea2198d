"""The tables of docs/results.md of a report of benchmarks/puppets.py, made by hand."""

import pytest

from benchmarks.tables import animation_table, masks_table, swap_table, thresholds_table


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def animation(driver, result, l1, psnr):
    scores = {"l1": l1, "psnr": psnr, "ssim": 0.5, "figure_l1": 2 * l1, "figure_psnr": psnr - 5}
    return {"driver": driver, "result": result, **scores}


def swap(driver, animator, background_type, result, psnr):
    return {
        "driver": driver,
        "animator": animator,
        "background_type": background_type,
        "result": result,
        "psnr": psnr,
        "background_psnr": psnr + 3,
        "figure_psnr": psnr - 3,
        "swap_gain_db": psnr / 2,
        "figure_gain_db": psnr / 4,
    }


REPORT = {
    "animator": "motion",
    "threshold": 0.5,
    "mask_iou": 0.7749,
    "mask_iou_all_white": 0.251,
    "mask_iou_train": {"0.1": 0.6321, "0.2": 0.68},
    "swap_psnr_train": {"0.1": 16.854, "0.2": 17.16},
    "animation": [
        animation("own", "motion", 0.06, 19.41),
        animation("own", "source", 0.07, 16.0),
        animation("another", "motion", 0.08, 17.0),
        animation("another", "source", 0.09, 15.0),
        animation("another", "driving", 0.2, 10.0),
    ],
    "background_swap": [  # in the order in which they are measured
        swap("own", None, None, "background", 30.0),
        swap("own", "motion", None, "animated", 29.0),
        swap("own", "motion", "same", "base", 18.0),
        swap("own", "motion", "same", "refined", 20.0),
        swap("own", "motion", "other", "alpha", 19.0),
        swap("another", "masks", "same", "refined", 16.0),
    ],
}


def test_masks():
    assert cells(masks_table(REPORT))[2:] == [
        ["masks, at `background.threshold` 0.5", "**0.77**"],
        ["all white mask", "0.25"],
    ]


def test_thresholds():
    table = cells(thresholds_table(REPORT))
    assert table[0] == ["threshold", "0.1", "0.2"]
    assert table[2:] == [["IoU", "0.632", "0.680"], ["swap, PSNR", "16.85", "17.16"]]


def test_animation():
    """What was not measured, as the masks here, has no line; no true frame is compared with
    itself.
    """
    table = cells(animation_table(REPORT))
    assert table[0] == [
        "", "own: L1", "own: PSNR", "own: figure L1",
        "another: L1", "another: PSNR", "another: figure PSNR",
    ]  # fmt: skip
    assert table[2:] == [
        ["motion", "0.0600", "19.41", "0.1200", "0.0800", "17.00", "12.00"],
        ["repeat the source", "0.0700", "16.00", "0.1400", "0.0900", "15.00", "10.00"],
        ["copy the driving frame", "", "", "", "0.2000", "10.00", "5.00"],
    ]


def test_swap():
    """Without baselines, BGRefine first, and bold where the headline has the number."""
    assert cells(swap_table(REPORT))[2:] == [
        ["own", "motion", "same", "BGRefine", "20.00", "23.00", "17.00", "**10.00**", "**5.00**"],
        ["own", "motion", "same", "BGBase", "18.00", "21.00", "15.00", "9.00", "4.50"],
        ["own", "motion", "other", "alpha", "19.00", "22.00", "16.00", "9.50", "4.75"],
        ["another", "masks", "same", "BGRefine", "16.00", "19.00", "13.00", "8.00", "4.00"],
    ]


@pytest.mark.parametrize("make", [masks_table, thresholds_table])
def test_a_model_without_masks_has_no_such_table(make):
    with pytest.raises(KeyError):
        make({"animation": REPORT["animation"], "background_swap": []})
