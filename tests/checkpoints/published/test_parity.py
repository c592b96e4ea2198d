"""Published files animate and reconstruct to the same pictures as their authors' networks.

Each test writes a file with the weights that computed the golden numbers, under their published
names and in the format of its time, and runs the scripts with it. Input and output are PNG frames.
Tests whose golden numbers are not at hand are skipped.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import animate as animate_script
import reconstruct as reconstruct_script
import train as train_script
from animation.branch_animators import animate, reconstruction_animators
from checkpoints import export
from checkpoints.checkpoint import load
from checkpoints.load_report import flatten
from checkpoints.weights import load_model
from common.cli import run_entry_point
from common.tensor_files import read_tensors
from configs.loading import dump_config, load_config, override_config
from configs.schema import Config
from media.images import read_image, write_image
from media.video import open_clip
from media.visualization import to_uint8
from tests.helpers.factories import tiny_config
from tests.helpers.golden import (
    Golden,
    GoldenMonkeyNet,
    GoldenTpsmm,
    GoldenX2Face,
    assert_within_one_grey_level,
    stored_pixels,
)
from tests.helpers.published_files import (
    FOMM,
    MONKEY_NET,
    PATCHES,
    TPSMM,
    X2FACE,
    Project,
    write,
    write_published,
)
from tests.helpers.runs import call, contents

CPU = torch.device("cpu")


# Configs of the small published networks


def golden_config(settings: dict[str, Any], *overrides: str) -> Config:
    """Config of the small published networks that computed the stored numbers.

    The rest of it is tiny, so that a step of training takes little time.
    """
    return tiny_config(
        "data.image_size=64",
        "masks=null",
        "background=null",
        *overrides,
        *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
    )


def hourglass(params: dict[str, Any]) -> dict[str, Any]:
    """Keys of an hourglass from its published settings."""
    return {
        "width": params["block_expansion"],
        "max_width": params["max_features"],
        "num_blocks": params["num_blocks"],
        "scale": float(params.get("scale_factor", 1)),
    }


def patch_channels(params: dict[str, Any]) -> list[int]:
    """Channels of the blocks of a discriminator."""
    widths = (params["block_expansion"] * 2 ** (i + 1) for i in range(params["num_blocks"]))
    return [min(params["max_features"], width) for width in widths]


def fomm_config(params: dict[str, Any]) -> Config:
    detector, generator = params["kp_detector_params"], params["generator_params"]
    discriminator = params["discriminator_params"]
    return golden_config(
        {
            "motion.keypoint_detector": {
                **hourglass(detector),
                "num_keypoints": params["common_params"]["num_kp"],
                "temperature": detector["temperature"],
            },
            "motion.dense_motion": hourglass(generator["dense_motion_params"]),
            "motion.generator": {
                "width": generator["block_expansion"],
                "max_width": generator["max_features"],
                "num_down_blocks": generator["num_down_blocks"],
                "num_res_blocks": generator["num_bottleneck_blocks"],
            },
            "discriminator.channels": patch_channels(discriminator),
            "discriminator.spectral_norm": discriminator.get("sn", False),
            "discriminator.keypoints": discriminator.get("use_kp", False),
        },
        *PATCHES,
    )


def monkey_net_config(params: dict[str, Any]) -> Config:
    detector, generator = params["kp_detector_params"], params["generator_params"]
    dense_motion = generator["dense_motion_params"]
    use_difference = dense_motion["mask_embedding_params"].get("use_difference", False)
    interpolation = generator.get("interpolation_mode", "nearest")
    return golden_config(
        {
            "motion.kind": "monkey_net",
            "motion.heatmap_divisor": generator["kp_embedding_params"]["norm_const"],
            "motion.keypoint_detector": {
                **hourglass(detector),
                "num_keypoints": params["common_params"]["num_kp"],
                "temperature": detector["temperature"],
                "min_variance": detector["clip_variance"],
            },
            "motion.dense_motion": {**hourglass(dense_motion), "use_difference": use_difference},
            "motion.generator": {
                "width": generator["block_expansion"],
                "max_width": generator["max_features"],
                "num_blocks": generator["num_blocks"],
                "num_res_blocks": generator["num_refinement_blocks"],
                "interpolation": "bilinear" if interpolation == "trilinear" else interpolation,
            },
            "discriminator.channels": patch_channels(params["discriminator_params"]),
        },
        *PATCHES,
        "discriminator.kind=monkey_net",
        "discriminator.spectral_norm=false",
        "discriminator.keypoints=true",
    )


def x2face_config(params: dict[str, Any]) -> Config:
    sizes = {
        "width": params["width"],
        "max_width": 8 * params["width"],
        "num_levels": params["num_down_blocks"],
    }
    return golden_config(
        {
            "motion.kind": "x2face",
            "motion.embedding": {**sizes, "code": params["embedding_code"]},
            "motion.driving": {**sizes, "code": params["driving_code"]},
        },
        "discriminator=null",
    )


def tpsmm_config(params: dict[str, Any]) -> Config:
    inpainting = params["generator_params"]
    return golden_config(
        {
            "motion.kind": "tpsmm",
            "motion.keypoint_detector.num_plates": params["common_params"]["num_tps"],
            "motion.dense_motion": hourglass(params["dense_motion_params"]),
            "motion.inpainting": {
                "width": inpainting["block_expansion"],
                "max_width": inpainting["max_features"],
                "num_down_blocks": inpainting["num_down_blocks"],
            },
            "motion.background_motion.start_epoch": 0,
        },
        "discriminator=null",
    )


def tpsmm_avd_config(params: dict[str, Any]) -> Config:
    """Config of the networks after the second stage of the training."""
    code = params["avd_network_params"]["pose_bottle_size"]
    return override_config(tpsmm_config(params), [f"motion.avd.code={code}"])


# Published files with the weights of these networks


class Numbers(NamedTuple):
    """Golden numbers of a small network, and the contents of its file.

    kind: class that reads the numbers.
    file: name of the file with the numbers.
    config: makes our config from the stored settings.
    parts: names of the state dicts in the published file.
    source: name of the stored source pictures.
    absolute: name of the stored pictures that absolute motion must give. A reconstruction must give
        `prediction`.
    """

    project: Project
    kind: type[Golden]
    file: str
    config: Callable[[dict[str, Any]], Config]
    parts: tuple[str, ...]
    source: str = "source"
    absolute: str = "prediction"


TPSMM_PARTS = ("kp_detector", "bg_predictor", "dense_motion_network", "inpainting_network")
ADVERSARIAL = ("generator", "kp_detector", "discriminator")
NUMBERS = {
    "fomm": Numbers(FOMM, Golden, "fomm_tiny.npz", fomm_config, ADVERSARIAL),
    **{
        f"monkey_{name}": Numbers(
            MONKEY_NET, GoldenMonkeyNet, f"monkey_{name}_tiny.npz", monkey_net_config, ADVERSARIAL
        )
        for name in ("vox", "bair")
    },
    "x2face": Numbers(
        X2FACE, GoldenX2Face, "x2face_tiny.npz", x2face_config, ("model",), "source_0"
    ),
    "tpsmm": Numbers(
        TPSMM,
        GoldenTpsmm,
        "tpsmm_tiny.npz",
        tpsmm_config,
        TPSMM_PARTS,
        absolute="prediction_no_background",
    ),
    "tpsmm_avd": Numbers(
        TPSMM,
        GoldenTpsmm,
        "tpsmm_tiny.npz",
        tpsmm_avd_config,
        (*TPSMM_PARTS, "avd_network"),
        absolute="prediction_no_background",
    ),
}


class Case(NamedTuple):
    """A folder with a published file, its config, and the stored pictures as PNG."""

    numbers: Numbers
    golden: Golden
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "published.pth.tar"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def animate(self, output: Path, index: int, *arguments: object) -> list[np.ndarray]:
        """Animate source `index` by both driving frames; returns the frames."""
        source, driving = self.folder / "source" / f"{index}.png", self.folder / "driving"
        inputs = ("--source", source, "--driving", driving)
        assert call(animate_script, *inputs, "--output", output, *arguments) == 0
        return [read_image(path) for path in sorted(output.glob("*.png"))]

    def as_published(self) -> tuple[object, ...]:
        """Options of the scripts that load the published file."""
        return ("--checkpoint", self.path, "--config", self.config)


@pytest.fixture(scope="module", params=NUMBERS)
def case(request, tmp_path_factory) -> Iterator[Case]:
    """Make a folder with a published file, its config, and the stored pictures as PNG."""
    numbers = NUMBERS[request.param]
    golden = numbers.kind(numbers.file)
    found = Case(numbers, golden, tmp_path_factory.mktemp(request.param))
    parts = {part: golden.weights(part) for part in numbers.parts}
    content: dict[str, Any] = {**parts, "epoch": 149}
    if numbers.project is X2FACE:  # no epoch, and none of the counters that came with PyTorch 0.4.1
        state = parts["model"].items()
        content = {"state_dict": {n: t for n, t in state if not n.endswith("num_batches_tracked")}}
    # Published files hold the state of optimizers, too.
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
    content |= {"optimizer": adam, "optimizer_kp_detector": adam}
    write_published(found.path, numbers.project, content)
    found.config.write_text(dump_config(numbers.config(golden.params)))
    for name, stored in (("source", numbers.source), ("driving", "driving")):
        for index, frame in enumerate(to_uint8(golden[stored])):
            write_image(found.folder / name / f"{index}.png", frame)
            # A clip of each source, followed by the driving frame.
            clip = found.folder / "clips" / "test" / f"clip{index}"
            write_image(clip / f"{name != 'source':d}.png", frame)
    yield found
    found.path.unlink()


@pytest.mark.parametrize("index", [0, 1])
def test_absolute_motion_is_the_published_one(case, tmp_path, index):
    frames = case.animate(tmp_path, index, *case.as_published(), "--motion", "absolute")
    assert_within_one_grey_level(frames[index], case.golden[case.numbers.absolute][index])


@pytest.mark.parametrize(
    ("case", "arguments", "name"),
    [
        ("fomm", ("relative", "--adapt-scale"), "prediction_relative"),
        *(
            (f"monkey_{config}", arguments, name)
            for config in ("vox", "bair")
            for arguments, name in (
                (("absolute",), "prediction_absolute"),
                (("relative",), "prediction_relative"),
                (("relative", "--adapt-scale"), "prediction_relative_adapted"),
            )
        ),
        ("tpsmm", ("absolute",), "prediction_standard"),
        ("tpsmm", ("relative",), "prediction_relative"),
        ("tpsmm_avd", ("relative",), "prediction_relative"),
        ("tpsmm_avd", ("avd",), "prediction_avd"),
    ],
    indirect=["case"],
)
def test_motion_since_the_first_driving_frame_is_the_published_one(case, tmp_path, arguments, name):
    """Source 0 is animated by frame 0, the first driving frame, and by frame 1, the next one."""
    frames = case.animate(tmp_path, 0, *case.as_published(), "--motion", *arguments)
    assert_within_one_grey_level(frames[1], case.golden[name][0])
    assert np.abs(frames[0].astype(int) - frames[1].astype(int)).max() > 1  # the picture moves


@pytest.mark.parametrize("case", ["x2face"], indirect=True)
def test_motion_without_keypoints_is_absolute(case, tmp_path):
    """Without --motion, animate.py chooses absolute motion for X2Face."""
    frames = case.animate(tmp_path, 0, *case.as_published())
    assert_within_one_grey_level(frames[0], case.golden["prediction"][0])


@pytest.mark.parametrize("case", ["x2face"], indirect=True)
def test_three_sources_of_one_figure(case, tmp_path):
    others = [tmp_path / f"{index}.png" for index in (1, 2)]
    for path, stored in zip(others, ("source_1", "source_2"), strict=True):
        write_image(path, to_uint8(case.golden[stored])[0])
    arguments = (*case.as_published(), "--more-sources", *others)
    frames = case.animate(tmp_path / "out", 0, *arguments)
    assert_within_one_grey_level(frames[0], case.golden["prediction_3_sources"][0])


def test_reconstruction_is_the_published_one(case, tmp_path, capsys):
    """Each clip is a source and its driving frame. In TPSMM the background moves, too."""
    output = tmp_path / "out"
    arguments = ("--data-root", case.folder / "clips", "--output", output, "--save-frames")
    assert call(reconstruct_script, *case.as_published(), *arguments) == 0
    assert f"{case.path}: " in capsys.readouterr().out  # the report of what was loaded
    for index in range(2):
        frames = sorted((output / "frames" / "prediction" / f"clip{index}").glob("*.png"))
        assert_within_one_grey_level(read_image(frames[1]), case.golden["prediction"][index])


def test_training_starts_from_it(case, tmp_path, capsys):
    """All tensors but blur kernels are loaded, and a step with learning rate 0 keeps them."""
    arguments = ("--config", case.config, "--init-from", case.path, "train.learning_rate=0")
    arguments += ("train.max_steps=1", f"run.output_dir={tmp_path / 'run'}")
    assert call(train_script, *arguments) == 0
    num_tensors = sum(
        not name.endswith("down.weight") for part in read_parts(case) for name in part
    )
    (report,) = [line for line in capsys.readouterr().out.splitlines() if str(case.path) in line]
    assert report == f"{case.path}: {num_tensors} tensors loaded"
    trained = flatten(contents(tmp_path / "run" / "checkpoints" / "step-00000001.pt")["networks"])
    saved = flatten(load(case.path, load_config(str(case.config))).networks)
    assert trained.keys() == saved.keys()
    for name, tensor in saved.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(trained[name], tensor), name
    shutil.rmtree(tmp_path / "run")  # that of TPSMM has 500 MB


def read_parts(case: Case) -> Iterator[dict[str, Any]]:
    """Yield the state dicts of the published file."""
    content = read_tensors(case.path)
    for part in case.numbers.parts:
        yield content["state_dict" if part == "model" else part]


def test_exported_file_makes_the_same_pictures(case, tmp_path):
    model = tmp_path / "model.pt"
    argv = [str(case.path), "--config", str(case.config), "--output", str(model)]
    assert run_entry_point(export.main, export.build_parser(), argv) == 0
    epoch = None if case.numbers.project is X2FACE else 149
    described = json.loads(model.with_suffix(".json").read_text())
    assert (described["published"], described["epoch"]) == (case.numbers.project.name, epoch)
    frames = case.animate(tmp_path / "own", 0, "--checkpoint", model)
    expected = case.animate(tmp_path / "published", 0, *case.as_published())
    assert len(frames) == 2
    for found, frame in zip(frames, expected, strict=True):
        assert np.array_equal(found, frame)
    model.unlink()


def test_reconstruction_by_masks_is_the_published_one(golden_masks, tmp_path):
    """The second of two PNG frames in a folder is reconstructed from the first."""
    kernel = golden_masks["kept/mask_generator/down.weight"]
    parts = {name: golden_masks.weights(name) for name in ("generator", "mask_generator")}
    parts["mask_generator"]["down.weight"] = kernel
    path = write(tmp_path / "vox.pth.tar", {**parts, "epoch": 99})
    for name in ("source", "driving"):
        (frame,) = to_uint8(golden_masks[name])
        write_image(tmp_path / "clip" / f"{name != 'source':d}.png", frame)
    saved = load(path, load_config("vox-masks.yaml"))
    assert saved.report is not None
    assert {name.split(".")[1] for name in saved.report.unused} == {"down_blocks"}
    frames = np.stack(list(open_clip(tmp_path / "clip")))
    (animator,) = reconstruction_animators(load_model(saved, CPU), CPU).values()
    ((_, predictions),) = animate(animator, frames[0], frames[1:])
    found = to_uint8(stored_pixels(predictions))
    assert_within_one_grey_level(found, golden_masks["high_resolution"])
