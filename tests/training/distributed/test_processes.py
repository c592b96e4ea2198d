"""Several processes: they train like one process, end together, and say why."""

import math
import os
import pickle
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

import train
from branches.branch import StepContext
from branches.model import Model
from common.batch_random import BatchRandom
from common.distributed import processes as distributed
from common.errors import UserError
from datasets.clips import ClipFolder
from media.video import VideoError
from tests.commands.test_bad_input import Malicious
from tests.helpers.factories import noise_batch, tiny_config, tiny_perceptual
from tests.helpers.processes import finish_together, place, start_function, start_together
from tests.helpers.runs import (
    Ended,
    call,
    command,
    contents,
    metrics,
    step_file,
    steps,
    tiny,
    wait_until,
    write_clips,
)
from training import setup
from training import step as training_step
from training.adversary import build_adversary
from training.distributed.sync_batch_norm import synchronize_batch_norm
from training.meters import STEPS_BEFORE_DATA_CHECK, RunningMeans, StepClock
from training.optimization import Optimizer

CPU = torch.device("cpu")
SELDOM = (
    "train.checkpoint_every=100000",
    "log.validate_every=100000",
    "log.images_every=100000",
)
LATE = frozenset({"masks.refinement", "background"})
FOREVER = (*SELDOM, "train.epochs=100000", "train.ema_decay=0.5")


class BatchRandomInDouble(BatchRandom):
    """Draws the same numbers as BatchRandom, but returns float64."""

    def normal(self, batch, *shape):
        return super().normal(batch, *shape).double()


def trained_in_double():
    """State of all networks, and the gradient norms, after three steps with all options on; late
    parts start with the second.

    It computes in float64, where rounding stays far below Adam's epsilon. In float32, parameters
    whose gradient is only rounding (biases before a batch normalization) would move at random.
    """
    config = tiny_config(
        "masks.prior.weight=0.0",  # it takes averages within a process
        "train.clip_norm=50.0",
        "train.clip_ratio=2",
        "train.clip_window=2",
    )
    torch.manual_seed(0)
    model, adversary = Model(config).double().train(), build_adversary(config).double().train()
    perceptual = tiny_perceptual(config).double()
    if distributed.world_size() > 1:
        synchronize_batch_norm(model, CPU)
    optimizer = Optimizer(model, adversary, config, CPU)
    for recent in optimizer.recent_norms.values():
        recent.load(torch.ones(2))  # so that two steps are clipped
    part, num_parts = distributed.rank(), distributed.world_size()
    batch = noise_batch(config).split(config.train.batch_size // num_parts)[part]
    prepare_frames = training_step.prepare_frames

    def prepare_in_double(*arguments):
        frames = prepare_frames(*arguments)
        return frames._replace(**{name: x.double() for name, x in frames._asdict().items()})

    norms = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_step, "prepare_frames", prepare_in_double)
        for step, waiting in enumerate((LATE, frozenset(), frozenset())):
            draws = BatchRandomInDouble(torch.Generator().manual_seed(step), part, num_parts)
            result = training_step.train_step(
                model,
                adversary,
                optimizer,
                perceptual,
                batch,
                StepContext(0, draws, 0.0, waiting),
                config,
            )
            norms.append(result.scalars["gradient_norm"])
    networks = model.networks | adversary.networks
    state = {f"{n}.{k}": t for n in networks for k, t in networks[n].state_dict().items()}
    assert optimizer.clipped_steps == 2
    return state | {
        "gradient_norm": torch.stack(norms),
        "clipped_steps": optimizer.clipped_steps,
        **{f"norms.{name}": recent.norms for name, recent in optimizer.recent_norms.items()},
    }


def skipped_steps():
    """Whether the weights stay the same, and how many steps are counted as bad so far: if only rank
    1 has a gradient of NaN; if only its loss is infinite; and if nothing is wrong.
    """
    config = tiny_config("masks=null", "background=null", "discriminator=null")
    model = Model(config)
    optimizer = Optimizer(model, None, config, CPU)
    before = [parameter.clone() for parameter in model.parameters()]
    found = []
    for factor, offset in ((math.nan, 0.0), (1.0, math.inf), (1.0, 0.0)):
        loss = torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
        if distributed.rank() == 1:
            loss = loss * factor + offset
        optimizer.backward({"model": loss})
        optimizer.step(loss.detach())
        same = all(map(torch.equal, before, model.parameters()))
        found += [same, optimizer.bad_steps.item()]
    return found


