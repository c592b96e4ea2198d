"""Files of the published layouts animate and reconstruct as their authors' networks do."""

from pathlib import Path

import numpy as np
import pytest
import torch

import animate as animate_script
from animation.branch_animators import animate, reconstruction_animators
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from configs.loading import dump_config, load_config, override_config
from configs.schema import Config
from media.images import read_image, write_image
from media.video import open_clip
from media.visualization import to_uint8
from tests.helpers.golden import stored_pixels
from tests.helpers.published_files import write
from tests.helpers.runs import call

CPU = torch.device("cpu")


def golden_config(golden) -> Config:
    """Of the small published network that the stored numbers are from."""
    detector, generator = golden.params["kp_detector_params"], golden.params["generator_params"]
    dense_motion = generator["dense_motion_params"]
    sections = {
        "keypoint_detector": {
            "num_keypoints": golden.params["common_params"]["num_kp"],
            **hourglass(detector),
            "temperature": detector["temperature"],
        },
        "dense_motion": hourglass(dense_motion),
        "generator": {
            "width": generator["block_expansion"],
            "max_width": generator["max_features"],
            "num_down_blocks": generator["num_down_blocks"],
            "num_res_blocks": generator["num_bottleneck_blocks"],
        },
    }
    overrides = [
        f"motion.{section}.{key}={value}"
        for section, values in sections.items()
        for key, value in values.items()
    ]
    scales = "perceptual.scales=[1.0, 0.5, 0.25]"
    return override_config(load_config("vox-fomm.yaml"), ["data.image_size=64", scales, *overrides])


def hourglass(params) -> dict:
    return {
        "width": params["block_expansion"],
        "max_width": params["max_features"],
        "num_blocks": params["num_blocks"],
        "scale": params["scale_factor"],
    }


@pytest.fixture(scope="module")
def fomm_files(golden, tmp_path_factory) -> Path:
    """A folder with a published file, its config, and the stored pictures as PNG."""
    folder = tmp_path_factory.mktemp("fomm")
    parts = {name: golden.weights(name) for name in ("generator", "kp_detector", "discriminator")}
    write(folder / "vox-adv-cpk.pth.tar", {**parts, "epoch": 149})
    (folder / "config.yaml").write_text(dump_config(golden_config(golden)))
    for name in ("source", "driving"):
        for index, frame in enumerate(to_uint8(golden[name])):
            write_image(folder / name / f"{index}.png", frame)
    return folder


def assert_within_one_grey_level(found: np.ndarray, expected: torch.Tensor) -> None:
    expected_grey = 255 * expected.movedim(-3, -1).numpy()
    assert found.shape == expected_grey.shape
    assert np.abs(found.astype(np.float32) - expected_grey).max() <= 1


@pytest.mark.parametrize("index", [0, 1])
def test_absolute_motion_is_the_published_one(golden, fomm_files, tmp_path, index):
    """PNG frames in, PNG frames out."""
    arguments = ("--checkpoint", fomm_files / "vox-adv-cpk.pth.tar")
    arguments += ("--config", fomm_files / "config.yaml", "--motion", "absolute")
    arguments += ("--source", fomm_files / "source" / f"{index}.png")
    arguments += ("--driving", fomm_files / "driving", "--output", tmp_path / "out")
    assert call(animate_script, *arguments) == 0
    frame = read_image(sorted((tmp_path / "out").glob("*.png"))[index])
    assert_within_one_grey_level(frame, golden["prediction"][index])


def test_relative_motion_with_adapted_scale_is_the_published_one(golden, fomm_files, tmp_path):
    """Source 0, driven by frame 1 since frame 0."""
    arguments = ("--checkpoint", fomm_files / "vox-adv-cpk.pth.tar")
    arguments += ("--config", fomm_files / "config.yaml", "--motion", "relative", "--adapt-scale")
    arguments += ("--source", fomm_files / "source" / "0.png")
    arguments += ("--driving", fomm_files / "driving", "--output", tmp_path / "out")
    assert call(animate_script, *arguments) == 0
    frame = read_image(sorted((tmp_path / "out").glob("*.png"))[1])
    assert_within_one_grey_level(frame, golden["prediction_relative"][0])
    still = read_image(sorted((tmp_path / "out").glob("*.png"))[0])
    assert np.abs(still.astype(int) - frame.astype(int)).max() > 1  # it does move


def test_reconstruction_by_masks_is_the_published_one(golden_masks, tmp_path):
    """A folder of two PNG frames: the first, reconstructed as the second."""
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
