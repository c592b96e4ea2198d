"""Measure which masks BGBase and BGRefine need, and what they learn from other backgrounds.

    python -m benchmarks.background_inputs --checkpoint runs/demo/checkpoints/best.pt

The description of the two networks asks whether m(X) and m(Y) are redundant, since both are easy to
deduce from the cut-out pictures. Here the masks and the animation of a checkpoint trained on
puppets stay as they are, and the background branch alone is trained from scratch, once for each
variant and seed. All variants of a seed train side by side, on the same batches.

    both, source mask, driving mask, none
                    `background.inputs`; the source mask is m(X), the driving mask m(Y)
    soft            both masks; the pictures are cut out by the masks themselves
                    (`background.soft`), not by their threshold
    holes           both masks, and in half of the samples the figure of another clip leaves a hole
                    in the background too (`background.hole_probability`)
    base            both masks, and BGRefine may show BGBase's picture
                    (`background.bg_refine.skip_base`)
    holes and base  both of these
    foreign         both masks, and a quarter of the samples on the background of another clip
                    (`background.foreign_probability`)

Arguments like train.precision=float32 change keys of train in the checkpoint's config. What the
variants differ in has its published value in all others, whatever the checkpoint's config says.

The first five are trained unless --variants names others; `both` is always among them.

The swaps are those of benchmarks/puppets.py with driver own and the default animator, painted by
BGRefine, on test puppets; it explains the scores. In addition there are the scores of `base_psnr`,
BGBase's picture, and of groups of clips:

    dark figure, dark background
                    the half of the clips with the darker figure or old background, by its mean over
                    pixels and colours. The place of a cut-out is black too, so here the shape is
                    hardest to see without a mask

± is the standard deviation over seeds, and brackets hold the 95% interval over clips, of the
differences to `both` paired by clip and seed.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from animation.background_swap import BackgroundSwapper, BackgroundType
from animation.branch_animators import reconstruction_animators
from benchmarks.puppet_scenes import MIN_CLIPS, Scene, build_scene, driving_frames
from benchmarks.puppet_scores import swap_scores
from benchmarks.tables import Cell, markdown_table, summary_text
from branches.branch import StepContext, StepInputs
from branches.model import Model
from branches.outputs import MaskOutput
from checkpoints import checkpoint
from checkpoints.folder import folder_of_run
from checkpoints.perceptual_weights import load_perceptual
from checkpoints.weights import load_model
from common.batch_random import BatchRandom
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point, say
from common.errors import UserError
from common.files import check_output_file, replacing
from common.machine import keep_freed_memory
from common.seeding import torch_seed
from configs.loading import override_config
from configs.schema import Config
from datasets.build import build_pairs, build_puppets
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule
from datasets.puppets.clips import Puppets
from losses import Perceptual
from metrics.intervals import summarize
from training.acceleration import begin_step, prepare_networks
from training.auto_settings import resolve
from training.optimization import MovingAverage, Optimizer, autocast
from training.step import PreparedFrames, prepare_frames, total

_PLAIN: Final = (
    "background.inputs=[source_mask, driving_mask]",
    "background.soft=false",
    "background.hole_probability=0",
    "background.foreign_probability=0",
    "background.bg_refine.skip_base=false",
)
_HOLES: Final = "background.hole_probability=0.5"
_SKIP_BASE: Final = "background.bg_refine.skip_base=true"
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "both": (),
    "source mask": ("background.inputs=[source_mask]",),
    "driving mask": ("background.inputs=[driving_mask]",),
    "none": ("background.inputs=[]",),
    "soft": ("background.soft=true",),
    "holes": (_HOLES,),
    "base": (_SKIP_BASE,),
    "holes and base": (_HOLES, _SKIP_BASE),
    "foreign": ("background.foreign_probability=0.25",),
}
REFERENCE: Final = "both"
INPUTS: Final = ("both", "source mask", "driving mask", "none", "soft")
TYPES: Final[tuple[BackgroundType, ...]] = ("same", "other")
METRICS: Final = ("psnr", "swap_gain_db", "figure_gain_db", "base_psnr")

Scores = dict[str, dict[str, list[float]]]  # by variant, then by "type/metric": one for each clip


class Candidate:
    """A background branch that trains, beside the frozen branches of another model."""

    def __init__(self, base: Model, config: Config, device: torch.device) -> None:
        self.model = Model(config).to(device).train()
        self.model.motion, self.model.masks = base.motion, base.masks
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.model.to(memory_format=layout)
        self.optimizer = Optimizer(self.model, None, config, device)
        decay = config.train.ema_decay
        self.average = None if decay is None else MovingAverage(self.model, decay)

    @property
    def trained(self) -> Model:
        """The averaged model, or the model itself without an average."""
        return self.model if self.average is None else self.average.model

    def step(self, inputs: StepInputs, config: Config) -> None:
        """Train for one step."""
        branch = self.model.background
        assert branch is not None
        with self.optimizer.guarded_buffers():
            with autocast(config.train.precision, inputs.source.device):
                loss = total(branch.loss_terms(inputs, branch(inputs)))
            self.optimizer.backward({"model": loss})
            self.optimizer.step(loss.detach())
        if self.average is not None:
            self.average.update(self.model)


def main(arguments: argparse.Namespace) -> None:
    path, device = Path(arguments.checkpoint), pick_device(arguments.device)
    output = Path(arguments.output or folder_of_run(path) / "background_inputs.json")
    check_output_file(output, "background_inputs.json")
    if arguments.num_clips < MIN_CLIPS:
        raise UserError(f"--num-clips {arguments.num_clips}: give at least {MIN_CLIPS}")
    saved = checkpoint.load(path)
    check_checkpoint(saved)
    base = load_model(saved, device).requires_grad_(False).eval()
    for override in arguments.overrides:
        if not override.startswith("train."):
            raise UserError(f"{override}: only keys of train can be changed here")
    resolved = resolve(override_config(saved.config, arguments.overrides), device, None)
    say(resolved.line)
    if device.type == "cpu":
        keep_freed_memory()
    clips = build_puppets(saved.config.data, "test", arguments.num_clips)
    found: dict[str, Scores] = {}
    parameters: dict[str, int] = {}
    for seed in dict.fromkeys(arguments.seeds):
        config = override_config(resolved.config, [f"seed={seed}"])
        candidates = {
            name: Candidate(base, override_config(config, [*_PLAIN, *VARIANTS[name]]), device)
            for name in dict.fromkeys((REFERENCE, *arguments.variants))
        }
        parameters = {name: count_parameters(each.model) for name, each in candidates.items()}
        train(base, candidates, config, arguments.steps, device)
        trained = {name: each.trained.eval() for name, each in candidates.items()}
        found[str(seed)] = measure(trained, clips, arguments.num_frames, device)
        report = {
            "checkpoint": str(path),
            "step": saved.step,
            "steps": arguments.steps,
            "overrides": arguments.overrides,
            "num_frames": arguments.num_frames,
            "image_size": list(saved.config.data.size),
            "parameters": parameters,
            "brightness": brightness(clips, arguments.num_frames, device),
            "scores": found,
        }
        with replacing(output) as temporary:  # after each seed, so that a run cut short still tells
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{tables(report)}\n\n{output}")


def check_checkpoint(saved: checkpoint.Checkpoint) -> None:
    """Check that the checkpoint has what is needed.

    Raises:
        UserError: it was not trained on puppets, or lacks a branch.
    """
    config = saved.config
    if config.data.kind != "puppets":
        raise UserError(f"{saved.path}: trained on clips, whose truth is unknown; use puppets")
    if config.masks is None or config.background is None or saved.untrained:
        raise UserError(
            f"{saved.path}: masks or background have not been trained; give a checkpoint of "
            "demo.yaml"
        )


def train(
    base: Model,
    candidates: Mapping[str, Candidate],
    config: Config,
    num_steps: int,
    device: torch.device,
) -> None:
    """Train all candidates for `num_steps` on the batches that train.py would take."""
    perceptual = load_perceptual(config).to(device).eval()
    prepare_networks(base, None, perceptual, config.train)
    pairs = build_pairs(config)
    schedule = BatchSchedule(len(pairs), config.train.batch_size, config.seed, 0, 0, 0, 1)
    pinned = device.type == "cuda"
    with loaded_batches(pairs, schedule, config.data.num_workers, pinned) as batches:
        for step in tqdm(range(num_steps), unit="step", disable=None):
            begin_step(config.train)
            batch = next(batches).to(device)
            frames = prepare_frames(batch, config.train.channels_last is True)
            inputs = inputs_of(base, perceptual, frames, config)
            for candidate in candidates.values():
                # Each draws the same random numbers.
                generator = torch.Generator(device)
                random = BatchRandom(generator.manual_seed(torch_seed("step", config.seed, step)))
                context = inputs.context._replace(random=random)
                candidate.step(inputs._replace(context=context), config)


@torch.no_grad()
def inputs_of(
    base: Model, perceptual: Perceptual, frames: PreparedFrames, config: Config
) -> StepInputs:
    """The inputs of the background branch in a step, with the frozen masks of both frames."""
    masks = base.masks
    assert masks is not None
    with autocast(config.train.precision, frames.source.device):
        features = perceptual(frames.driving)
        source_mask = masks.mask_generator(frames.source)
        driving_mask = masks.mask_generator(frames.recolored_driving)
    context = StepContext(0.0, BatchRandom(torch.Generator(frames.source.device)), 0.0)
    # The background branch reads the first two fields alone.
    unread = frames.source
    output = MaskOutput(source_mask, driving_mask, unread, unread, None, None, unread, unread)
    inputs = StepInputs(*frames, perceptual, features, context)
    return inputs.with_output("masks", output)


def count_parameters(model: Model) -> int:
    """Number of parameters of BGBase and BGRefine."""
    assert model.background is not None
    return sum(p.numel() for p in model.background.parameters())


@torch.inference_mode()
def measure(
    models: Mapping[str, Model], clips: Puppets, num_frames: int, device: torch.device
) -> Scores:
    """The scores of each variant: means over the frames of each clip."""
    frames = driving_frames(clips, num_frames)
    animator = next(iter(reconstruction_animators(next(iter(models.values())), device).values()))
    scores: Scores = {name: {} for name in models}
    for index in tqdm(range(len(clips.clips)), unit="clip", disable=None):
        scene = build_scene(clips, index, "own", frames, device)
        animated = animator.start(scene.source)(scene.driving)
        for name, model in models.items():
            for key, value in score_swaps(model, scene, animated).items():
                scores[name].setdefault(key, []).append(value)
    return scores


def score_swaps(model: Model, scene: Scene, animated: Tensor) -> dict[str, float]:
    """Mean scores over the frames of a scene, by "type/metric"."""
    scores = {}
    for background_type in TYPES:
        swapper = BackgroundSwapper(model, background_type, "network")
        swapped = swapper.swap(animated, scene.third_images[background_type])
        assert swapped.refined is not None
        assert swapped.base is not None
        truth = (scene.figure, scene.new_background, scene.old_background)
        found = swap_scores(swapped.refined, *truth)
        found["base_psnr"] = swap_scores(swapped.base, *truth)["psnr"]
        for name in METRICS:
            scores[f"{background_type}/{name}"] = float(found[name].mean())
    return scores


@torch.inference_mode()
def brightness(clips: Puppets, num_frames: int, device: torch.device) -> dict[str, list[float]]:
    """Mean brightness of each clip's figure and of its background, in [0, 1]."""
    frames = driving_frames(clips, num_frames)
    found: dict[str, list[float]] = {"figure": [], "background": []}
    for index in range(len(clips.clips)):
        scene = build_scene(clips, index, "own", frames, device)
        colour, mask = scene.figure.color, scene.figure.foreground_mask
        found["figure"].append(float(colour.mean(dim=1).sum() / mask.sum()))
        found["background"].append(float(scene.old_background.mean()))
    return found