def logged_means():
    """Means over two steps; in rank 1 one value is infinite, and one is the smallest of all."""
    means, rank = RunningMeans(), distributed.rank()
    means.add({"a": torch.tensor(1.0 + rank), "b": torch.tensor(5.0)})
    wrong = math.inf if rank == 1 else 6.0
    smallest = {"c/smallest_d": torch.tensor(4.0 - 3 * rank)}
    means.add({"a": torch.tensor(3.0), "b": torch.tensor(wrong)} | smallest)
    together = RunningMeans()
    together.add({"a": torch.tensor(1.0 + rank)} | smallest)
    together.collect()  # as before a checkpoint; the window then goes on
    state = together.state()
    resumed = RunningMeans()
    resumed.load_state(state if rank == 0 else logged_state(), CPU)
    for window in (together, resumed):
        window.add({"a": torch.tensor(3.0)} | smallest)
    return [*means.read(), together.read()[0], resumed.read()[0]]


def logged_state():
    """A state with other numbers, which only rank 1 loads, and which must not count."""
    means = RunningMeans()
    means.add({"a": torch.tensor(100.0), "c/smallest_d": torch.tensor(-9.0)})
    return means.state()


def exchanged():
    """What the processes exchange; their networks differ before."""
    rank = distributed.rank()
    network = torch.nn.BatchNorm1d(2, affine=False)
    network.running_mean += rank
    network.num_batches_tracked += rank
    frozen = torch.nn.Linear(2, 1).requires_grad_(False)
    frozen.weight.fill_(rank)
    distributed.copy_networks_from_main([network, frozen])
    total = torch.tensor([1.0, 2.0 + rank])
    distributed.add_up(total)
    return {
        "copied": [network.running_mean, frozen.weight],
        "number of batches": network.num_batches_tracked.item(),
        "total": total,
        "gathered": distributed.gather({"rank": rank}),
        "largest": distributed.largest(rank, -rank),
    }


def strange_messages(folder):
    """Errors of a process after rank 1 has sent a pickle, or a message that is too long."""

    def pack_code(_):
        return torch.frombuffer(bytearray(harmful_pickle(folder)), dtype=torch.uint8)

    with pytest.MonkeyPatch.context() as patch:
        if distributed.rank() == 1:
            patch.setattr(distributed, "_pack", pack_code)
        found = [ending_of(lambda: distributed.gather({"a": 1}))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "_MAX_MESSAGE", 4)
        found.append(ending_of(lambda: distributed.gather("b" * distributed.rank())))
        found.append(ending_of(lambda: distributed.gather("b" * 3 * distributed.rank())))
    return found


def harmful_pickle(folder):
    """A pickle that would write a file in `folder` if it were loaded."""
    return pickle.dumps(Malicious(folder / "trace"))


def listening_at():
    """The addresses at which this process listens, as Linux prints them: hexadecimal, with the
    order of bytes reversed in each group of four.
    """
    links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/self/net", name).read_text().splitlines()[1:]
    ]
    return sorted({row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in own})


def ending_of(function):
    """The exception by which `function` would end the process, and its cause, if there is one."""
    try:
        function()
    except (UserError, SystemExit) as error:
        cause = f" from {error.__cause__}" if type(error.__cause__) is UserError else ""
        return f"{type(error).__name__}: {error}{cause}"
    return "no error"


def shared(*messages):
    """How each process ends if the processes raise these errors, by rank."""

    def fail():
        message = messages[distributed.rank()]
        with distributed.shared_errors():
            if message is not None:
                raise UserError(message)

    return ending_of(fail)


DIVISIONS = {
    (): "no error",
    ("train.micro_batch=2",): "no error",
    ("train.batch_size=5",): "UserError: train.batch_size: 5 samples cannot be divided among 2 "
    "processes; it counts those of all processes together: set it to a multiple of their number",
    ("train.micro_batch=4",): "UserError: train.micro_batch: found 4; must divide the 2 samples "
    "that each of 2 processes takes of train.batch_size, 4",
    ("background.foreign_probability=0.5", "train.batch_size=2"): "UserError: "
    "background.foreign_probability: found 0.5 with one sample of a batch in each process; it "
    "takes another sample of the same process: set train.batch_size to at least 4",
}


def data_share():
    """The share of waiting in 10 s of rank 0. Rank 1 waits 4 s for data, and measures 30 s more, in
    which rank 0 has validated.
    """
    clock = StepClock()
    seconds, waiting = ((10.0, 1.0), (40.0, 4.0))[distributed.rank()]
    clock.since_log.add(seconds, waiting)
    clock.since_warm_up.add(seconds, waiting)
    clock.num_steps = STEPS_BEFORE_DATA_CHECK
    return [clock.speed(batch_size=4)["speed/data_share"], clock.bottleneck()]


