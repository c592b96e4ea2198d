"""Comparing two evaluations: differences worked out by hand, and runs that do not compare."""

import json
import re

import numpy as np
import pytest

import reconstruct
from common.errors import UserError
from evaluation.compare import compare_runs, differences
from evaluation.evaluations import read_evaluation
from evaluation.report import MeasuredClip, summarize, write_report
from tests.helpers.runs import error_line

DLIB = {"name": "dlib", "weights": "dlib 20", "convention": "68 landmarks", "licence": "none"}


def write_run(folder, l1, akd=None, size=64, baseline=0.3, names="abc", detector=DLIB):
    """Write an evaluation; `l1` and `akd` have a list of numbers, one per frame, for each clip."""
    clips = []
    for index, frames in enumerate(l1):
        metrics = {"l1": np.array(frames), "baseline_l1": np.full(len(frames), baseline)}
        if akd is not None:
            metrics["akd"] = np.array(akd[index])
            metrics["baseline_akd"] = metrics["akd"]
        clips.append(MeasuredClip(names[index], len(frames), metrics))
    about = {
        "checkpoint": "c.pt",
        "step": 8,
        "age": "step 8",
        "animator": "motion",
        "image_size": [size, size],
        "measured_with": {} if akd is None or detector is None else {"detector": detector},
    }
    write_report(folder, about, summarize(clips), clips)
    return folder


def compared(a, b):
    return differences(read_evaluation(a), read_evaluation(b))


def test_a_run_with_itself(tmp_path):
    run = write_run(tmp_path, [[0.1, 0.2], [0.3, 0.4], [0.5, 0.7]])
    found = compared(run, run)["l1"]
    assert found.a == found.b
    assert found.over_clips == (0, 0, 0, 3)
    assert found.over_frames == (0, 0, 0, 6)
    assert "*" not in compare_runs(run, run).split("\n\n")[1]


def test_by_hand(tmp_path):
    """Clip means differ by 0.1, 0.2, 0.3: 0.2 +- 4.302653 * 0.1 / sqrt(3)."""
    a = write_run(tmp_path / "a", [[0.1, 0.1], [0.2, 0.4], [0.5]])
    b = write_run(tmp_path / "b", [[0.2, 0.2], [0.4, 0.6], [0.8]])
    found = compared(a, b)["l1"]
    half = 4.302653 * 0.1 / 3**0.5
    assert found.over_clips == pytest.approx((0.2, 0.2 - half, 0.2 + half, 3))
    values = np.array([0.1, 0.1, 0.2, 0.2, 0.3])
    half = 2.776445 * values.std(ddof=1) / 5**0.5
    assert found.over_frames == pytest.approx((0.18, 0.18 - half, 0.18 + half, 5))
    assert (found.a, found.b) == pytest.approx((0.26, 0.44))
    row = compare_runs(a, b).splitlines()[4]
    assert row.split() == [
        *("l1", "0.2600", "0.4400", "0.2000", "-0.0484", "to", "0.4484"),
        *("0.1800", "0.0761", "to", "0.2839"),
    ]


def test_a_difference_that_leaves_out_0_is_marked(tmp_path):
    a = write_run(tmp_path / "a", [[0.1], [0.2], [0.3]])
    b = write_run(tmp_path / "b", [[0.2], [0.31], [0.4]])
    assert "*" in compare_runs(a, b).splitlines()[4]


def test_frames_that_one_lacks_are_left_out_of_both(tmp_path):
    l1 = [[0.1, 0.2], [0.3, 0.4, 0.5]]
    a = write_run(tmp_path / "a", l1, akd=[[1.0, 9.0], [2.0, 4.0, np.nan]])
    b = write_run(tmp_path / "b", l1, akd=[[2.0, np.nan], [3.0, 6.0, 9.0]])
    found = compared(a, b)["akd"]
    assert (found.a, found.b) == pytest.approx((7 / 3, 11 / 3))
    assert found.over_frames.mean == pytest.approx(4 / 3)
    assert found.over_clips.mean == pytest.approx((1.0 + 1.5) / 2)


def test_metrics_of_another_detector(tmp_path):
    l1 = [[0.1, 0.2], [0.3, 0.4]]
    a = write_run(tmp_path / "a", l1, akd=l1)
    b = write_run(tmp_path / "b", l1, akd=l1, detector=DLIB | {"name": "mediapipe"})
    table = compare_runs(a, b)
    assert "\nl1 " in table
    assert "\nakd " not in table
    assert "detector: not compared: dlib (dlib 20) in A, mediapipe (dlib 20) in B" in table
    assert "\nakd " in compare_runs(a, a)


def test_the_same_detector_used_in_another_way(tmp_path):
    l1 = [[0.1, 0.2], [0.3, 0.4]]
    a = write_run(tmp_path / "a", l1, akd=l1)
    b = write_run(tmp_path / "b", l1, akd=l1, detector=DLIB | {"convention": "eyes alone"})
    assert "detector: not compared: 68 landmarks in A, eyes alone in B" in compare_runs(a, b)


def test_a_run_that_does_not_name_its_detector(tmp_path):
    """What it used may be the same or not; two of them are compared, as before."""
    l1 = [[0.1, 0.2], [0.3, 0.4]]
    a = write_run(tmp_path / "a", l1, akd=l1)
    b = write_run(tmp_path / "b", l1, akd=l1, detector=None)
    table = compare_runs(a, b)
    assert "\nakd " not in table
    assert "detector: not compared: dlib (dlib 20) in A, an unknown tool in B" in table
    assert "\nakd " in compare_runs(b, b)
    without = compare_runs(a, write_run(tmp_path / "c", l1))
    assert "not compared" not in without  # it has no metric of a detector


