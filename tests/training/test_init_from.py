"""--init-from given several times: what each file sets, what none does, and the last word."""

import pytest
import torch

import train
from branches.model import Model
from checkpoints import checkpoint
from checkpoints.checkpoint import load
from checkpoints.load_report import flatten
from tests.helpers.factories import tiny_config
from tests.helpers.kinds import ALONE, AVD, TPSMM, use_small_resnets
from tests.helpers.runs import call, error_line, step_file, tiny

ONE_STEP = ("train.max_steps=1", "train.learning_rate=0", "discriminator=null")


def write(path, networks, config, seed):
    """Write a checkpoint of networks whose weights, not trained, follow from a seed."""
    generator = torch.Generator().manual_seed(seed)
    for network in networks.values():
        for parameter in network.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    checkpoint.save(
        *(path, config, networks),
        **{"step": 1, "epoch": 1, "batch": 0},
        **{"average": None, "training": {}, "metrics": {}},
    )
    return path


def begin(folder, *paths):
    """Train one step that changes no weight; returns the exit code."""
    arguments = tiny(folder, *ONE_STEP)
    arguments = [a for a in arguments if not a.startswith("discriminator.")]
    return call(train, *arguments, *(word for path in paths for word in ("--init-from", path)))


@pytest.fixture
def parts(tmp_path):
    """Files of the motion branch alone, of the masks alone, and of motion and masks."""
    found = {}
    for seed, names in enumerate((("motion",), ("masks",), ("motion", "masks"))):
        nulls = [f"{n}=null" for n in ("motion", "masks", "background") if n not in names]
        config = tiny_config(*nulls, "discriminator=null")
        path = tmp_path / f"{'-'.join(names)}.pt"
        found["-".join(names)] = write(path, Model(config).networks, config, seed)
    return found


def weights(path):
    """The parameters in a checkpoint, without the statistics of BatchNorm, which a step changes."""
    tensors = flatten(load(path).networks).items()
    return {n: t for n, t in tensors if "running_" not in n and "num_batches" not in n}


def told(capsys, *starts):
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith(tuple(map(str, starts)))]


def test_motion_of_one_file_and_masks_of_another(parts, tmp_path, capsys):
    given = (parts["motion"], parts["masks"])
    assert begin(tmp_path / "run", *given) == 0
    sizes = [len(flatten(load(path).networks)) for path in given]
    first, second, both = told(capsys, *given, "--init-from")
    assert first == f"{given[0]}: {sizes[0]} tensors loaded"  # not one is called missing
    assert second == f"{given[1]}: {sizes[1]} tensors loaded"
    rest = [n for n in flatten(load(step_file(tmp_path / "run", 1)).networks) if "bg_" in n]
    assert both == (
        f"--init-from: {sum(sizes)} tensors loaded from 2 files; {len(rest)} keep their initial "
        f"values: {rest[0]}, {rest[1]}, {rest[2]}, and {len(rest) - 3} more"
    )
    found = weights(step_file(tmp_path / "run", 1))
    for name, tensor in (weights(given[0]) | weights(given[1])).items():
        assert torch.equal(found[name], tensor), name


def test_a_later_file_replaces_what_an_earlier_one_set(parts, tmp_path, capsys):
    for order in (("motion", "motion-masks"), ("motion-masks", "motion")):
        given = [parts[name] for name in order]
        run = tmp_path / "-then-".join(order)
        assert begin(run, *given) == 0
        _, second, both = told(capsys, *given, "--init-from")
        num_motion = len(flatten(load(parts["motion"]).networks))
        assert f" tensors loaded, {num_motion} in place of an earlier file's" in second
        num_all = len(flatten(load(parts["motion-masks"]).networks))
        assert both.startswith(f"--init-from: {num_all} tensors loaded from 2 files; ")
        found, last = weights(step_file(run, 1)), weights(given[1])
        assert all(torch.equal(found[name], tensor) for name, tensor in last.items())


def test_nothing_is_left(parts, tmp_path, capsys):
    """Then the last line names no tensor."""
    config = tiny_config("discriminator=null")
    networks = {n: m for n, m in Model(config).networks.items() if n.startswith("bg_")}
    third = write(tmp_path / "background.pt", networks, config, 3)
    assert begin(tmp_path / "run", parts["motion-masks"], third) == 0
    (line,) = told(capsys, "--init-from")
    assert line.endswith(" tensors loaded from 2 files")


def test_unused_and_reshaped_tensors_are_told_for_each_file(parts, tmp_path, capsys):
    config = tiny_config("motion.keypoint_detector.num_keypoints=5", "discriminator=null")
    other = write(tmp_path / "other.pt", Model(config).networks, config, 5)
    arguments = tiny(tmp_path / "run", *ONE_STEP, "masks=null", "background=null")
    left_out = ("discriminator.", "masks.", "background.")
    arguments = [a for a in arguments if not a.startswith(left_out)]
    given = (other, parts["motion"])
    assert call(train, *arguments, "--init-from", other, "--init-from", given[1]) == 0
    first, second, both = told(capsys, *given, "--init-from")
    assert " unused: " in first
    assert " reshaped: keypoint_detector.kp.weight is 5 x " in first
    assert "missing" not in first
    assert ";" not in second  # everything fits, so nothing of the first file is left
    assert both.endswith(" tensors loaded from 2 files")


def test_a_file_that_fits_nowhere_ends_the_start(parts, tmp_path, capsys):
    arguments = tiny(tmp_path / "run", *ONE_STEP, "motion=null", "background=null")
    left_out = ("discriminator.", "motion.", "background.")
    arguments = [a for a in arguments if not a.startswith(left_out)]
    given = ("--init-from", parts["masks"], "--init-from", parts["motion"])
    assert call(train, *arguments, *given) == 2
    line = error_line(capsys, "train.py")
    assert line.endswith(f"{parts['motion']}: no tensor fits this config's networks")


def test_a_resumed_run_names_all_that_it_leaves_out(parts, tmp_path, capsys):
    assert begin(tmp_path / "run", parts["motion"]) == 0
    capsys.readouterr()
    arguments = [a for a in tiny(tmp_path / "run", *ONE_STEP) if "discriminator." not in a]
    given = ("--init-from", parts["motion"], "--init-from", parts["masks"])
    assert call(train, *arguments, "train.max_steps=2", *given, "--resume") == 0
    assert told(capsys, "--init-from") == [
        f"--init-from {parts['motion']}, {parts['masks']}: left out, since the run continues from "
        "its own"
    ]


def test_a_second_stage_may_take_its_frozen_networks_from_two_files(tmp_path, monkeypatch, capsys):
    """Each of the files alone would leave some of them random."""
    use_small_resnets(monkeypatch)
    config = tiny_config(TPSMM, *ALONE)
    networks = Model(config).networks
    files = []
    for seed, is_first in enumerate((True, False)):
        part = {n: m for n, m in networks.items() if (n == "keypoint_detector") == is_first}
        files.append(write(tmp_path / f"{seed}.pt", part, config, seed))
    given = tiny(tmp_path / "run", TPSMM, AVD, *ALONE, "train.max_steps=1")
    assert call(train, *given, "--init-from", files[0]) == 2
    assert "inpainting would stay random" in error_line(capsys, "train.py")
    assert call(train, *given, "--init-from", files[0], "--init-from", files[1]) == 0