def no_answer():
    """The errors of rank 0 if rank 1 does not answer in time, and if this program has a bug."""
    found = []
    distributed.largest(0)  # both come here at once, since the time limit is also for connecting
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=3))
    if distributed.rank() == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "_host_group", group)
            found.append(ending_of(lambda: distributed.largest(0)))
    distributed.largest(0)
    with pytest.raises((RuntimeError, UserError)) as error:
        distributed.add_up(torch.zeros(2, dtype=torch.uint16))  # gloo cannot add up this dtype
    found.append(type(error.value).__name__)
    return found


def endings():
    def disagree(name, value):
        return ending_of(lambda: distributed.check_agreement({"clips": 2, name: value}))

    def divide(overrides):
        return ending_of(lambda: setup.check_division(tiny_config(*overrides)))

    return {
        "same": shared("no config", "no config"),
        "one": shared(None, "no file"),
        "two": shared("a", "b"),
        "none": shared(None, None),
        "agreed": disagree("step", 4),
        "differing": disagree("step", distributed.rank()),
    } | {str(overrides): divide(overrides) for overrides in DIVISIONS}


def set_up(folder, name, *overrides):
    """Context manager: sets up a run of both processes on the clips of `folder`."""
    data = ("data.kind=clips", f"data.root={folder / 'data'}", "masks.prior.weight=0")
    arguments = tiny(folder / name, *FOREVER, *data, *overrides)
    return setup.set_up(train.build_parser().parse_intermixed_args([*arguments, "--device", "cpu"]))


def run_for_a_second(folder):
    """Train for a second; returns the frame counts from before, the steps, and a checksum of the
    weights.
    """
    with set_up(folder, "second", "train.micro_batch=1", "train.max_minutes=0.015") as trainer:
        counts = dict(trainer.pairs.clips.known_num_frames)
        ended = trainer.run()
    weights = sum(p.double().abs().sum() for n in trainer.networks.values() for p in n.parameters())
    return [counts, ended, trainer.step, weights.item(), trainer.average is not None]


def run_with_a_plan(folder):
    """The planned number of steps, the steps taken, and the parts that have not learned."""
    shares = ("masks.refinement.start_share=0.5", "background.start_share=0.7")
    limits = ("train.max_minutes=60", "train.max_steps=17")
    with set_up(folder, "planned", *shares, *limits) as trainer:
        trainer.run()
    return [trainer.starts.planned_steps, trainer.step, sorted(trainer._waiting(trainer.step))]


def run_with_unreadable_clips(folder, *names):
    """How the run ends if rank 1 cannot read the clips `names`; it logs every second step."""
    original = ClipFolder.read

    def read(self, index, frames):
        if distributed.rank() == 1 and self.clips[index].name in names:
            raise VideoError(f"{self.clips[index].name}: gone")
        return original(self, index, frames)

    with (
        set_up(folder, f"without{len(names)}", "log.scalars_every=2") as trainer,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(ClipFolder, "read", read)
        return ending_of(trainer.run)


def save_findings_and_kill_one(folder):
    """Collect all findings in one process group, since its start takes long; in the last run rank 1
    is killed within a step.
    """
    functions = (
        trained_in_double,
        skipped_steps,
        logged_means,
        exchanged,
        data_share,
        no_answer,
        endings,
    )
    findings = {function.__name__: function() for function in functions}
    findings["listening_at"] = listening_at()
    findings["strange_messages"] = strange_messages(folder)
    findings["second"] = run_for_a_second(folder)
    findings["planned"] = run_with_a_plan(folder)
    findings["unreadable"] = [
        run_with_unreadable_clips(folder, "clip0"),
        run_with_unreadable_clips(folder, "clip0", "clip1", "folder", "tall"),
    ]
    torch.save(findings, folder / f"{distributed.rank()}.pt")
    original = Optimizer.backward

    def backward(self, *arguments, **options):
        if distributed.rank() == 1 and trainer.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, *arguments, **options)

    with set_up(folder, "killed") as trainer:
        Optimizer.backward = backward
        trainer.run()


