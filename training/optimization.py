"""The optimizer: Adam or SGD, learning rates, clipping, bad steps, average.

A bad step is one whose loss or gradient is not finite; it is skipped and counted.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from branches.model import Model
from common.speed_trial import HALF_DTYPES
from configs.schema import Config, TrainConfig
from training.adversary import Adversary
from training.distributed import processes as distributed
from training.distributed.gradients import GradientExchange

ALGORITHMS: Final = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}  # by `train.optimizer`
_STATES: Final = {"adam": ("step", "exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context for the value of `train.precision`, which must not be `auto`; it does
    nothing for float32.
    """
    assert precision != "auto", "auto_settings.resolve was not called"
    dtype = HALF_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def base_learning_rates(config: Config) -> dict[str, float]:
    """The initial learning rate of each network, by name: its own, or else
    `train.learning_rate`.
    """
    sections = {
        name: section
        for branch in config.branches.values()
        for name, section in branch
        if hasattr(section, "learning_rate")
    }
    if config.discriminator is not None:
        sections["discriminator"] = config.discriminator
    return {
        name: config.train.learning_rate if section.learning_rate is None else section.learning_rate
        for name, section in sections.items()
    }


def algorithm_settings(train: TrainConfig) -> dict[str, Any]:
    """The settings of the update rule, which a resumed run takes from its config."""
    if train.optimizer == "sgd":
        return {"momentum": train.momentum, "weight_decay": train.weight_decay}
    return {"betas": (train.betas[0], train.betas[1]), "weight_decay": train.weight_decay}


