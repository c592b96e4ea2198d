"""Converts candidates to a prepared folder, on all cores, in one order, and can be resumed."""

import csv
import json
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from common.csv_cells import TableReader, as_written, open_table, protected
from common.errors import UserError
from common.file_lock import locked
from common.files import make_folder, remove_leftovers, replacing
from common.json_files import read_json
from common.safe_paths import exists, is_folder, open_to_write, printable, refuse_links
from datasets.pack_writer import PACK, PackWriter, is_pack, read_pack
from datasets.prepare.candidates import Candidate
from datasets.prepare.convert import Converted, ConvertOptions, Outcome, Remark, convert
from datasets.prepare.splits import DRAWN, SPLITS
from media.container import os_reason
from media.system_files import user_entries

PREPARED, REPORT = "prepared.json", "report.csv"
# Name of a clip that is being written; earlier versions put a process id instead of the 16 digits.
_UNFINISHED = r"\.(?:[0-9a-f]{16}|\d{1,10})-\d+\.tmp"
AHEAD = 2  # clips submitted ahead for each process, so that no process is idle


class ConversionSummary(NamedTuple):
    """The results of one run."""

    num_earlier: int  # clips that an earlier run had finished
    num_clips: int
    num_frames: int
    num_bytes: int
    remarks: list[Remark]  # of this run, and on the clips that earlier runs finished
    empty: list[str]  # splits in which every clip was rejected

    def text(self) -> str:
        """A line on all clips, and one for each reason why clips were rejected or changed."""
        lines = [
            f"{self.num_clips} clips prepared, {self.num_frames} frames, "
            f"{self.num_bytes / 1e9:.2f} GB; {self.num_earlier} were there before"
        ]
        counts = Counter((remark.outcome, remark.reason) for remark in self.remarks)
        lines += [f"{count} {outcome}: {reason}" for (outcome, reason), count in counts.items()]
        lines += [f"{split}/ is empty: each of its clips was rejected" for split in self.empty]
        return "\n".join(map(printable, lines))


@contextmanager
def claimed(output: Path, settings: Mapping[str, object]) -> Iterator[None]:
    """Reserve the folder `output` for one run with these settings; it is made if it is missing.

    Raises:
        UserError: another run is at work there, the folder was prepared with other settings, or it
            holds something else.
    """
    path = output / PREPARED
    with ExitStack() as stack:
        try:
            make_folder(output)
            foreign = [entry.name for entry in user_entries(output)]
            if foreign and not exists(path):
                raise UserError(
                    f"{output}: holds {min(foreign)}, which no earlier run wrote; choose another "
                    "--output, or an empty folder"
                )
            stack.enter_context(locked(output / ".lock"))
        except BlockingIOError:
            raise UserError(f"{output}: another run is preparing clips into it") from None
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {os_reason(error)}") from None
        if exists(path) and finished_clips(output):
            _check_settings(path, settings)
        remove_leftovers(output, "|".join(map(re.escape, (PREPARED, DRAWN, REPORT))))
        yield


def note_settings(output: Path, settings: Mapping[str, object]) -> None:
    """Write the settings; from now on `claimed` accepts only runs with the same ones."""
    with replacing(output / PREPARED) as path:
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _check_settings(path: Path, settings: Mapping[str, object]) -> None:
    try:
        earlier = read_json(path)
        changed = [name for name in settings if settings[name] != earlier.get(name, settings[name])]
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged; remove the folder {path.parent}") from None
    if changed:
        was, now = (_option(changed[0], found[changed[0]]) for found in (earlier, settings))
        was = printable(was)
        raise UserError(
            f"{path.parent}: was prepared with {was}, not {now}; choose another --output, or the "
            "same settings as before"
        )


def _option(name: str, value: object) -> str:
    option = f"--{name.replace('_', '-')}"
    return f"no {option}" if value is None else f"{option} {value}"


def prepare(
    candidates: list[Candidate],
    settings: ConvertOptions,
    output: Path,
    num_workers: int,
    debug: bool = False,
) -> ConversionSummary:
    """Write all candidates that are not finished yet to `output`/train and /test; see `claimed`.

    The clips of a pack are in the order of the candidates, for any number of processes. Rejected
    clips are tried again in every run. A remark is in the report before its clip counts as
    finished, whatever ends the run.

    Args:
        debug: print the traceback of unexpected errors.

    Raises:
        UserError: the disk is full, a process died, or earlier results are damaged.
    """
    finished = finished_clips(output)
    missing = [clip for clip in candidates if (clip.split, clip.name) not in finished]
    remarks = [row for row in _read_report(output / REPORT) if (row.split, row.clip) in finished]
    num_clips = num_frames = num_bytes = 0
    with ExitStack() as stack:
        write_remark = stack.enter_context(_report(output / REPORT, remarks))
        writers = {}
        for split in sorted({clip.split for clip in candidates}):
            refuse_links(output, Path(split))
            folder = output / split
            folder.mkdir(exist_ok=True)
            _remove_leftovers(folder)
            stack.callback(_remove_leftovers, folder)
            if settings.format == "packed":
                writers[split] = stack.enter_context(PackWriter(folder, settings.image_size))
        bar = stack.enter_context(tqdm(total=len(candidates), unit="clip", disable=None))
        bar.update(len(candidates) - len(missing))
        results = stack.enter_context(closing(_convert_all(missing, settings, output, num_workers)))
        for candidate, target, (converted, remark, traceback) in results:
            if debug and traceback is not None:
                lines = f"{printable(candidate.footage.source)}: {traceback}".split("\n")
                tqdm.write("\n".join(map(printable, lines)), file=sys.stderr)
            if remark is not None:
                remarks.append(remark)
                write_remark(remark)
            if converted is not None:
                num_clips += 1
                num_frames += converted.num_frames
                num_bytes += _num_bytes(target)
                _store(candidate, target, converted, writers.get(candidate.split))
            bar.update()
        for writer in writers.values():
            writer.finish()
    if num_clips == 0 and not finished:
        raise UserError(
            f"{output}: none of {len(candidates)} clips could be used, see {output / REPORT}; "
            f"the first: {remarks[0].detail}"
        )
    empty = {clip.split for clip in candidates} - {split for split, _ in finished_clips(output)}
    num_earlier = len(candidates) - len(missing)
    return ConversionSummary(num_earlier, num_clips, num_frames, num_bytes, remarks, sorted(empty))