class Group(NamedTuple):
    """Two processes of a group: the folder of their runs, what each has found, and how it ended."""

    folder: Path
    found: list[dict[str, Any]]
    first: Ended
    second: Ended


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Run `save_findings_and_kill_one` in two processes."""
    folder = tmp_path_factory.mktemp("two")
    write_clips(folder / "data")
    ended = finish_together(start_function(save_findings_and_kill_one, folder))
    files = [folder / f"{rank}.pt" for rank in range(2)]
    assert all(file.exists() for file in files), ended
    return Group(folder, [torch.load(file, weights_only=True) for file in files], *ended)


@pytest.fixture(scope="module")
def two(group):
    return group.found


def test_killed_process_ends_the_other_with_a_message(group):
    """Nothing is saved, since the step that both had begun is half done."""
    assert group.second.code == -signal.SIGKILL
    assert group.first.code == 2
    assert [row["step"] for row in metrics(group.folder / "killed")] == [1, 2]
    assert steps(group.folder / "killed") == []
    line = group.first.stderr.splitlines()[-1]
    assert line.startswith("processes: error: another process has ended or cannot be reached (")
    assert line.endswith("; its own message says why; continue with --resume")
    assert "Traceback" not in group.first.stderr


def test_a_message_that_is_not_json_is_not_unpickled(group):
    for found in group.found:
        code, fitting, long = found["strange_messages"]
        assert code == (
            "UserError: rank 1 has sent a message that is not JSON: another program, or another "
            "version of this one, has joined; choose another port"
        )
        assert fitting == "no error"
        assert long == f"UserError: messages of [2, 5] bytes, by rank: {code.split(': ')[2]}"
    assert not (group.folder / "trace").exists()
    pickle.loads(harmful_pickle(group.folder))
    assert (group.folder / "trace").exists()


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="asks Linux who listens")
def test_processes_on_one_machine_listen_on_loopback_only(two):
    """This is tested for the store of rank 0, and for what gloo opens in each process."""
    assert [found["listening_at"] for found in two] == [["0100007F"]] * 2


def test_process_that_does_not_answer(two):
    (late, bug), (other_bug,) = (found["no_answer"] for found in two)
    assert late.startswith("PeerLost: another process does not answer (")
    assert bug == other_bug == "RuntimeError"


def test_run_of_two_with_small_parts_an_average_and_a_time_limit(group):
    """Both end at the same step with the same weights; rank 1 has the frame counts of rank 0."""
    (counts, ended, step, weights, averages), other = (found["second"] for found in group.found)
    assert counts == {0: 6, 1: 6, 2: 5, 3: 6}
    assert (ended, averages, step > 0) == (None, True, True)
    assert other == [counts, None, step, weights, False]
    assert steps(group.folder / "second") == [step]
    assert contents(step_file(group.folder / "second", step))["average"] is not None


def test_two_processes_plan_the_same_steps(two):
    """They plan after 15 steps, by the speed of rank 0; refinement and background start at once."""
    assert [found["planned"] for found in two] == [[17, 17, []]] * 2


def test_clips_that_one_process_cannot_read_end_both(group):
    """They end after the step in which a log was due, which is saved; or at once if the process
    finds no other clip.
    """
    of_rank_0, of_rank_1 = (found["unreadable"] for found in group.found)
    assert of_rank_0[0] == (
        "UserError: data.root: 1 of 4 clips cannot be read, more than 1%; remove or repair clip0"
    )
    assert of_rank_0[1].startswith("UserError: rank 1: 16 clips in a row cannot be read; ")
    assert of_rank_1[0] == "SystemExit: 2"
    assert of_rank_1[1].startswith("SystemExit: 2 from 16 clips in a row cannot be read; ")
    (saved,) = steps(group.folder / "without1")
    assert saved % 2 == 0
    assert steps(group.folder / "without4") == []
    assert group.second.stderr.count("rank 1: skipped: clip0: gone") == 1


def test_data_share_is_of_the_longest_wait_and_the_time_without_validation(two):
    assert two[0]["data_share"] == [0.4, 0.4]


def test_two_processes_train_as_one(two):
    """Weights and running statistics agree, with all branches, the U-Net and PriorityCut."""
    expected = trained_in_double()
    for found in two:
        assert_close(found["trained_in_double"], expected, rtol=1e-7, atol=1e-8)
    initial = {
        f"{name}.{key}": tensor
        for name, state in Model(tiny_config()).double().state().items()
        for key, tensor in state.items()
    }
    # Three steps of 2e-4 change everything but the biases by four orders more than the tolerance.
    moved = [name for name, t in initial.items() if (expected[name] - t).abs().max() > 1e-4]
    assert len(moved) > 0.8 * len(initial)


def test_both_skip_the_step_that_is_bad_for_one(two):
    assert [found["skipped_steps"] for found in two] == [[True, 1.0, True, 2.0, False, 2.0]] * 2


def test_logged_means_are_of_both(two):
    for found in two:
        values, not_finite, together, resumed = found["logged_means"]
        assert values == {
            "a": (1 + 2 + 3 + 3) / 4,
            "b": pytest.approx((5 + 5 + 6) / 3),
            "c/smallest_d": 1,
        }
        assert not_finite == ["b"]
        assert together == resumed == {"a": (1 + 2 + 3 + 3) / 4, "c/smallest_d": 1}


def test_exchange(two):
    for rank, found in enumerate(process["exchanged"] for process in two):
        assert [tensor.flatten().tolist() for tensor in found["copied"]] == [[0, 0], [0, 0]]
        assert found["number of batches"] == rank
        assert found["total"].tolist() == [2, 5]
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert found["largest"] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("case", "of_rank_0", "of_rank_1"),
    [
        ("same", "UserError: no config", "SystemExit: 2 from no config"),
        ("one", "UserError: rank 1: no file", "SystemExit: 2 from no file"),
        ("two", "UserError: rank 0: a; rank 1: b from a", "SystemExit: 2 from b"),
        ("none", "no error", "no error"),
        ("agreed", "no error", "no error"),
        (
            "differing",
            "UserError: step: 0 on rank 0, 1 on rank 1; give all processes the same arguments, and "
            "all machines the same files",
            "SystemExit: 2",
        ),
        *((str(overrides), ending, ending) for overrides, ending in DIVISIONS.items()),
    ],
)
def test_errors_end_all_processes_and_are_printed_once(two, case, of_rank_0, of_rank_1):
    assert [found["endings"][case] for found in two] == [of_rank_0, of_rank_1]


# Runs without the mask prior, which takes averages within a process.

ARGUMENTS = (*SELDOM, "masks.prior.weight=0", "train.epochs=3")


def losses(run_dir):
    """Losses of the motion and the mask branch, by step."""
    rows = metrics(run_dir)
    names = [name for name in rows[0] if name.startswith(("unweighted/motion", "unweighted/masks"))]
    return {row["step"]: [row[name] for name in names] for row in rows}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of twelve steps in one process, with a checkpoint at the fourth."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    overrides = (*ARGUMENTS, "train.checkpoint_every=4", "train.keep_checkpoints=3")
    assert call(train, *tiny(folder, *overrides)) == 0
    return folder


def test_two_continue_one_and_one_continues_two(tmp_path, alone):
    """Two processes continue from step 4, until a signal reaches one of them; both end at the same
    step, and one process continues. Samples and random numbers stay those of one process.
    """
    folder = tmp_path / "run"
    arguments = tiny(folder, *ARGUMENTS)
    resumed = [*arguments, "train.epochs=100000", "--resume", step_file(alone, 4)]
    processes = start_together(command("train.py", resumed))
    log = folder / "metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") >= 2, processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    first, second = finish_together(processes)
    (saved,) = steps(folder)
    assert (first.code, second.code) == (128 + signal.SIGTERM,) * 2
    assert first.stderr.splitlines()[-1] == f"SIGTERM: saved step {saved}; continue with --resume"
    assert "of 4 samples (2 on each of 2 processes) on cpu" in first.stdout
    assert (second.stdout, second.stderr) == ("", "")
    assert list(losses(folder)) == [*range(5, saved + 1)]

    last = max(saved + 1, 12)
    assert call(train, *resumed[:-2], f"train.max_steps={last}", "--resume") == 0
    found, expected = losses(folder), losses(alone)
    assert list(found) == [*range(5, last + 1)]
    for step in range(
        5, 13
    ):  # rounding grows with the steps; other samples would change the losses much more
        assert found[step] == pytest.approx(expected[step], rel=0.01), step


def test_one_process_forms_no_group(monkeypatch):
    """That includes the only process of torchrun --nproc-per-node 1."""
    for name, value in place(0, 1, port=1).items():  # port 1, where it could not listen
        monkeypatch.setenv(name, value)
    with distributed.process_group(timeout=0):
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.local_rank() is None
        tensor = torch.ones(2)
        distributed.add_up(tensor)
        assert tensor.tolist() == [1, 1]
        assert distributed.gather("a") == ["a"]
        assert distributed.largest(1, 2.5) == [1, 2.5]