def _join_buffers(networks: Iterable[nn.Module]) -> Tensor | None:
    """Move all floating-point buffers of `networks` into one tensor, and make them views of it.

    A single clone then saves the statistics of every BatchNorm and the vectors of every spectral
    norm. Returns None if there are no such buffers.
    """
    owners = [
        (module, name, buffer)
        for network in networks
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    if not owners:
        return None
    joined = torch.cat([buffer.flatten() for _, _, buffer in owners])
    views = joined.split([buffer.numel() for _, _, buffer in owners])
    for (module, name, buffer), view in zip(owners, views, strict=True):
        setattr(module, name, view.view_as(buffer))
    return joined


class RecentNorms:
    """The norms of a player's gradient in the last `window` steps, before clipping.

    They stay on the device, so that the host never waits for their median. All processes have the
    same norms, since gradients are averaged before.
    """

    def __init__(self, window: int, device: torch.device) -> None:
        # The newest is last. Steps that were not taken yet are infinite, and so sorted last.
        self.norms = torch.full((window,), torch.inf, device=device)

    def median(self) -> Tensor:
        """The lower median of the norms; infinite until half of the window is filled, and infinite
        if the median is 0.
        """
        window = len(self.norms)
        count = torch.isfinite(self.norms).sum()
        middle = ((count - 1) // 2).clamp(min=0)
        median = self.norms.sort().values.gather(0, middle.view(1)).squeeze(0)
        return torch.where((count >= window // 2) & (median > 0), median, torch.inf)

    def add(self, norm: Tensor, bad: Tensor) -> None:
        """Add the norm of a step and forget the oldest; does nothing if the step was `bad`."""
        self.norms = torch.where(bad, self.norms, torch.cat((self.norms[1:], norm.view(1))))

    def load(self, norms: Tensor) -> None:
        """Continue from saved `norms`; the newest are taken if the window is now smaller."""
        size = min(len(norms), len(self.norms))
        self.norms[-size:] = norms[-size:]


class Optimizer:
    """One optimizer for all networks that train, with a parameter group for each; it skips bad
    steps.

    Model and adversary are two players: each minimizes its own loss and has its own gradient norm.
    They step together, or neither does if the gradient of one is not finite.

    The device decides whether a step is bad: the fused algorithms leave parameters and moments
    unchanged where `found_inf` is 1. So the host need not wait for a step; it reads the counts of
    bad steps, in all and in a row, when the log is due.

    Attributes:
        algorithm: Adam or SGD of torch, by `train.optimizer`.
        networks: those that train, by name.
        limited: parameters of each network whose gradient has a largest element, and that limit.
    """

    def __init__(
        self, model: Model, adversary: Adversary | None, config: Config, device: torch.device
    ) -> None:
        self.config: TrainConfig = config.train
        self.rates = base_learning_rates(config)
        players = {"model": model.trained_networks}
        if adversary is not None:
            players["discriminator"] = adversary.networks
        self.players: dict[str, list[nn.Parameter]] = {
            player: [p for network in networks.values() for p in network.parameters()]
            for player, networks in players.items()
        }
        self.exchanges = {}
        if distributed.world_size() > 1:
            compress = config.train.gradient_exchange == "bf16"
            self.exchanges = {p: GradientExchange(self.players[p], compress) for p in players}
        self.networks = {n: net for networks in players.values() for n, net in networks.items()}
        limits = {} if config.motion is None else config.motion.infinity_limits
        self.limited = [(list(self.networks[n].parameters()), limits[n]) for n in limits]
        self.algorithm: torch.optim.Optimizer = ALGORITHMS[config.train.optimizer](
            [
                {"params": list(network.parameters()), "name": name, "lr": self.rates[name]}
                for name, network in self.networks.items()
            ],
            fused=True,
            **algorithm_settings(config.train),
        )
        self._start_momentum()
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.train.precision == "fp16", init_scale=2.0**16
        )
        # One tensor for each player: autograd takes all views of a tensor for changed when one is,
        # and would refuse the model's backward pass after the discriminator's buffers have changed.
        joined = [_join_buffers(networks.values()) for networks in players.values()]
        self.statistics = [buffers for buffers in joined if buffers is not None]
        self.bad_steps = torch.zeros((), device=device)
        self.bad_in_a_row = torch.zeros((), device=device)
        self.last_step_bad = torch.zeros((), device=device, dtype=torch.bool)
        self.clipped_steps = torch.zeros((), device=device)  # those clipped by `clip_ratio`
        window = config.train.clip_window
        self.recent_norms = {player: RecentNorms(window, device) for player in self.players}

    def _start_momentum(self) -> None:
        """Give every parameter a momentum of zeros, if SGD has any; Adam does so by itself.

        The fused SGD would allocate it in its first step and, if that step is bad, leave in it
        whatever was in memory. From zeros the first step is the same: 0 times momentum + gradient.
        """
        if self.config.optimizer == "sgd" and self.config.momentum > 0:
            for parameters in self.players.values():
                for p in parameters:
                    self.algorithm.state[p].setdefault("momentum_buffer", torch.zeros_like(p))

    def set_epoch(self, epoch: int) -> None:
        """Set the learning rates of `epoch`, counted from 0: the initial ones, times gamma for each
        milestone passed.
        """
        factor = self.config.gamma ** sum(epoch >= m for m in self.config.milestones)
        for group in self.algorithm.param_groups:
            group["lr"] = self.rates[group["name"]] * factor

    def read_statistics(self) -> dict[str, float]:
        """Scalars for the log: each network's current learning rate, and the numbers of bad and of
        clipped steps since the start of the run. The host waits for the device.
        """
        groups = self.algorithm.param_groups
        rates = {f"learning_rate/{group['name']}": group["lr"] for group in groups}
        return rates | {
            "bad_steps": float(self.bad_steps),
            "clipped_steps": float(self.clipped_steps),
        }

    @contextmanager
    def guarded_buffers(self) -> Iterator[None]:
        """Context manager: restores the buffers of BatchNorm and spectral norm if the step within
        it is bad or raises.

        The optimizer skips a bad step, but the forward pass has already changed the buffers: a
        non-finite activation would stay in the running means of BatchNorm forever, and spectral
        norm updates its vectors in every forward pass.
        """
        before = [statistics.clone() for statistics in self.statistics]
        try:
            yield
        except BaseException:  # such as out of memory; a checkpoint may still be saved after it
            for statistics, old in zip(self.statistics, before, strict=True):
                statistics.copy_(old)
            raise
        for statistics, old in zip(self.statistics, before, strict=True):
            statistics.copy_(torch.where(self.last_step_bad, old, statistics))

    def backward(
        self, losses: dict[str, Tensor], num_parts: int = 1, *, is_last: bool = True
    ) -> None:
        """Accumulate the gradient of each player's loss, scaled for fp16, in its own parameters.
        After the last part of a batch the gradients are the means over all processes.

        No gradient is computed for the other player's parameters, except in compiled networks,
        whose backward passes always compute all gradients.

        Args:
            losses: by player. The dict is emptied: a loss holds its graph, and parts of the
                discriminator's graph are not freed by the model's backward pass.
            num_parts: number of parts of the batch; the losses are those of one part.
            is_last: whether the part is the last one of its batch.
        """
        while losses:
            # The model's is last; its backward pass frees the graph that both players share.
            player = next((name for name in losses if name != "model"), "model")
            loss = self.scaler.scale(losses.pop(player) / num_parts)
            if is_last and player in self.exchanges:
                loss = self.exchanges[player].expect(loss)
            with distributed.exchanging():
                torch.autograd.backward(
                    loss, inputs=self.players[player], retain_graph=bool(losses)
                )

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Clip the gradients, update the parameters unless the step is bad, and clear the
        gradients.

        Args:
            loss: sum of the players' losses; if it is not finite, the step is bad.

        Returns:
            By player, the norm of all its gradients together, before they are clipped together.
        """
        if distributed.world_size() > 1:
            loss = loss.clone()
            distributed.add_up(loss)  # not finite in all processes if it is not in one
        self.scaler.unscale_(self.algorithm)
        self._clip_networks()
        norms = {
            player: nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            for player, parameters in self.players.items()
        }
        norm = torch.stack(list(norms.values())).sum()
        self.last_step_bad = ~(torch.isfinite(norm) & torch.isfinite(loss))
        self._clip(norms)
        counted = self.last_step_bad
        if self.scaler.is_enabled():
            # A gradient that overflows only because of the loss scale is normal in fp16, and is not
            # counted. (Unlike get_scale, scaling 1 gives the scale without waiting for the device.)
            scale = self.scaler.scale(torch.ones_like(norm))
            counted = counted & (torch.isfinite(norm) | (scale <= 1))
        self.bad_steps += counted
        self.bad_in_a_row = torch.where(self.last_step_bad, self.bad_in_a_row + counted, 0.0)
        # Not `scaler.step`, which checks the gradients only: the loss can be infinite while they
        # are finite. `unscale_` has stored what `scaler.update` needs.
        self.algorithm.found_inf = self.last_step_bad.float()  # type: ignore[attr-defined]
        self.algorithm.step()
        self.scaler.update()
        self.algorithm.zero_grad(set_to_none=True)
        return norms

    def _clip_networks(self) -> None:
        """Scale the gradients of each network that has a limit of its own, such that none of their
        elements is above it (TPSMM, as published). A gradient that is not finite stays so.
        """
        for parameters, limit in self.limited:
            if any(p.grad is not None for p in parameters):  # it may not have started
                nn.utils.clip_grad_norm_(parameters, limit, norm_type=math.inf)

    def _clip(self, norms: dict[str, Tensor]) -> None:
        """Clip the gradients of each player to `clip_norm`, and to `clip_ratio` times the median of
        their recent norms.

        The reason for the latter: one step with a nearly singular Jacobian has a finite gradient
        that is thousands of times as large as usual. Its square would stay in Adam's second moment
        for thousands of steps, in which the parameters would hardly move.
        """
        config, spiked = self.config, torch.zeros_like(self.last_step_bad)
        for player, parameters in self.players.items():
            norm, recent = norms[player], self.recent_norms[player]
            limit = torch.full_like(norm, torch.inf)
            if config.clip_ratio is not None:
                limit = config.clip_ratio * recent.median()
                spiked = spiked | (norm > limit)
                recent.add(norm, self.last_step_bad)
            if config.clip_norm is not None:
                limit = limit.clamp(max=config.clip_norm)
            if config.clip_norm is not None or config.clip_ratio is not None:
                # The function takes the limit as a Python number only, so a limit on the device is
                # passed as a factor of the norm.
                nn.utils.clip_grads_with_norm_(parameters, 1.0, norm / limit)
        self.clipped_steps += spiked & ~self.last_step_bad

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, for a checkpoint."""
        return {
            self.config.optimizer: self.algorithm.state_dict(),
            "scaler": self.scaler.state_dict(),
            "bad_steps": self.bad_steps.clone(),
            "bad_in_a_row": self.bad_in_a_row.clone(),
            "clipped_steps": self.clipped_steps.clone(),
            "recent_norms": {name: recent.norms for name, recent in self.recent_norms.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, of the same networks; the config's settings replace saved ones.

        Raises:
            ValueError: `state` is of other networks, or damaged. A damaged one may also raise
                KeyError, TypeError, AttributeError or RuntimeError.
        """
        saved, own = state[self.config.optimizer], self.algorithm.param_groups
        if [group["name"] for group in saved["param_groups"]] != [group["name"] for group in own]:
            raise ValueError("the optimizer's state is of other networks")
        pairs = zip(own, saved["param_groups"], strict=True)
        groups = [{**mine, "params": theirs["params"]} for mine, theirs in pairs]
        self.algorithm.load_state_dict({"state": saved["state"], "param_groups": groups})
        self._check_moments()
        self._start_momentum()  # if the saved run had none
        if state["scaler"]:  # empty if the run was not in fp16
            self.scaler.load_state_dict(state["scaler"])
        self.bad_steps.copy_(state["bad_steps"])
        self.bad_in_a_row.copy_(state["bad_in_a_row"])
        if not math.isfinite(self.bad_steps + self.bad_in_a_row):
            raise ValueError("the numbers of bad steps are not finite")
        if "recent_norms" in state:  # checkpoints of format 1 have none
            self.clipped_steps.copy_(state["clipped_steps"])
            for player, norms in state["recent_norms"].items():
                self.recent_norms[player].load(norms)

    def _check_moments(self) -> None:
        """Raise ValueError unless every parameter that has a state has a whole and fitting one;
        torch itself would find that out in the first step.
        """
        names = _STATES[self.config.optimizer]
        for parameter, state in self.algorithm.state.items():
            shapes = {name: torch.Size() if name == "step" else parameter.shape for name in names}
            if state and {name: value.shape for name, value in state.items()} != shapes:
                raise ValueError("the optimizer's state does not fit the parameters")


class MovingAverage:
    """Exponential moving average of the weights and the BatchNorm statistics, on the device.

    After n updates the decay is at most (1 + n) / (10 + n), so that the random initial weights are
    soon forgotten.

    Attributes:
        model: a model with the averaged networks. It shares frozen ones with the trained model.
        networks: the averaged networks, by name.
    """

    def __init__(self, model: Model, decay: float) -> None:
        trained = model.trained_networks
        frozen = (network for name, network in model.networks.items() if name not in trained)
        shared = {id(network): network for network in frozen}
        self.model = copy.deepcopy(model, shared).requires_grad_(False)
        self.networks = {name: self.model.networks[name] for name in trained}
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move the average towards `model`; also after a skipped step, which leaves the model as it
        was.
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        networks = model.networks
        for name, own in self.networks.items():
            averages += own.parameters()
            currents += networks[name].parameters()
            for average, current in zip(own.buffers(), networks[name].buffers(), strict=True):
                if average.is_floating_point():
                    averages.append(average)
                    currents.append(current)
                else:
                    average.copy_(current)  # BatchNorm's number of batches
        get_ema_multi_avg_fn(decay)(averages, currents, self.num_updates)

    def state(self) -> dict[str, Any]:
        """The averaged networks by name and the number of updates, for a checkpoint."""
        networks = {name: network.state_dict() for name, network in self.networks.items()}
        return {"networks": networks, "num_updates": self.num_updates}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue the average that `state` holds."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.num_updates = state["num_updates"]
