"""Measure how much of a training step two processes lose to the exchange of gradients.

    python -m benchmarks.exchange --config vox-fomm-adv.yaml data.kind=puppets \\
        data.id_sampling=false perceptual.weights=random train.batch_size=2

The processes run in two network namespaces that a cable of --mbit connects, as two machines would
be (Linux, by root, with the programs ip and tc). With --mbit 0 they use the loopback interface.
Started by torchrun, the command measures the network between the processes that torchrun starts.

All rows have the same weights and the same batch; they take turns, so that other load on the
machine affects all of them. In each turn the row prepares its exchange and takes a step that is
left out, then one that is measured.

    no exchange              each process keeps its own gradients
    after the backward pass  gradients are averaged when all of them are known
    during it                as train.py does (training/distributed/gradients.py)
    during it, in bf16       the same with train.gradient_exchange=bf16

    s                        time of the fastest step, in which the machine did the least else; of
                             the slower process
    share                    share of the step that the exchange adds
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.tables import Cell, markdown_table
from benchmarks.training_steps import (
    build_trainer,
    first_batch,
    seconds,
    step_parser,
    take_step,
    without_auto,
)
from common.cli import pick_device, run_entry_point
from common.distributed import processes as distributed
from common.distributed.rendezvous import read_place
from common.errors import UserError
from common.files import check_output_file, replacing
from configs.loading import load_config
from datasets.pairs import PairBatch
from training.distributed.gradients import GradientExchange
from training.trainer import Trainer

MIXES = 0.0  # value of `host_random`; a step mixes if it is below the probability
ROWS = ("no exchange", "after the backward pass", "during it", "during it, in bf16")
_ADDRESSES = ("10.99.0.1", "10.99.0.2")  # of the two namespaces
_TEST_NUMBERS = 2**22  # that are sent to measure the network


def main(arguments: argparse.Namespace) -> None:
    if arguments.config is None:
        raise UserError("--config is missing: give a file, or a name such as vox-fomm.yaml")
    check_output_file(Path(arguments.output), "exchange.json")
    if read_place() is None:
        start_two(arguments.mbit)
        return
    with distributed.process_group(timeout=300):
        measure(arguments)


# The two processes


def start_two(mbit: int) -> None:
    """Run this command in two processes, each in a network namespace of its own."""
    with ExitStack() as held:
        prefixes: list[list[str]] = [[], []]
        # Otherwise torch warns that the namespace cannot look up names.
        environment = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        address = "127.0.0.1"
        if mbit:
            prefixes = held.enter_context(two_namespaces(mbit))
            address = _ADDRESSES[0]
            environment["GLOO_SOCKET_IFNAME"] = "eth0"
        port = free_port()
        processes = [
            held.enter_context(
                subprocess.Popen(
                    [*prefixes[rank], sys.executable, "-m", "benchmarks.exchange", *sys.argv[1:]],
                    env=environment | place(rank, address, port),
                )
            )
            for rank in range(2)
        ]
        codes = [process.wait() for process in processes]
    if any(codes):
        raise UserError(f"the two processes have ended with the codes {codes}")


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def place(rank: int, address: str, port: int) -> dict[str, str]:
    """The environment variables that give one of two processes its place."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