def _store(
    candidate: Candidate, target: Path, converted: Converted, writer: PackWriter | None
) -> None:
    """Append a converted clip to the pack of its split, or rename its folder of frames."""
    if writer is None or converted.table is None:
        target.rename(target.with_name(candidate.name))
        return
    source = candidate.footage.source
    writer.append(candidate.name, converted.frame_rate, source, target, converted.table)
    target.unlink()


def _convert_all(
    candidates: Iterable[Candidate], settings: ConvertOptions, output: Path, num_workers: int
) -> Generator[tuple[Candidate, Path, Outcome], None, None]:
    """Convert in several processes, and yield outcomes in the order of the candidates.

    At most AHEAD clips for each process are submitted before the outcome that comes next.
    """
    run = secrets.token_hex(8)  # so that no worker left by another run writes to the same files
    jobs = (
        (candidate, output / candidate.split / f".{run}-{number}.tmp")
        for number, candidate in enumerate(candidates)
    )
    if num_workers == 1:
        for candidate, target in jobs:
            yield candidate, target, convert(candidate, settings, target)
        return
    pending: deque[tuple[Candidate, Path, Future[Outcome]]] = deque()
    last: Candidate | None = None
    try:
        with _workers(num_workers) as executor:
            for job in [*jobs, None]:
                if job is not None:
                    pending.append((*job, executor.submit(convert, job[0], settings, job[1])))
                while len(pending) > (AHEAD * num_workers if job is not None else 0):
                    candidate, target, future = pending.popleft()
                    last = candidate
                    yield candidate, target, future.result()
    except BrokenProcessPool:
        place = output if last is None else last.footage.source
        raise UserError(
            f"{place}: a process died near this clip, perhaps for lack of memory; start again with "
            "fewer --workers, and it continues"
        ) from None


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes, which are ended at once if an exception leaves the `with` block."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # inherits no threads and open files
    with ProcessPoolExecutor(count, context, initializer=_follow_the_main_process) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _follow_the_main_process() -> None:
    """Ignore Ctrl-C, and end this worker when the main process ends, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def finished_clips(output: Path) -> set[tuple[str, str]]:
    """Return split and name of every clip that is complete in `output`."""
    found = set()
    for split in SPLITS:
        folder = output / split
        if is_pack(folder):
            found |= {(split, clip.name) for clip in read_pack(folder).clips}
        elif is_folder(folder):  # a folder of frames gets its name when it is complete
            found |= {(split, entry.name) for entry in user_entries(folder)}
    return found


def _remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files of an interrupted run, or of a worker of this run."""
    remove_leftovers(folder, rf"{re.escape(PACK)}|{_UNFINISHED}")
    for entry in folder.iterdir():
        if re.fullmatch(_UNFINISHED, entry.name) is None:
            continue
        if is_folder(entry) and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _num_bytes(path: Path) -> int:
    files = path.iterdir() if is_folder(path) else [path]
    return sum(file.stat().st_size for file in files)


def _read_report(path: Path) -> list[Remark]:
    if not exists(path):
        return []
    try:
        with open_table(path, errors="replace") as file:
            # A row of which cells are missing was cut off.
            rows = [row for row in TableReader(file) if None not in row.values()]
            cells = [{name: as_written(cell) for name, cell in row.items()} for row in rows]
            return [Remark(**row) for row in cells]  # type: ignore[arg-type]
    except (TypeError, AttributeError, csv.Error):
        raise UserError(f"{path}: has been changed or damaged; remove it") from None


@contextmanager
def _report(path: Path, remarks: Iterable[Remark]) -> Iterator[Callable[[Remark], None]]:
    """Start the report with these remarks, and give the `with` block a function that adds one."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([Remark._fields, *(map(protected, row) for row in remarks)])
    with open_to_write(path, "a", newline="", encoding="utf-8") as report:

        def write(remark: Remark) -> None:
            csv.writer(report).writerow(map(protected, remark))
            report.flush()

        yield write
