"""ONNX files of every kind of motion model compute what the networks do."""

import re

import pytest
import torch
from torch.testing import assert_close

from branches.model import Model
from branches.motion.monkey_net import MonkeyNetBranch
from branches.motion.tpsmm import TpsmmBranch
from checkpoints.onnx_files import files_to_write, write_onnx
from checkpoints.onnx_networks import exported_networks, solve_by_elimination
from tests.helpers.factories import noise_frames, noise_inputs
from tests.helpers.lively import KINDS, kind_config, lively_model
from tests.helpers.runs import REPOSITORY

DOCUMENTATION = (REPOSITORY / "docs" / "checkpoints.md").read_text()
TOLERANCE = 1e-4  # of coordinates, weights and colours, all of them about 1

FILES = {
    "monkey_net": ["keypoint_detector", "dense_motion", "generator"],
    "x2face": ["embedding", "driving"],
    "tpsmm": ["keypoint_detector", "background_motion", "avd", "dense_motion", "inpainting"],
}
OTHERWISE = {
    "monkey_net": (
        "motion.heatmap_divisor=sum",
        "motion.dense_motion.occlusion=true",
        "motion.dense_motion.use_difference=true",
        "motion.generator.interpolation=nearest",
    ),
    "tpsmm": ("motion.background_motion=null",),
}
CASES = [
    ("monkey_net", ()),
    ("monkey_net", OTHERWISE["monkey_net"]),
    ("x2face", ()),
    ("tpsmm", ("motion.avd.code=8",)),
    ("tpsmm", OTHERWISE["tpsmm"]),
]


@pytest.mark.parametrize(("kind", "overrides"), CASES)
def test_onnx_gives_the_same_numbers(tmp_path, kind, overrides):
    """For one and for three images, whatever the number shown when it was written."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = kind_config(kind, "data.image_size=32", "masks=null", "background=null", *overrides)
    branch = comparable_branch(config)
    paths = files_to_write(branch, config.data.size, tmp_path)
    write_onnx(paths)
    left_out = {"background_motion", "avd"} if overrides == OTHERWISE["tpsmm"] else set()
    assert [path.stem for path in paths] == [n for n in FILES[kind] if n not in left_out]
    sessions = {path.stem: runtime.InferenceSession(path) for path in paths}
    for batch in (1, 3):
        source, driving = noise_frames(2 * batch, (32, 32)).chunk(2)
        inputs = noise_inputs(config)._replace(source=source, driving=driving)
        with torch.no_grad():
            output = branch(inputs)
        found = run_all(sessions, {"source": source, "driving": driving})
        assert output.prediction.std(dim=(2, 3)).min() > 0.03  # there is something to compare
        assert (found["prediction"] - output.prediction).abs().max() < TOLERANCE
        if kind != "x2face":
            assert_close(found["motion_weights"], output.motion.motion_weights, atol=1e-4, rtol=0)
            assert_close(found["deformation"], output.motion.deformation, atol=1e-4, rtol=0)
            assert_close(
                found["source_value"], output.source_keypoints.value, atol=TOLERANCE, rtol=0
            )
        if branch.modes[-1] == "avd":
            first = [type(k)(k.value[:1], None) for k in output[:2]]
            with torch.no_grad():
                pose = branch.disentangled_pose(*first).value
            assert_close(found["avd_value"][:1], pose, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def comparable_branch(config):
    """A branch whose pictures are colourful and whose motion does not magnify rounding.

    The equations of a thin plate do where its keypoints lie close together: of an error of 1e-5 in
    a keypoint they may make one of 1e-2 in the motion, whoever solves them. So the five of a plate
    are spread over the frame.
    """
    branch = lively_model(config).motion
    if isinstance(branch, MonkeyNetBranch):
        torch.nn.init.normal_(branch.generator.final.weight, std=0.5)
    if isinstance(branch, TpsmmBranch):
        encoder = branch.keypoint_detector.fg_encoder
        encoder.fc.weight /= 2 * encoder(noise_frames(8, config.data.size)).std()
        points = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.0], [-0.5, 0.5], [0.5, 0.5]])
        logits = 2 * points.atanh()  # of 2 sigmoid(x) - 1
        encoder.fc.bias.copy_(logits.flatten().repeat(branch.num_plates))
    return branch


def run_all(sessions, known):
    """Run the networks in order: each gets its inputs by name from frames and earlier outputs."""
    for name, session in sessions.items():
        if name == "keypoint_detector":
            for frame in ("source", "driving"):
                found = run(session, {"frame": known[frame]})
                known |= {f"{frame}_{output}": tensor for output, tensor in found.items()}
            continue
        found = run(session, {entry.name: known[entry.name] for entry in session.get_inputs()})
        if name == "background_motion":
            found = {"background": found["affine"]}
        if name == "avd":
            found = {"avd_value": found["value"]}
        known |= found
    return known


def run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_documentation_names_what_is_written(kind):
    """Of each kind the files, inputs and outputs, in order, where a model has all that it can."""
    everything = {"tpsmm": ["motion.avd.code=8"]}
    config = kind_config(kind, "masks=null", "background=null", *everything.get(kind, []))
    written = [
        (exported.name, [*exported.inputs], exported.outputs)
        for exported in exported_networks(Model(config).eval().motion, config.data.size)
    ]
    rows = re.findall(r"^\|(.*)\| `(\w+)\.onnx` \|(.*)\|(.*)\|$", DOCUMENTATION, re.MULTILINE)
    documented = {}
    for of_kind, name, *columns in rows:
        if of_kind.strip():
            networks = documented.setdefault(of_kind.strip(" `"), [])
        networks.append((name, *(re.findall(r"`(\w+)`", column) for column in columns)))
    assert documented.keys() == set(KINDS)
    further = [f"occlusion_map_{i}" for i in (1, 2)]  # the page has three dots for them
    for _, inputs, outputs in documented[kind]:
        for names in (inputs, outputs):
            names += further if names[-1] == "occlusion_map_0" else []
    assert documented[kind] == written


def test_several_sources_are_averaged_by_their_weights(tmp_path):
    """As docs/checkpoints.md says, since the ONNX file embeds one source."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = kind_config("x2face", "data.image_size=32", "masks=null", "background=null")
    branch = lively_model(config).motion
    files = files_to_write(branch, config.data.size, tmp_path)
    write_onnx(files)
    paths = [*files]
    embedding = runtime.InferenceSession(paths[0])
    sources = noise_frames(3, (32, 32))
    found = run(embedding, {"source": sources})
    weight = found["weight"].unsqueeze(1)
    with torch.no_grad():
        expected = branch.encode(sources).features.image
    mean = (weight * found["face"]).sum(dim=0) / weight.sum(dim=0)
    assert_close(mean, expected[0], atol=TOLERANCE, rtol=0)


def test_elimination_solves_equations():
    """Also where the first pivot is 0, and for thin plates, whose matrix has both signs."""
    matrix = torch.randn(20, 3, 8, 8, dtype=torch.float64)
    matrix[:10, :, 0, 0] = 0
    matrix = matrix + matrix.mT
    right = torch.randn(20, 3, 8, 2, dtype=torch.float64)
    assert_close(solve_by_elimination(matrix, right), torch.linalg.solve(matrix, right))
    zero = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert_close(
        solve_by_elimination(zero, torch.tensor([[4.0], [6.0]])), torch.tensor([[2.0]] * 2)
    )
