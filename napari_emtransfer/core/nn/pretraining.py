"""Pretraining on a stream of synthetic episodes: made while it learns, no disk, resumable to the bit on a CPU."""

from __future__ import annotations

import io
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.storage import storage_faults, write_atomic
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.ema import WeightAverage
from napari_emtransfer.core.nn.episodic import EpisodicNetwork, objective_loss
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.recipe import PretrainRecipe
from napari_emtransfer.core.synth.episodes import Episode, make_episode

_GRADIENT_NORM: Final = 1.0
_REPORT_EVERY: Final = 20
_PREFETCHED: Final = 4
_PARTS: Final = ("encoder.", "decoder.")


@dataclass(frozen=True)
class Report:
    """Means over the steps since the last report; `waited` is the share of the time spent waiting for micrographs."""

    step: int
    loss: float
    parts: dict[str, float]
    rate: float
    seconds_per_step: float
    waited: float


class _Episodes(Dataset[Episode]):
    """Episode of (number, tile size), for the loader's processes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Episode:
        number, tile_px = key
        return make_episode(self._seed, number, tile_px)


class _Steps(Sampler[list[tuple[int, int]]]):
    """Which episodes each step from `start` on takes."""

    def __init__(self, recipe: PretrainRecipe, start: int) -> None:
        self._recipe, self._start = recipe, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self._start, self._recipe.steps):
            stage, first = self._recipe.stage_at(step), self._recipe.first_episode(step)
            yield [(number, stage.tile_px) for number in range(first, first + stage.episodes)]


class Pretraining:
    """Trains an embedding network by a recipe; `state` is a resumable file.

    Parameters
    ----------
    device
        As `ComputeConfig.device`.
    n_workers
        Processes that make micrographs; 0 makes them in between.
    """

    def __init__(self, recipe: PretrainRecipe, *, device: str = "auto", n_workers: int = 1) -> None:
        self.recipe = recipe
        self.device = devices.resolve_device(device)
        self._n_workers = n_workers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            config = ModelConfig(architecture=recipe.architecture, encoder=recipe.encoder, n_classes=recipe.embedding)
            network = EpisodicNetwork(build_model(config))
        self.network = devices.moved(network, self.device)
        self._optimizer = torch.optim.AdamW(self._groups(), lr=recipe.learning_rate)
        self._average = WeightAverage(self.network, recipe.average)
        precision = devices.resolve_precision(recipe.precision, self.device)
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        self.step = 0
        self.seconds = 0.0

    def fit(
        self,
        report: Callable[[Report], None],
        should_stop: Callable[[], bool],
        *,
        state: Path | None = None,
        save_every: int = 500,
    ) -> None:
        """Train from `self.step` to the end of the recipe, or until told to stop; the state is saved on the way.

        Raises
        ------
        EMTransferError
            When the loss becomes infinite or nan.
        StorageError
            When the state cannot be written.
        """
        losses, waited, began = defaultdict[str, list[float]](list), 0.0, time.monotonic()
        batches = iter(self._loader())
        while self.step < self.recipe.steps and not should_stop():
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            for name, value in self._train(batch).items():
                losses[name].append(value)
            self.step += 1
            self._check(losses["loss"][-1])  # before anything is saved: no state is better than one of nan
            if self.step % _REPORT_EVERY == 0 or self.step == self.recipe.steps:
                seconds, began = time.monotonic() - began, time.monotonic()
                self.seconds += seconds
                report(self._report(losses, seconds, waited))
                losses.clear()
                waited = 0.0
            if state is not None and self.step % save_every == 0:
                self.save(state)
        self.seconds += time.monotonic() - began  # of the steps since the last report
        if state is not None:
            self.save(state)

    def _train(self, batch: dict[str, Tensor]) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.network.train()
        moved = {name: value.to(self.device) for name, value in batch.items()}
        images = moved["images"].flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        with self._autocast:
            embedding = self.network(images)
        # Which pixels are labelled belongs to the step, so that a resumed run draws the same.
        rng = np.random.default_rng([self.recipe.seed, 1, self.step])
        loss, parts = objective_loss(self.network, moved, embedding, self.recipe.objective, rng)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._average.update(self.step)
        return {"loss": float(loss.detach()), **parts}

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise EMTransferError(
                f"The loss became {loss} by step {self.step}.",
                f"Lower the recipe's learning rate ({self.recipe.learning_rate:g} now).",
            )

    def _report(self, losses: dict[str, list[float]], seconds: float, waited: float) -> Report:
        means = {name: float(np.mean(values)) for name, values in losses.items()}
        loss = means.pop("loss")
        n = max(1, len(losses["loss"]))
        return Report(self.step, loss, means, self.recipe.rate(self.step - 1), seconds / n, waited / seconds)

    def _loader(self) -> DataLoader[Episode]:
        return DataLoader(
            _Episodes(self.recipe.seed),
            batch_sampler=_Steps(self.recipe, self.step),
            collate_fn=_collate,
            num_workers=self._n_workers,
            prefetch_factor=_PREFETCHED if self._n_workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
        )

    def _groups(self) -> list[dict[str, Any]]:
        """Norms, biases and the ridge's own numbers without weight decay."""
        parameters = list(self.network.parameters())
        decays = {True: self.recipe.weight_decay, False: 0.0}
        return [
            {"params": [p for p in parameters if (p.ndim > 1) == mixing], "weight_decay": decay}
            for mixing, decay in decays.items()
        ]

    def weights(self) -> dict[str, Tensor]:
        """Averaged encoder and decoder under the names of a segmentation network, half precision where floating."""
        state = {k.removeprefix("model."): v.detach().cpu() for k, v in self._average.state.items()}
        kept = {k: v for k, v in state.items() if k.startswith(_PARTS)}
        return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in kept.items()}

    def save(self, path: Path) -> None:
        """Everything that a resumed pretraining needs; one that is killed meanwhile leaves the state before."""
        content = {
            "recipe": self.recipe.model_dump_json(),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self._average.state,
            "optimizer": self._optimizer.state_dict(),
        }
        file = io.BytesIO()  # of a full disk torch.save would say what nobody understands
        torch.save(content, file)
        with storage_faults(path):
            write_atomic(path, file.getvalue())

    def resume(self, path: Path) -> None:
        """Go on from a saved state; the recipe may have been made longer, or its cool-down moved, since.

        Raises
        ------
        EMTransferError
            When the file is no state, is of another network, or further than the recipe goes.
        """
        content, before = _read_state(path)
        same = ("seed", "architecture", "encoder", "embedding", "objective")
        changed = [name for name in same if getattr(before, name) != getattr(self.recipe, name)]
        if changed or content["step"] > self.recipe.steps:
            what = f"another {changed[0]}" if changed else f"{content['step']} steps, more than the recipe's"
            raise EMTransferError(
                f"The state {path.name!r} is of {what}.", "Remove that file to begin anew, or name another --out."
            )
        self.network.load_state_dict(content["network"])
        self._average.load(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.step, self.seconds = content["step"], content["seconds"]


def _read_state(path: Path) -> tuple[dict[str, Any], PretrainRecipe]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content, PretrainRecipe.model_validate_json(content["recipe"])
    except Exception as error:
        # What is no state fails in many ways: UnpicklingError, IndexError, EOFError, KeyError, ValidationError, …
        reason = (str(error) or type(error).__name__).split("\n")[0][:160]
        raise EMTransferError(
            f"The file {str(path)!r} is no state of a pretraining: {reason}.", "Remove it to begin anew."
        ) from error


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: those that make micrographs wait until the trainer ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _collate(episodes: list[Episode]) -> dict[str, Tensor]:
    names = ("images", "classes", "clean", "boundaries")
    return {name: torch.from_numpy(np.stack([getattr(e, name) for e in episodes])) for name in names}