def tables(report: Mapping[str, Any]) -> str:
    """A table for each type of background: means of `both`, then the differences to it."""
    return "\n\n".join(table(report, background_type) for background_type in TYPES)


def table(report: Mapping[str, Any], background_type: BackgroundType) -> str:
    """The table of one type of background."""
    names = [f"{background_type}/{name}" for name in METRICS]
    groups = {"": np.ones(len(report["brightness"]["figure"]), dtype=bool)}
    for part, values in report["brightness"].items():
        groups[f"dark {part}"] = np.array(values) < np.median(values)
    lines: list[dict[str, Cell]] = []
    for variant, count in report["parameters"].items():
        line: dict[str, Cell] = {background_type: variant, "parameters": f"{count:,}"}
        for name in names:
            values = _values(report, variant, name)
            line[name.partition("/")[2]] = _cell(values, _values(report, REFERENCE, name), variant)
        gain = f"{background_type}/psnr"
        for group, chosen in groups.items():
            if group:
                values = _values(report, variant, gain)[:, chosen]
                reference = _values(report, REFERENCE, gain)[:, chosen]
                line[f"psnr, {group}"] = _cell(values, reference, variant)
        lines.append(line)
    return markdown_table(lines)


def _values(report: Mapping[str, Any], variant: str, name: str) -> NDArray[np.float64]:
    """The metric of a variant, seeds x clips."""
    return np.array([scores[variant][name] for scores in report["scores"].values()], dtype=float)


def _cell(values: NDArray[np.float64], reference: NDArray[np.float64], variant: str) -> str:
    """Mean of the reference; of another variant the difference with deviation and interval."""
    if variant == REFERENCE:
        return summary_text(summarize(values)._asdict(), ".2f")
    return summary_text(summarize(values - reference)._asdict(), ".2f", "+")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.background_inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="default: background_inputs.json in the run's folder",
    )
    parser.add_argument(
        "--steps", type=positive_int, default=600, help="steps of training (default: %(default)s)"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=INPUTS,
        metavar="NAME",
        help=f"of {', '.join(VARIANTS)}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--num-clips", type=positive_int, default=48, help="test clips (default: %(default)s)"
    )
    parser.add_argument(
        "--num-frames", type=positive_int, default=4, help="driving frames of a clip (default: 4)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
