"""Animate images with the motion of videos, and put them on another background if one is given.

Without --source and --driving, the first clips of the test split of its data set are used: one clip
animates another, and a third one is the background if there are masks that cut the figure out.

--driving camera:0 animates one image by a camera, and shows it on a page on this machine.

Many animations on several GPUs: torchrun --nproc-per-node 4 animate.py --pairs pairs.csv ...
"""

import argparse
import sys
import traceback
import zlib
from collections.abc import Sequence
from pathlib import Path

import common.openmp  # noqa: F401

from tqdm import tqdm

from animation import options
from animation.animator import Animator
from animation.job_list import is_many, list_jobs, read_pairs
from animation.jobs import Job, JobOptions, JobResult, check_outputs, run_job
from animation.live.options import add_live_options, read_live_options
from animation.live.session import run_live
from animation.options import FORMATS, read_options
from animation.results_table import Results, Row
from checkpoints.checkpoint import Checkpoint
from checkpoints.folder import default_checkpoint, folder_of_run
from common.cli import end_on_sigterm, pick_device, run_entry_point, say
from common.distributed import processes as distributed
from common.distributed.torchrun_agent import ending_with_agent
from common.distributed.work_queue import Result, WorkQueue, shared_queue
from common.errors import UserError, ends_all, in_one_line
from common.machine import keep_freed_memory
from common.safe_paths import exists, is_file, is_folder, printable, resolve
from media.camera import is_camera

RESTART_ADVICE = "start again with --skip-existing"  # what to do if a process is gone


def main(arguments: argparse.Namespace) -> int:
    with ending_with_agent(), distributed.process_group(arguments.join_timeout, RESTART_ADVICE):
        with distributed.shared_errors(), distributed.warned_once():
            path = Path(arguments.checkpoint) if arguments.checkpoint else default_checkpoint()
            is_live = is_camera(arguments.driving)
            if is_live and distributed.world_size() > 1:
                raise UserError(
                    "a camera takes a single process; start animate.py without torchrun"
                )
            if arguments.port is not None and not is_live:
                raise UserError(
                    "--port is for the page of a camera (--driving camera:0); leave it out"
                )
        if is_live:
            live_options = read_live_options(arguments)
            run_live(load_animator(arguments, path), live_options)
            return 0
        with distributed.shared_errors(), distributed.warned_once():
            jobs, results = choose_jobs(arguments, path)
            check_outputs(
                jobs,
                arguments.audio,
                save_masks=arguments.save_masks,
                masks=arguments.masks,
                background_masks=arguments.background_masks,
            )
            if results is not None and not arguments.skip_existing:
                results.require_own(job.output for job in jobs)
            if results is None and distributed.world_size() > 1:
                raise UserError(
                    "a single animation takes a single process; start animate.py without torchrun"
                )
            job_options = read_options(arguments)
        animator = load_animator(arguments, path)
        if results is None:
            print(describe(run_one(animator, jobs[0], job_options), animator.saved))
            return 0
        outputs = "\n".join(str(job.output) for job in jobs)
        checksum = zlib.crc32(outputs.encode(errors="surrogateescape"))
        distributed.check_agreement({"animations": len(jobs), "checksum of outputs": checksum})
        return run_jobs(
            animator,
            jobs,
            results,
            job_options,
            skip_existing=arguments.skip_existing,
            debug=arguments.debug,
        )


def load_animator(arguments: argparse.Namespace, path: Path) -> Animator:
    """Load the model, in every process on a device of its own, and say how it computes.

    Rank 0 is first: it chooses the precision by a timed trial, which might end otherwise elsewhere.
    """
    precision, animator = arguments.precision, None
    for is_turn in (distributed.is_main(), not distributed.is_main()):
        with distributed.shared_errors(), distributed.warned_once():
            if is_turn:
                device = pick_device(arguments.device, distributed.local_rank())
                animator = Animator.load(
                    path,
                    arguments.config,
                    str(device),
                    precision,
                    arguments.compile,
                    arguments.max_pixels,
                )
        chosen = None if animator is None else animator.precision.precision
        precision = distributed.gather(chosen)[0]
    assert animator is not None
    if animator.device.type == "cpu":
        keep_freed_memory()
    if animator.saved.report is not None:
        distributed.say_once(f"{path}: {animator.saved.report}")
    count, device = distributed.world_size(), animator.device
    devices = f"{count} x {device.type}" if count > 1 else device
    distributed.say_once(f"networks in {animator.precision} on {devices}")
    return animator