@contextmanager
def two_namespaces(mbit: int) -> Iterator[list[list[str]]]:
    """Context manager: two network namespaces that a cable of `mbit` Mbit/s connects, in each
    direction; yields for each the command that runs another one in it.

    Raises:
        UserError: they cannot be made.
    """
    names = [f"exchange-{os.getpid()}-{rank}" for rank in range(2)]
    with ExitStack() as made:
        for name in names:
            _system("ip", "netns", "add", name)
            made.callback(_system, "ip", "netns", "delete", name)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", names[1])
        _system("ip", "link", "add", "eth0", "netns", names[0], *cable)
        for name, address in zip(names, _ADDRESSES, strict=True):
            _system("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _system("ip", "-n", name, "link", "set", interface, "up")
            limit = ("rate", f"{mbit}mbit", "burst", "256kb", "latency", "50ms")
            in_it = ("ip", "netns", "exec", name)
            _system(*in_it, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)
        yield [["ip", "netns", "exec", name] for name in names]


def _system(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        found = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise UserError(
            f"{' '.join(command)}: {found}; network namespaces need Linux, root and iproute2: "
            "measure the loopback interface with --mbit 0"
        ) from error


# Measurement


def measure(arguments: argparse.Namespace) -> None:
    """Measure all rows; rank 0 prints the table and writes the report."""
    device = pick_device(arguments.device, distributed.local_rank())
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    config = without_auto(load_config(arguments.config, arguments.overrides), device)
    trainer = build_trainer(config, device)
    batch = first_batch(config).split(trainer.num_own_samples)[distributed.rank()].to(device)
    times: dict[str, list[float]] = {row: [] for row in ROWS}
    for _ in range(arguments.rounds):
        for row in ROWS:
            times[row].append(time_of(row, trainer, batch))
    fastest = {row: min(found) for row, found in times.items()}
    gbit = network_speed(device)
    if not distributed.is_main():
        return
    parameters = [p for player in trainer.optimizer.players.values() for p in player]
    report = {
        "config": arguments.config,
        "overrides": arguments.overrides,
        "device": str(device),
        "processes": distributed.world_size(),
        "gbit_per_second": gbit,
        "parameters": sum(p.numel() for p in parameters),
        "seconds": times,
    }
    with replacing(Path(arguments.output)) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    alone = fastest[ROWS[0]]
    rows: list[dict[str, Cell]] = [
        {"gradients are averaged": row, "s": f"{t:.2f}", "share": f"{(t - alone) / t:.0%}"}
        for row, t in fastest.items()
    ]
    print(f"{report['parameters'] / 1e6:.1f} million parameters, measured {gbit:.2f} Gbit/s\n")
    print(markdown_table(rows))


def time_of(row: str, trainer: Trainer, batch: PairBatch) -> float:
    """Seconds that a step takes in the slower process, with the exchange that `row` names."""
    optimizer = trainer.optimizer
    # A GradientExchange has a buffer for all gradients, and hooks on all parameters; so those of
    # the row before, and at first the trainer's, are freed.
    optimizer.exchanges = {}
    gc.collect()
    if row.startswith("during"):
        compress = row.endswith("bf16")
        players = optimizer.players.items()
        optimizer.exchanges = {player: GradientExchange(own, compress) for player, own in players}
    step = take_step_and_average if row.startswith("after") else take_step
    take = partial(step, trainer, batch, MIXES)
    take()
    distributed.largest(0.0)  # both start at the same time
    (slower,) = distributed.largest(seconds(take, trainer.device))
    return slower


def take_step_and_average(trainer: Trainer, batch: PairBatch, host_random: float) -> None:
    """As `take_step`, and average all gradients before the optimizer's step."""
    plain = trainer.optimizer.step
    averaging = partial(average_and_step, trainer, plain)
    trainer.optimizer.step = averaging  # type: ignore[method-assign]
    try:
        take_step(trainer, batch, host_random)
    finally:
        trainer.optimizer.step = plain  # type: ignore[method-assign]


def average_and_step(
    trainer: Trainer, step: Callable[[Tensor], dict[str, Tensor]], loss: Tensor
) -> dict[str, Tensor]:
    """Average all gradients, as one vector, then call `step`."""
    parameters = [p for player in trainer.optimizer.players.values() for p in player]
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.add_up(flat)
    parts = flat.div_(distributed.world_size()).split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return step(loss)


def network_speed(device: torch.device) -> float:
    """Gbit/s at which a process sends while two processes add up a large tensor."""
    numbers = torch.zeros(_TEST_NUMBERS, device=device)
    times = [seconds(partial(distributed.add_up, numbers), device) for _ in range(3)]
    return 32 * _TEST_NUMBERS / 1e9 / min(times)


def build_parser() -> argparse.ArgumentParser:
    parser = step_parser("benchmarks.exchange", __doc__ or "", 3, "exchange.json")
    parser.add_argument(
        "--mbit",
        type=int,
        default=1000,
        help="speed of the network in Mbit/s; 0: the loopback interface (default: 1000)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
