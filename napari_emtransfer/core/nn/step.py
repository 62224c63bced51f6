"""One optimiser step: mixed precision, gradient clipping, and smaller parts when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.errors import DeviceError, EMTransferError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.dataset import Batch
from napari_emtransfer.core.nn.ema import WeightAverage
from napari_emtransfer.core.nn.losses import SegmentationLoss, is_dense
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.strategy import parameter_groups, schedule

# Fabric announces the precision on every run; the run card says it already.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

GRADIENT_NORM: Final = 1.0
EMA_DECAY: Final = 0.98


class Optimization:
    """The network, its optimiser and its averaged weights on one device.

    Parameters
    ----------
    model
        Trained in place.
    notify
        Told in words when the batch had to be cut up.
    """

    def __init__(
        self, model: SegmentationModel, config: TrainConfig, device: torch.device, notify: Callable[[str], None]
    ) -> None:
        devices.keep_freed_memory()
        # All crops have one shape, so trying out the convolution algorithms pays; only the CPU promises equal runs.
        torch.backends.cudnn.benchmark = device.type == "cuda"
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.type == "cuda" else 1,
            precision=devices.resolve_precision(config.compute.precision, device),
        )
        self.model = devices.moved(model, device)
        self._optimizer = torch.optim.AdamW(parameter_groups(model, config), fused=device.type in ("cpu", "cuda"))
        self._wrapped, self._stepper = fabric.setup(self.model, self._optimizer)
        self._fabric, self._device, self._notify, self._seed = fabric, device, notify, config.compute.seed
        self._loss = SegmentationLoss()
        self.average = WeightAverage(self.model, EMA_DECAY)
        self.part_size = config.batch_size

    def step(self, batch: Batch, iteration: int, progress: float) -> Tensor:
        """One update from `batch` at `progress` in [0, 1] of the run → its loss, a scalar left on the device.

        Raises
        ------
        DeviceError
            When not even one crop fits the memory.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(progress)
        # Dropout draws from here: a resumed run repeats what an unbroken one would have drawn.
        torch.manual_seed(self._seed * 1_000_003 + iteration)
        self._wrapped.train()
        loss = self._gradients_within_memory(batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self._stepper.step()
        self.average.update(iteration)
        return loss

    def _gradients_within_memory(self, batch: Batch) -> Tensor:
        while True:
            try:
                return self._gradients(batch)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
            # Outside the handler: the traceback holds the tensors that are to be freed.
            self._shrink()

    def _gradients(self, batch: Batch) -> Tensor:
        """Accumulate the gradients of the whole batch, part by part → its loss."""
        self._stepper.zero_grad()
        dense, labelled = is_dense(batch.targets), float((batch.targets != IGNORE_INDEX).sum())
        total = torch.zeros((), device=self._device)
        parts = zip(batch.images.split(self.part_size), batch.targets.split(self.part_size), strict=True)
        for images, targets in parts:
            on_device = images.to(self._device, memory_format=torch.channels_last, non_blocking=True)
            logits = self._forward(on_device)
            loss = self._loss(
                logits,
                targets.to(self._device, non_blocking=True),
                normalizer=labelled,
                dense=dense,
                share=len(images) / len(batch.images),
            )
            self._fabric.backward(loss)
            total += loss.detach()
        return total

    def _forward(self, images: Tensor) -> Tensor:
        try:
            return self._wrapped(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise EMTransferError(
                f"{self.model.config.architecture} cannot be trained on {len(images)} crop of "
                f"{images.shape[-1]} px at a time: a batch norm sees a single value.",
                "Use a batch of 2 or more, larger crops, or the Unet.",
            ) from error

    def _shrink(self) -> None:
        if self.part_size == 1:
            raise DeviceError(
                f"The memory of {self._device} does not hold one crop.",
                "Use smaller crops, a smaller encoder, or another device.",
            )
        self.part_size = (self.part_size + 1) // 2
        devices.empty_cache(self._device)
        self._notify(f"Memory ran out: each batch is now computed in parts of {self.part_size}.")

    def learning_rates(self) -> dict[str, float]:
        """Present rate of each part of the network."""
        return {group["part"]: group["lr"] for group in self._optimizer.param_groups}

    def resume_state(self) -> dict[str, Tensor]:
        """Raw weights and optimiser moments, flat, to store beside the averaged weights."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        for index, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in entry.items()}
        return tensors

    def restore(self, average: Mapping[str, Tensor], resume: Mapping[str, Tensor]) -> None:
        """Take up where `resume_state` was written."""
        self.model.load_state_dict({k.removeprefix("model/"): v for k, v in resume.items() if k.startswith("model/")})
        self.average.load(average)
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Any]] = {}
        for key, value in resume.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                entries.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], value)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": entries})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the memory order of its parameter: the fused optimiser walks both by address, whatever the strides."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
