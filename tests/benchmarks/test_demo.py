"""The demo with a tiny run: its results, a second start, and a run whose parts did not start."""

import json

import pytest

import animate
import reconstruct
import train
from benchmarks import demo as run_demo
from benchmarks import puppets
from media.video import open_clip
from tests.helpers.runs import call, tiny

SCRIPTS = {"train.py": train, "reconstruct.py": reconstruct, "animate.py": animate}
ARTEFACTS = ("animation.mp4", "animation.png", "summary.json", "puppets.json",
             "reconstruction/test/index.html", "reconstruction/test/metrics.json")  # fmt: skip


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A function that makes the demo with `overrides` and returns the commands that it ran."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides):
        ran = []

        def run(script, *arguments):
            if script == "train.py":
                assert arguments == ("--config", "demo.yaml", "--resume")
                arguments = (*tiny(run_demo.RUN, *overrides), "--resume")
            ran.append(arguments[0] if script == "-m" else script)
            if script == "-m":
                size = ("--num-clips", 3, "--num-frames", 2)
                assert call(puppets, *arguments[1:], *size) == 0
            else:
                assert call(SCRIPTS[script], *arguments) == 0

        monkeypatch.setattr(run_demo, "run", run)
        run_demo.main()
        return ran

    return make


def summary():
    return json.loads((run_demo.RUN / "summary.json").read_text())


def test_the_whole_path_and_once_more(demo, capsys):
    rest = ["reconstruct.py", "benchmarks.puppets", "animate.py"]
    assert demo() == ["train.py", *rest]
    for name in ARTEFACTS:
        assert (run_demo.RUN / name).stat().st_size > 0
    assert open_clip(run_demo.RUN / "animation.mp4").size == (32, 6 * 32)
    figures = summary()
    assert figures["steps"] == 8
    assert figures["left_out"] == []
    assert figures.keys() >= {"l1_ratio", "figure_l1_ratio", "mask_iou", *run_demo.HEADLINES}
    printed = capsys.readouterr().out
    assert "8 steps in 0." in printed
    assert "background swap: " in printed
    assert "not measured" not in printed
    # Everything is there, so nothing is made again.
    assert demo() == ["train.py"]
    assert summary() == figures
    # One result is missing.
    (run_demo.RUN / "puppets.json").unlink()
    assert demo() == ["train.py", "benchmarks.puppets"]
    # One result is of another checkpoint, one of an earlier version of the demo.
    truth = json.loads(run_demo.TRUTH.read_text())
    del truth["left_out"]
    run_demo.TRUTH.write_text(json.dumps(truth))
    best = str(run_demo.RUN / "checkpoints" / "best.pt")
    assert call(reconstruct, "--checkpoint", best) == 0
    assert demo() == ["train.py", "reconstruct.py", "benchmarks.puppets"]
    # After more training all results are old.
    assert demo("train.epochs=3") == ["train.py", *rest]
    assert summary()["steps"] == 12


def test_parts_that_have_not_started_are_left_out(demo, capsys):
    """Every result is made nevertheless."""
    waiting = ("masks.refinement.start_epoch=2", "background.start_epoch=2", "train.max_steps=3")
    demo(*waiting, "train.epochs=3")
    for name in ARTEFACTS:
        assert (run_demo.RUN / name).stat().st_size > 0
    assert open_clip(run_demo.RUN / "animation.mp4").size == (32, 3 * 32)
    figures = summary()
    assert figures["left_out"] == ["masks.refinement.start_epoch: 2", "background.start_epoch: 2"]
    assert "swap_gain_db" not in figures
    printed = capsys.readouterr().out
    assert "not measured, since not started: masks.refinement.start_epoch: 2, background" in printed


@pytest.mark.parametrize("content", ["", "{", "[]", '{"checkpoint": "other.pt", "left_out": []}'])
def test_a_damaged_or_foreign_result_is_made_again(tmp_path, content, capsys):
    newest, result = tmp_path / "newest.pt", tmp_path / "puppets.json"
    newest.touch()
    result.write_text(content)
    assert run_demo.is_old(result, newest)
    result.write_text(json.dumps({"checkpoint": str(newest), "left_out": []}))
    assert not run_demo.is_old(result, newest)
    assert "was made from the newest checkpoint already" in capsys.readouterr().out
