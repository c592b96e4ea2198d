"""Adam as published, the learning rate's schedule, skipping of bad steps, moving average."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from branches.model import Model
from common.speed_trial import HALF_DTYPES
from configs.schema import Config, TrainConfig
from training.adversary import Adversary
from training.distributed import processes as distributed


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of `train.precision`, not `auto`; switched off for float32."""
    assert precision != "auto", "auto_settings.resolve was not called"
    dtype = HALF_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def base_learning_rates(config: Config) -> dict[str, float]:
    """The initial learning rate of each network: its own, or `train.learning_rate`."""
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


def _join_buffers(network: nn.Module) -> Tensor | None:
    """Move the floating-point buffers into one tensor, of which they become views.

    One clone then saves the statistics of every BatchNorm, or the vectors of every spectral norm,
    instead of one for each. None for a network without any.
    """
    owners = [
        (module, name, buffer)
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
    """Norms of a player's gradient in the last steps, before clipping, and their median; on the
    device, so that asking for it waits for nothing. Every process has the same: gradients are
    averaged before their norm is taken.
    """

    def __init__(self, window: int, device: torch.device) -> None:
        # The newest last. Infinite where there was no step yet, which puts them last when sorted.
        self.norms = torch.full((window,), torch.inf, device=device)

    def median(self) -> Tensor:
        """The lower median; infinite before half of the window has passed, or where it is 0."""
        window = len(self.norms)
        count = torch.isfinite(self.norms).sum()
        middle = ((count - 1) // 2).clamp(min=0)
        median = self.norms.sort().values.gather(0, middle.view(1)).squeeze(0)
        return torch.where((count >= window // 2) & (median > 0), median, torch.inf)

    def add(self, norm: Tensor, bad: Tensor) -> None:
        """Add a step's, and forget the oldest; nothing of a `bad` one."""
        self.norms = torch.where(bad, self.norms, torch.cat((self.norms[1:], norm.view(1))))

    def load(self, norms: Tensor) -> None:
        """Continue from saved `norms`, of as many steps as there were and there are room for."""
        size = min(len(norms), len(self.norms))
        self.norms[-size:] = norms[-size:]


class Optimizer:
    """One Adam for all networks, a parameter group each; knows how to skip a bad step.

    The model and the adversary are two players: each has a gradient of its own, with its own norm,
    and neither's loss reaches the other. They step together, or not at all where one is bad.

    Whether a gradient is finite is decided on the device: the fused Adam leaves parameters and
    moments alone where `found_inf` is 1. So a step needs no round trip to the host; the counts of
    bad steps, in all and in a row, are read when the log is due.
    """

    def __init__(
        self, model: Model, adversary: Adversary | None, config: Config, device: torch.device
    ) -> None:
        self.config: TrainConfig = config.train
        self.rates = base_learning_rates(config)
        self.players: dict[str, list[nn.Parameter]] = {"model": list(model.parameters())}
        networks = model.networks
        if adversary is not None:
            self.players["discriminator"] = list(adversary.parameters())
            networks |= adversary.networks
        self.adam = torch.optim.Adam(
            [
                {"params": list(network.parameters()), "name": name, "lr": self.rates[name]}
                for name, network in networks.items()
            ],
            betas=(config.train.betas[0], config.train.betas[1]),
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.train.precision == "fp16", init_scale=2.0**16
        )
        # Apart for the players: views of one tensor count as changed together, and autograd would
        # miss those of the model when the discriminator's change before the backward pass.
        joined = [_join_buffers(player) for player in (model, adversary) if player is not None]
        self.statistics = [buffers for buffers in joined if buffers is not None]
        self.bad_steps = torch.zeros((), device=device)
        self.bad_in_a_row = torch.zeros((), device=device)
        self.last_step_bad = torch.zeros((), device=device, dtype=torch.bool)
        self.clipped_steps = torch.zeros((), device=device)  # by `clip_ratio`
        window = config.train.clip_window
        self.recent_norms = {player: RecentNorms(window, device) for player in self.players}

    def set_epoch(self, epoch: int) -> None:
        """Learning rates of epoch `epoch` (from 0): times gamma for each milestone passed."""
        factor = self.config.gamma ** sum(epoch >= m for m in self.config.milestones)
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * factor

    def read_statistics(self) -> dict[str, float]:
        """The learning rate of each network now, and counts of steps since the start of the run.

        Waits for the device.
        """
        rates = {f"learning_rate/{group['name']}": group["lr"] for group in self.adam.param_groups}
        return rates | {
            "bad_steps": float(self.bad_steps),
            "clipped_steps": float(self.clipped_steps),
        }

    @contextmanager
    def guarded_buffers(self) -> Iterator[None]:
        """Put the statistics of BatchNorm and spectral norm back if the step inside turns out bad.

        The optimizer skips a bad step, but the forward pass has already put its non-finite
        activations into the running means, which no later step would wash out. Spectral norm, too,
        moves its vectors in every forward pass.
        """
        before = [statistics.clone() for statistics in self.statistics]
        try:
            yield
        except BaseException:  # out of memory: what is saved now must be as it was before the step
            for statistics, old in zip(self.statistics, before, strict=True):
                statistics.copy_(old)
            raise
        for statistics, old in zip(self.statistics, before, strict=True):
            statistics.copy_(torch.where(self.last_step_bad, old, statistics))

    def backward(self, losses: dict[str, Tensor], num_parts: int = 1) -> None:
        """Accumulate the gradient of each player's loss, scaled for fp16, in that player's
        parameters; nothing is computed for those of the other, but in compiled networks, whose
        backward passes are whole.

        Args:
            losses: by player. They are taken out: with the last of them goes the graph of what the
                discriminator alone has judged, which the model's backward pass does not visit.
            num_parts: of the batch; the losses are those of one of them.
        """
        while losses:
            # The model's comes last, and frees the graph through the discriminator that both share.
            player = next((name for name in losses if name != "model"), "model")
            loss = losses.pop(player) / num_parts
            torch.autograd.backward(
                self.scaler.scale(loss), inputs=self.players[player], retain_graph=bool(losses)
            )

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Average over all processes, clip, update unless `loss`, the sum of the players', or a
        gradient is not finite, and clear the gradients.

        Returns:
            For each player the norm of all its gradients together, before clipping.
        """
        if distributed.world_size() > 1:
            loss = loss.clone()
            # Together, and before anything is concluded from them: all processes conclude the same.
            distributed.average([*self._gradients(), loss])
        self.scaler.unscale_(self.adam)
        norms = {
            player: nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            for player, parameters in self.players.items()
        }
        norm = torch.stack(list(norms.values())).sum()
        self.last_step_bad = ~(torch.isfinite(norm) & torch.isfinite(loss))
        self._clip(norms)
        counted = self.last_step_bad
        if self.scaler.is_enabled():
            # Gradients that a smaller loss scale can mend are part of fp16, not a bad step.
            # (Scaling a one reads the loss scale without a round trip, unlike get_scale.)
            scale = self.scaler.scale(torch.ones_like(norm))
            counted = counted & (torch.isfinite(norm) | (scale <= 1))
        self.bad_steps += counted
        self.bad_in_a_row = torch.where(self.last_step_bad, self.bad_in_a_row + counted, 0.0)
        # Not the scaler's step: it looks at the gradients alone, and the loss can be infinite
        # where they are not. Its `unscale_` has kept what `update` needs.
        self.adam.found_inf = self.last_step_bad.float()  # type: ignore[attr-defined]
        self.adam.step()
        self.scaler.update()
        self.adam.zero_grad(set_to_none=True)
        return norms

    def _clip(self, norms: dict[str, Tensor]) -> None:
        """Shorten the gradients of each player to `clip_norm`, and to `clip_ratio` times the median
        of their norms so far.

        One step with a Jacobian near to singular has a gradient thousands of times as long as
        others, finite all the same. Its square would stay in Adam's second moment for thousands of
        steps, in which nothing moves.
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
                # A limit that lies on the device has to come in this way: as a part of the norm.
                nn.utils.clip_grads_with_norm_(parameters, 1.0, norm / limit)
        self.clipped_steps += spiked & ~self.last_step_bad

    def _gradients(self) -> list[Tensor]:
        """Of both players; what has not started has none, in any process."""
        parameters = [p for player in self.players.values() for p in player]
        return [p.grad for p in parameters if p.grad is not None]

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "adam": self.adam.state_dict(),
            "scaler": self.scaler.state_dict(),
            "bad_steps": self.bad_steps.clone(),
            "bad_in_a_row": self.bad_in_a_row.clone(),
            "clipped_steps": self.clipped_steps.clone(),
            "recent_norms": {name: recent.norms for name, recent in self.recent_norms.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by the same networks; the config's settings win over its."""
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:
            group["betas"] = (self.config.betas[0], self.config.betas[1])
        if state["scaler"]:  # empty where that run was not in fp16
            self.scaler.load_state_dict(state["scaler"])
        self.bad_steps.copy_(state["bad_steps"])
        self.bad_in_a_row.copy_(state["bad_in_a_row"])
        if "recent_norms" in state:  # not in checkpoints of format 1
            self.clipped_steps.copy_(state["clipped_steps"])
            for player, norms in state["recent_norms"].items():
                self.recent_norms[player].load(norms)


class MovingAverage:
    """Exponential moving average of the weights and BatchNorm statistics, on the device.

    Early on the decay is smaller, (1 + n) / (10 + n) after n updates, so that the random start
    is forgotten.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move towards `model`. A skipped step left it as it was, so it needs no care here."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages: list[Tensor] = list(self.model.parameters())
        currents: list[Tensor] = list(model.parameters())
        for average, current in zip(self.model.buffers(), model.buffers(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)  # BatchNorm's number of batches
        get_ema_multi_avg_fn(decay)(averages, currents, self.num_updates)

    def state(self) -> dict[str, Any]:
        """The averaged networks and the number of updates, for a checkpoint."""
        return {"networks": self.model.state(), "num_updates": self.num_updates}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue the average that `state` holds."""
        for name, network in self.model.networks.items():
            network.load_state_dict(state["networks"][name])
        self.num_updates = state["num_updates"]