def test_metrics_that_one_lacks(tmp_path):
    l1 = [[0.1, 0.2], [0.3, 0.4]]
    a, b = write_run(tmp_path / "a", l1, akd=l1), write_run(tmp_path / "b", l1)
    assert compared(a, b).keys() == {"l1"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"names": "ad"}, "/a has clips that .*/b lacks: b; evaluate both on the same clips"),
        ({"l1": [[0.1, 0.2]]}, "/a has clips that .*/b lacks: b"),
        ({"l1": [[0.1, 0.2], [0.1], [0.2]]}, "/b has clips that .*/a lacks: c"),
        ({"l1": [[0.1, 0.2], [0.1]]}, "the clip b has other frames in .*/a than in .*/b"),
        ({"baseline": 0.4}, "the clip a has other frames"),
        ({"size": 32}, "/a is of 64 x 64 pixels, .*/b of 32 x 32"),
    ],
)
def test_runs_that_do_not_compare(tmp_path, capsys, other, expected):
    l1 = [[0.1, 0.2], [0.3, 0.4]]
    a, b = write_run(tmp_path / "a", l1), write_run(tmp_path / "b", **{"l1": l1} | other)
    argv = ["--compare", str(a), str(b)]
    assert reconstruct.run_entry_point(reconstruct.main, reconstruct.build_parser(), argv) == 2
    assert re.search(expected, error_line(capsys, "reconstruct.py"))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            {"metrics.json": '{"metrics": {"l1": {}}, "step": 8}'},
            "lacks checkpoint, age, animator, im",
        ),
        ({"frames.csv": "clip,frame,l1,baseline_l1\n"}, "frames.csv has no frame in it"),
        ({"frames.csv": "clip,frame,l1\na,0,0.1\n"}, "frames.csv lacks baseline_l1"),
    ],
)
def test_an_evaluation_with_parts_missing(tmp_path, capsys, spoil, expected):
    a, b = write_run(tmp_path / "a", [[0.1]]), write_run(tmp_path / "b", [[0.1]])
    for name, content in spoil.items():
        (b / name).write_text(content)
    argv = ["--compare", str(a), str(b)]
    assert reconstruct.run_entry_point(reconstruct.main, reconstruct.build_parser(), argv) == 2
    line = error_line(capsys, "reconstruct.py")
    assert f"--compare {b}: " in line
    assert expected in line


ABOUT = {
    "image_size": (5, None, [1, 2, 3], ["a", "b"], [0, 4], {"a": 1}, "ab"),
    "metrics": (["a", 1], "ab"),
    "checkpoint": (5, None, ["a"]),
    "step": ("x", None, -1),
    "age": (None, {}),
    "animator": (1,),
    "precision": (None, []),
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, found in ABOUT.items() for v in found])
def test_a_summary_of_other_kinds(tmp_path, key, value):
    run = write_run(tmp_path, [[0.1, 0.2]])
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(
        UserError, match=rf"metrics\.json: {key}\b.*; evaluate once more$"
    ) as caught:
        read_evaluation(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e308", "-1e101"])
def test_numbers_beyond_all_metrics(tmp_path, cell):
    """Their squares, from which intervals are computed, would be infinite."""
    run = write_run(tmp_path, [[0.1, 0.125]])
    path = run / "frames.csv"
    path.write_text(path.read_text().replace("0.125", cell))
    with pytest.raises(UserError, match=r"frames\.csv: clip a: l1 is infinite or above 1e\+100"):
        read_evaluation(run)


def test_folders_without_an_evaluation(tmp_path, capsys):
    run = write_run(tmp_path / "a", [[0.1]])
    for content in (None, "{}", "[1]", "hello"):
        if content is not None:
            (tmp_path / "metrics.json").write_text(content)
        argv = ["--compare", str(run), str(tmp_path)]
        assert reconstruct.run_entry_point(reconstruct.main, reconstruct.build_parser(), argv) == 2
        assert f"--compare {tmp_path}: no metrics.json" in error_line(capsys, "reconstruct.py")


def test_names_are_no_formulas_in_the_tables(tmp_path):
    """A clip name that spreadsheets would run is escaped, and read back as it was."""
    names = ("=1+1", "-a", "'=b")
    run = write_run(tmp_path, [[0.1, 0.2], [0.3], [0.5]], names=names)
    for name in ("metrics.csv", "frames.csv"):
        cells = [line.split(",")[0] for line in (tmp_path / name).read_text().splitlines()[1:]]
        assert [*dict.fromkeys(cells)] == ["'=1+1", "'-a", "''=b"]
    assert set(read_evaluation(run).clips) == set(names)


@pytest.mark.parametrize("name", ["../../x", "a\x1b[2J", "", "a/b"])
def test_names_that_are_not_allowed(tmp_path, name):
    write_run(tmp_path, [[0.1, 0.2]])
    table = (tmp_path / "frames.csv").read_text()
    (tmp_path / "frames.csv").write_text(table.replace("\na,", f"\n{name},"))
    with pytest.raises(UserError, match=r"frames\.csv: clip .* cannot be a name") as caught:
        read_evaluation(tmp_path)
    assert str(caught.value).isprintable()


def test_deeply_nested_json_is_no_evaluation(tmp_path):
    write_run(tmp_path, [[0.1, 0.2]])
    (tmp_path / "metrics.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"no metrics\.json and frames\.csv"):
        read_evaluation(tmp_path)
