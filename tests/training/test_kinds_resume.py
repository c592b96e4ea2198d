"""A run of any kind that is killed goes on to the bits of one that is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from checkpoints.compare import differences
from modules import blocks
from tests.helpers import published_files
from tests.helpers.factories import tiny_config
from tests.helpers.kinds import (
    ALONE,
    AVD,
    MONKEY_NET,
    MONKEY_NET_DISCRIMINATOR,
    TPSMM,
    X2FACE,
    use_small_resnets,
)
from tests.helpers.runs import (
    PATIENCE,
    REPOSITORY,
    call,
    contents,
    environment,
    error_line,
    metrics,
    step_file,
    steps,
    tiny,
)
from training import trainer as training

LAST = 8  # steps; an epoch has 4
COMMON = (
    f"train.max_steps={LAST}",
    "train.checkpoint_every=3",
    "train.keep_checkpoints=9",
    "log.scalars_every=2",
    "log.num_validation_clips=1",
)
# Every kind, with other settings of the optimizer, the average and the starts.
RUNS = {
    "monkey_net": (
        *(MONKEY_NET, MONKEY_NET_DISCRIMINATOR, "masks=null", "background=null"),
        *("train.ema_decay=0.9", "train.clip_ratio=1.05", "train.clip_window=4"),
    ),
    "x2face": (
        *(X2FACE, *ALONE, "train.optimizer=sgd", "train.learning_rate=1e-3"),
        *("train.weight_decay=1e-3", "train.precision=bf16"),
    ),
    "tpsmm": (
        *(TPSMM, *ALONE, "train.weight_decay=1e-4", "motion.clip_infinity_norm=0.1"),
        *("motion.background_motion.start_epoch=1", "train.micro_batch=2"),
        "motion.dense_motion.dropout={start: 0.4, highest: 0.4, until_epoch: 1}",
    ),
    "tpsmm_avd": (TPSMM, AVD, *ALONE, "train.ema_decay=0.9", "train.milestones=[1]"),
}


def arguments(folder: Path, kind: str, run: str) -> list[str]:
    """Of train.py, for the run `run` of a kind; the second stage begins from the first one."""
    first = ["--init-from", str(step_file(folder / "tpsmm-whole", LAST))]
    return [
        *tiny(folder / f"{kind}-{run}", *RUNS[kind], *COMMON),
        *(first if kind == "tpsmm_avd" else []),
    ]


def kill_runs(folder: Path) -> None:
    """Train each kind in a process of its own, which kills itself in a step after a checkpoint."""
    torch.set_num_threads(1)
    blocks.MIN_FUSED_AREA = 0  # as in the process that continues
    use_small_resnets(pytest.MonkeyPatch())
    original, begun = training.train_step, iter(range(LAST))

    def train_step(*given):
        if next(begun) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given)

    training.train_step = train_step
    for kind in RUNS:
        child = os.fork()  # before any step, so that no thread is lost
        if child == 0:
            os._exit(call(train, *arguments(folder, kind, "killed")))
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, (kind, status)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a whole, a killed and a resumed run of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        use_small_resnets(patch)
        for kind in RUNS:
            assert call(train, *arguments(folder, kind, "whole")) == 0
        ended = subprocess.run(
            [sys.executable, "-m", __name__, str(folder)],
            cwd=REPOSITORY,
            env=environment(),
            timeout=PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended
        for kind in RUNS:
            assert steps(folder / f"{kind}-killed") in ([3], [3, 4])  # 4 if it is the best
            assert call(train, *arguments(folder, kind, "killed"), "--resume") == 0
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
@pytest.mark.parametrize("kind", RUNS)
def test_killed_and_resumed_equals_uninterrupted(folder, kind):
    runs = [folder / f"{kind}-{run}" for run in ("whole", "killed")]
    saved = [contents(step_file(run, LAST)) for run in runs]
    for content in saved:
        del content["config"], content["run_id"], content["training"]["seconds"]
    assert differences(*saved) == []
    rows = [
        [{n: v for n, v in line.items() if "speed/" not in n} for line in metrics(run)]
        for run in runs
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == [2, 4, 6, 8]
    assert metrics(runs[0], "validation") == metrics(runs[1], "validation")
    trained = [contents(step_file(runs[0], step))["networks"] for step in (3, LAST)]
    assert differences(*trained) != []


def test_what_these_runs_have_saved(folder):
    def content(kind):
        return contents(step_file(folder / f"{kind}-whole", LAST))

    assert set(content("x2face")["training"]["optimizer"]) >= {"sgd", "bad_steps"}
    assert content("monkey_net")["training"]["optimizer"]["clipped_steps"] > 0
    terms = ["loss/motion/background" in row for row in metrics(folder / "tpsmm-whole")]
    assert terms == [False, False, True, True]
    second, first = content("tpsmm_avd"), content("tpsmm")
    frozen = set(second["networks"]) - {"avd"}
    assert frozen == set(first["networks"])
    assert differences({n: second["networks"][n] for n in frozen}, first["networks"]) == []
    assert set(second["average"]["networks"]) == {"avd"}
    assert len(second["training"]["optimizer"]["adam"]["param_groups"]) == 1


def test_log_and_pictures_of_the_second_stage(folder):
    run = folder / "tpsmm_avd-whole"
    names = {path.name for path in (run / "pictures").iterdir()}
    kinds = ("train", "validation")
    assert names == {f"{kind}-motion-{step:08d}.png" for kind in kinds for step in (4, 8)}
    validated = metrics(run, "validation")
    assert [row["step"] for row in validated] == [4, 8]
    assert validated[0]["l1"] != validated[1]["l1"]  # by motion avd, which learns
    assert (run / "checkpoints" / "best.pt").exists()


def test_another_optimizer_cannot_continue(folder, capsys):
    given = arguments(folder, "x2face", "whole")
    capsys.readouterr()
    assert call(train, *given, "train.optimizer=adam", "--resume") == 2
    saved = step_file(folder / "x2face-whole", LAST)
    assert error_line(capsys, "train.py") == (
        f"train.py: error: train.optimizer: found adam, and {saved} was trained with sgd; set it "
        "to sgd, or start a new run from its weights with --init-from"
    )


def test_the_second_stage_needs_the_first(folder, tmp_path, monkeypatch, capsys):
    use_small_resnets(monkeypatch)
    given = tiny(tmp_path / "run", *RUNS["tpsmm_avd"], *COMMON)
    assert call(train, *given) == 2
    networks = "background_motion, dense_motion, inpainting, keypoint_detector"
    line = (
        "train.py: error: motion.avd: {} would stay random, since only avd is trained; give a "
        "checkpoint of this model trained without motion.avd to --init-from"
    )
    assert error_line(capsys, "train.py") == line.format(networks)
    other = step_file(folder / "tpsmm-whole", LAST)
    more = "motion.inpainting.num_down_blocks=1"
    assert call(train, *given, more, "--init-from", other) == 2
    assert error_line(capsys, "train.py").startswith("train.py: error: motion.avd: ")
    assert not (tmp_path / "run").exists()


def test_the_first_stage_may_lack_the_counters_of_batch_norm(tmp_path, monkeypatch, capsys):
    """Files of old versions of PyTorch have none: published ones, or others of that time."""
    use_small_resnets(monkeypatch)
    given = tiny(tmp_path / "run", TPSMM, AVD, *ALONE, *COMMON, "train.max_steps=1")
    whole = published_files.TPSMM.content(tiny_config(TPSMM, *ALONE))
    for left_out in ("running_mean", "num_batches_tracked"):
        parts = {
            part: {n: t for n, t in state.items() if not n.endswith(left_out)}
            for part, state in whole.items()
            if not part.startswith("optimizer") and part != "epoch"
        }
        assert parts["kp_detector"].keys() < whole["kp_detector"].keys()
        path = published_files.write(tmp_path / f"without-{left_out}.pth.tar", parts)
        code = call(train, *given, "--init-from", path)
        if left_out == "running_mean":  # outputs depend on it
            assert code == 2
            assert "would stay random" in error_line(capsys, "train.py")
        else:
            assert code == 0


if __name__ == "__main__":
    kill_runs(Path(sys.argv[1]))
