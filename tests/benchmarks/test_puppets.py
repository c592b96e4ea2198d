"""benchmarks/puppets.py on a tiny run: the report, its tables and bad input."""

import json
import math

import numpy as np
import pytest

from benchmarks import puppets
from benchmarks.tables import markdown_table
from branches.model import Model
from checkpoints import checkpoint
from datasets.puppets.clips import Puppets, render
from tests.helpers.factories import tiny_config
from tests.helpers.runs import call, error_line, step_file

SMALL = ("--num-clips", 3, "--num-frames", 2)
ANIMATION = {"l1", "psnr", "ssim", "figure_l1", "figure_psnr"}
SWAP = {"psnr", "background_psnr", "figure_psnr", "swap_gain_db", "figure_gain_db"}


def measure(path, output):
    """Measure the checkpoint `path`; returns the report, which must be strict JSON, without NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    arguments = ("--checkpoint", path, "--output", output, "--markdown")
    assert call(puppets, *arguments, *SMALL) == 0
    return json.loads(output.read_text(), parse_constant=refuse)


def untrained(path, *overrides):
    """Write a checkpoint of a tiny model with its initial weights, as if after a step."""
    config = tiny_config(*overrides)
    checkpoint.save(
        path,
        config,
        Model(config).networks,
        step=1,
        epoch=0,
        batch=1,
        average=None,
        training={},
        metrics={},
    )
    return path


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    return measure(step_file(tiny_run, 8), tmp_path_factory.mktemp("benchmark") / "puppets.json")


def find(records, **case):
    (record,) = [record for record in records if case.items() <= record.items()]
    return record


def test_headline(report):
    assert (report["step"], report["split"], report["image_size"]) == (8, "test", [32, 32])
    assert (report["num_clips"], report["num_frames"]) == (3, 2)
    assert (report["animator"], report["threshold"]) == ("motion", 0.4)
    assert 0 <= report["mask_iou"] <= 1
    assert 0.1 < report["mask_iou_all_white"] < 0.5  # the puppet's share of the frame
    assert list(report["mask_iou_train"]) == [f"0.{tenth}" for tenth in range(1, 10)]
    assert all(0 <= value <= 1 for value in report["mask_iou_train"].values())
    case = {"animator": "motion", "background_type": "same", "result": "refined"}
    for driver, prefix in (("own", ""), ("another", "another_")):
        swap = find(report["background_swap"], driver=driver, **case)
        assert report[f"{prefix}swap_gain_db"] == swap["swap_gain_db"]
        assert report[f"{prefix}swap_figure_gain_db"] == swap["figure_gain_db"]


def test_swap_by_threshold(report):
    """The threshold changes which pixels count as figure, and so what is painted."""
    by_threshold = report["swap_psnr_train"]
    assert list(by_threshold) == list(report["mask_iou_train"])
    assert all(2 < value < 40 for value in by_threshold.values())


def test_animation_cases(report):
    cases = [(record["driver"], record["result"]) for record in report["animation"]]
    assert sorted(cases) == sorted([
        ("own", "motion"), ("own", "masks"), ("own", "source"), ("own", "background"),
        ("another", "motion"), ("another", "masks"), ("another", "source"),
        ("another", "driving"), ("another", "background"),
    ])  # fmt: skip
    for record in report["animation"]:
        assert record.keys() == {"driver", "result", *ANIMATION}
        assert 0 < record["l1"] < 1
        assert 0 < record["psnr"] < 100


def test_swap_cases(report):
    ways = [(kind, result) for kind in ("same", "other") for result in ("base", "refined", "alpha")]
    cases = {
        (driver, animator, *way)
        for driver in ("own", "another")
        for animator in ("motion", "masks")
        for way in [*ways, (None, "animated")]
    } | {("own", None, None, "background"), ("another", None, None, "background")}
    names = ("driver", "animator", "background_type", "result")
    found = [tuple(record[name] for name in names) for record in report["background_swap"]]
    assert len(found) == len(cases)
    assert set(found) == cases
    for record in report["background_swap"]:
        assert record.keys() == {*names, *SWAP}
        assert all(math.isfinite(record[name]) for name in SWAP)


def test_reference_rows(report):
    for driver in ("own", "another"):
        empty = find(report["background_swap"], driver=driver, result="background")
        assert empty["figure_gain_db"] == 0
        assert empty["background_psnr"] == 100


def test_baselines_by_hand(report):
    """Their L1 is the mean absolute difference to pictures that are rendered here."""
    clips = Puppets("test", 3, 4, (32, 32), 0)
    frames = [2, 3]  # evenly spread over frames 0 to 3, without the first
    found = {"source": [], "driving": [], "background": []}
    for i in range(3):
        j = (i + 1) % 3
        background = clips.background(i)
        for t in frames:
            truth = render(clips.identity(i), clips.pose(j, t), background, (32, 32)).frame
            answers = {
                "source": clips.read(i, [0])[0] / 255,
                "driving": clips.read(j, [t])[0] / 255,
                "background": clips.background_picture(i),
            }
            for name, answer in answers.items():
                found[name].append(np.abs(answer - truth).mean())
    for name, differences in found.items():
        record = find(report["animation"], driver="another", result=name)
        assert record["l1"] == pytest.approx(np.mean(differences), rel=1e-4)


def test_the_same_numbers_again(tiny_run, report, tmp_path):
    assert measure(step_file(tiny_run, 8), tmp_path / "again.json") == report


def test_the_checkpoint_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = "runs/mine/checkpoints/mine.pt"
    untrained(tmp_path / given, "masks=null", "background=null")
    assert measure(given, tmp_path / "out.json")["checkpoint"] == given
    absolute = str(tmp_path / given)
    assert measure(absolute, tmp_path / "out.json")["checkpoint"] == absolute


def test_a_report_is_small(report):
    """It has means alone, so its size depends on the number of cases and not on that of clips."""
    records = report["animation"] + report["background_swap"]
    assert not any(isinstance(value, list | dict) for each in records for value in each.values())
    assert len(json.dumps(report, indent=2)) < 20_000


def test_model_without_masks(tmp_path):
    path = untrained(tmp_path / "motion.pt", "masks=null", "background=null")
    report = measure(path, tmp_path / "out.json")
    assert not [name for name in report if "mask" in name or "gain" in name]
    assert {record["result"] for record in report["animation"]} == {
        "motion", "source", "driving", "background",
    }  # fmt: skip
    assert report["background_swap"] == []


def test_model_with_masks_alone(tmp_path):
    path = untrained(tmp_path / "masks.pt", "motion=null", "discriminator=null", "background=null")
    report = measure(path, tmp_path / "out.json")
    assert report["animator"] == "masks"
    assert report.keys() >= {"mask_iou", "mask_iou_train"}
    assert "swap_gain_db" not in report  # only BGRefine has it
    ways = {(record["background_type"], record["result"]) for record in report["background_swap"]}
    assert ways == {("other", "alpha"), (None, "animated"), (None, "background")}


@pytest.mark.parametrize(
    ("waiting", "left_out"),
    [
        (
            ("masks.refinement.start_epoch=1", "background.start_epoch=1"),
            ["masks.refinement.start_epoch: 1", "background.start_epoch: 1"],
        ),
        (("background.start_share=0.5",), ["background.start_share: 0.5"]),
    ],
)
def test_parts_that_have_not_started_are_left_out_with_a_line(tmp_path, capsys, waiting, left_out):
    report = measure(untrained(tmp_path / "mine.pt", *waiting), tmp_path / "out.json")
    assert report["left_out"] == left_out
    printed = capsys.readouterr().out
    for setting in left_out:
        section = setting.split(".start_")[0]
        assert f"left out: {section}, which at step 1 has not started ({setting})" in printed
    results = {(record["driver"], record["result"]) for record in report["animation"]}
    assert {("own", "motion"), ("own", "masks"), ("another", "motion")} <= results
    assert (("another", "masks") in results) == (len(left_out) == 1)  # it needs the refinement
    ways = {(record["background_type"], record["result"]) for record in report["background_swap"]}
    assert ways == {("other", "alpha"), (None, "animated"), (None, "background")}
    assert report.keys().isdisjoint({"swap_gain_db", "swap_psnr_train"})
    assert "mask_iou" in report


def test_default_output_and_tables(tmp_path, capsys):
    path = untrained(tmp_path / "checkpoints" / "mine.pt", "motion=null", "discriminator=null")
    assert call(puppets, "--checkpoint", path, "--markdown", *SMALL) == 0
    report = json.loads((tmp_path / "puppets.json").read_text())
    printed = capsys.readouterr().out
    assert printed.startswith(f"mask_iou {report['mask_iou']:.4f}, mask_iou_all_white 0.")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    own = find(report["animation"], driver="own", result="masks")
    digits = {"l1": 4, "psnr": 2, "ssim": 4, "figure_l1": 4, "figure_psnr": 2}
    assert ["own", "masks", *(f"{own[name]:.{n}f}" for name, n in digits.items())] in cells
    sweep = report["mask_iou_train"].values()
    assert ["mask_iou_train", *(f"{value:.4f}" for value in sweep)] in cells
    swap = find(
        report["background_swap"], driver="another", background_type="other", result="alpha"
    )
    row = next(line for line in cells if line[:4] == ["another", "masks", "other", "alpha"])
    assert row[4:] == [f"{swap[name]:.2f}" for name in list(swap)[4:]]


def test_markdown_table():
    rows = [
        {"result": "motion", "l1": 0.12345, "swap_gain_db": 11.239},
        {"result": "source", "l1": 0.5, "swap_gain_db": None},
    ]
    assert markdown_table(rows).splitlines() == [
        "| result |     l1 | swap_gain_db |",
        "| ------ | -----: | -----------: |",
        "| motion | 0.1235 |        11.24 |",
        "| source | 0.5000 |              |",
    ]


def test_a_name_stays_in_its_line_of_a_table():
    rows: list[dict[str, str | float | None]] = [{"clip\n": "a\x1b[2J\u2028b"}]
    assert markdown_table(rows).splitlines() == [
        r"| clip\n          |",
        r"| --------------- |",
        r"| a\x1b[2J\u2028b |",
    ]


@pytest.mark.parametrize(
    ("overrides", "arguments", "expected"),
    [
        (
            ("data.kind=clips", "data.root=data/vox"),
            (),
            "trained on data.kind clips; the truth can be rendered of puppets only",
        ),
        ((), ("--num-clips", 2), "--num-clips 2: source, driving clip and new background"),
        ((), ("--device", "tpu"), "--device tpu: unknown"),
        ((), ("--output", "."), "--output .: is a folder; give a file, puppets.json"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, overrides, arguments, expected):
    path = untrained(tmp_path / "mine.pt", *overrides)
    argv = [*map(str, ("--device", "cpu", "--checkpoint", path, *arguments))]
    assert puppets.run_entry_point(puppets.main, puppets.build_parser(), argv) == 2
    assert expected in error_line(capsys, "python -m benchmarks.puppets")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.pt"]