def choose_jobs(arguments: argparse.Namespace, path: Path) -> tuple[list[Job], Results | None]:
    """The jobs to run, and a table of results if they are many; None for a single animation."""
    source, driving, background = arguments.source, arguments.driving, arguments.background
    output = None if arguments.output is None else Path(arguments.output)
    suffix = FORMATS[arguments.format or "mp4"]
    if (source is None) != (driving is None):
        raise UserError("--source and --driving belong together: an image and a clip")
    has_pairs = arguments.pairs is not None
    if has_pairs and source is not None:
        raise UserError("--pairs names sources and driving clips; leave --source and --driving out")
    if arguments.allow_outside and not has_pairs:
        raise UserError("--allow-outside is for --pairs; leave it out")
    more_sources = tuple(arguments.more_sources or ())
    if more_sources and (source is None or is_folder(Path(source))):
        raise UserError(
            "--more-sources: shows the figure of one --source; give its image, or leave the option "
            "out"
        )
    if has_pairs or (source is not None and is_many(source, driving)):
        is_video = output is not None and output.suffix and output.suffix in FORMATS.values()
        if output is None or is_video or is_file(output):
            raise UserError("--output: many animations go to a folder; give its name")
        if has_pairs:
            jobs = read_pairs(
                Path(arguments.pairs),
                background,
                output,
                suffix,
                allow_outside=arguments.allow_outside,
            )
        else:
            for option, path in (("source", source), ("driving", driving)):
                if resolve(output) == resolve(Path(path)):
                    raise UserError(
                        f"--output {output}: is the folder of --{option}; results in it would be "
                        "taken for inputs the next time; choose another"
                    )
            jobs = list_jobs(source, driving, background, output, suffix)
        return [job._replace(more_sources=more_sources) for job in jobs], Results(output)
    for option in ("format", "skip_existing"):
        if getattr(arguments, option):
            raise UserError(
                f"--{option.replace('_', '-')} is for many animations: folders, or --pairs; leave "
                "it out"
            )
    if output is None:
        if source is not None:
            raise UserError("--output is missing: out.mp4, or a folder for lossless png frames")
        output = folder_of_run(path) / "animation.mp4"
    return [Job(source, driving, background, output, more_sources)], None


def run_jobs(
    animator: Animator,
    jobs: Sequence[Job],
    results: Results,
    options: JobOptions,
    *,
    skip_existing: bool,
    debug: bool,
) -> int:
    """Run the jobs; a job that fails is noted and the others still run.

    Each process takes the next job when it has finished one. Returns the exit code.
    """
    num_failed = 0
    is_shown = distributed.is_main() and distributed.world_size() > 1
    with tqdm(total=len(jobs), unit="animation", disable=None if is_shown else True) as bar:

        def receive(_: int, result: Result) -> None:
            nonlocal num_failed
            row: Row = result.values
            num_failed += row["status"] == "failed"
            if row["status"] == "skipped":
                results.keep(row)
            else:
                results.add(row)
            bar.update()

        results.expect([str(job.output) for job in jobs])
        with shared_queue(len(jobs), receive) as queue:
            for index in queue:
                job = jobs[index]
                row = {
                    "output": str(job.output),
                    "status": "skipped",
                    "source": str(job.source),
                    "driving": str(job.driving),
                    "background": job.background or "",
                }
                if not (skip_existing and exists(job.output)):
                    say(f"{index + 1} of {len(jobs)}: {job.source} by {job.driving}")
                    row |= run_noted(animator, job, options, queue, debug=debug)
                queue.hand_in(index, Result(row))
    if distributed.is_main():
        say(f"{results.path}: {len(jobs)} animations, {num_failed} failed")
    return 1 if num_failed else 0


def run_noted(
    animator: Animator, job: Job, options: JobOptions, queue: WorkQueue, *, debug: bool
) -> Row:
    """Run a job; returns cells of its row, also if it fails.

    Raises:
        Exception: an error that would occur in every other job, too, or in another process.
    """
    try:
        return {"status": "done", **describe_row(run_one(animator, job, options, queue))}
    except Exception as error:
        queue.raise_if_over()
        if ends_all(error):
            raise
        reason = in_one_line(error)
        if not isinstance(error, UserError):
            reason = f"{job.driving}: {reason}"
        if debug:
            traceback.print_exception(error)
        say(f"animate.py: error: {reason}", sys.stderr)
        return {"status": "failed", "error": reason}


def run_one(
    animator: Animator, job: Job, options: JobOptions, queue: WorkQueue | None = None
) -> JobResult:
    """Run a job with a progress bar, unless several processes run jobs.

    Args:
        queue: ends the job if another process has failed.
    """
    is_alone = distributed.world_size() == 1
    with tqdm(unit="frame", disable=None if is_alone else True, leave=False) as bar:

        def progress(num_done: int, num_frames: int | None) -> None:
            if queue is not None:
                queue.check()
            bar.total = num_frames
            bar.update(num_done - bar.n)

        watch = None if queue is None or is_alone else queue.raise_if_over
        return run_job(animator, job, options, say, progress, watch)


def describe(result: JobResult, saved: Checkpoint) -> str:
    """Lines for the console on a finished animation."""
    output = result.output
    sound = "" if output.sound is None else ", with sound"
    model = f"{saved.path} ({saved.age})"
    lines = [f"{output.path}: {result.num_frames} frames{sound}, {model}"]
    if output.masks_path is not None:
        lines.append(f"{output.masks_path}: the figure's opacity in each frame")
    lines += [f"{name}: {value:.4f}" for name, value in result.metrics.items()]
    return "\n".join(map(printable, lines))


def describe_row(result: JobResult) -> Row:
    """Cells of results.csv on a finished animation."""
    reference = result.reference
    return {
        "num_frames": str(result.num_frames),
        "seconds": f"{result.seconds:.2f}",
        "reference_frame": "" if reference is None else str(reference.position),
        "reference_distance": "" if reference is None else f"{reference.distance:.4f}",
        **{name: f"{value:.6f}" for name, value in result.metrics.items()},
    }


def build_parser() -> argparse.ArgumentParser:
    parser = options.build_parser(__doc__)
    add_live_options(parser)
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run_entry_point(main, build_parser()))
