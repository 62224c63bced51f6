"""One optimiser step: mixed precision, gradient clipping, and smaller parts when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import DeviceError, EMTransferError
from napari_emtransfer.core.events import ParameterGroup
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.dataset import Batch
from napari_emtransfer.core.nn.ema import WeightAverage
from napari_emtransfer.core.nn.l2sp import L2SP
from napari_emtransfer.core.nn.losses import SegmentationLoss, is_dense
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.normalization import resting
from napari_emtransfer.core.nn.strategy import Plan, resolve_normalization, schedule
from napari_emtransfer.core.nn.training_accuracy import RunningAccuracy
from napari_emtransfer.core.rates import is_pretrained, trains_encoder

# Fabric announces the precision on every run; the run card says it already.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

GRADIENT_NORM: Final = 1.0


class Optimization:
    """The network, its optimiser and its averaged weights on one device.

    A frozen encoder costs nothing backwards: nothing of it asks for a gradient, so autograd records none of it.

    Parameters
    ----------
    model
        Trained in place.
    plan
        Parts of the model and the stages in which they learn; it begins in the first one.
    loss
        With class weights and label smoothing.
    notify
        Told in words when the batch had to be cut up.
    """

    def __init__(
        self,
        model: SegmentationModel,
        config: TrainConfig,
        plan: Plan,
        loss: SegmentationLoss,
        device: torch.device,
        notify: Callable[[str], None],
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
        self._config, self._plan, self._device, self._notify = config, plan, device, notify
        first = [{**group, "began": 0.0} for group in plan.groups(0, set())]
        self._optimizer = torch.optim.AdamW(first, fused=device.type in ("cpu", "cuda"))
        self._wrapped, self._stepper = fabric.setup(self.model, self._optimizer)
        self._fabric, self._loss = fabric, loss
        self._begin(0)
        self._anchor = self._anchored()
        self.accuracy = RunningAccuracy(model.n_classes)
        self.average = WeightAverage(self.model, config.average)
        self.part_size = config.batch_size

    def advance(self, progress: float) -> None:
        """Begin the next stage at `progress` in [0, 1] of the run: its new parameters warm up from there."""
        for group in self._plan.groups(self._stage + 1, self._parts()):
            self._optimizer.add_param_group({**group, "began": progress})
        self._begin(self._stage + 1)

    def _begin(self, stage: int) -> None:
        self._stage = stage
        self._plan.freeze(stage)
        self._resting = resting(self.model, resolve_normalization(self._config))

    def _anchored(self) -> L2SP | None:
        pulls = self._config.l2_sp > 0 and is_pretrained(self._config) and trains_encoder(self._config)
        return L2SP(self.model, self._config.l2_sp) if pulls else None

    def _parts(self) -> set[str]:
        return {group["part"] for group in self._optimizer.param_groups}

    def step(self, batch: Batch, iteration: int, progress: float) -> Tensor:
        """One update from `batch` at `progress` in [0, 1] of the run → its loss, a scalar left on the device.

        Raises
        ------
        DeviceError
            When not even one crop fits the memory.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(progress, self._config.schedule, group["began"])
        # Dropout draws from here: a resumed run repeats what an unbroken one would have drawn.
        torch.manual_seed(self._config.compute.seed * 1_000_003 + iteration)
        self._wrapped.train()
        for module in self._resting:
            module.eval()
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
        dense, labelled = is_dense(batch.targets), float(self._loss.labelled_weight(batch.targets, batch.weights))
        total = torch.zeros((), device=self._device)
        for images, targets, weights in self._parts_of(batch):
            logits = self._forward(images)
            loss = self._loss(
                logits,
                targets,
                pixel_weights=weights,
                normalizer=labelled,
                dense=dense,
                share=len(images) / len(batch.images),
            )
            self._fabric.backward(loss)
            self.accuracy.update(logits.detach(), targets)
            total += loss.detach()
        return total + self._pull_back()

    def _parts_of(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Images, targets and weights on the device, in parts that fit its memory."""
        for start in range(0, len(batch.images), self.part_size):
            part = slice(start, start + self.part_size)
            images = batch.images[part].to(self._device, memory_format=torch.channels_last, non_blocking=True)
            weights = None if batch.weights is None else batch.weights[part].to(self._device, non_blocking=True)
            yield images, batch.targets[part].to(self._device, non_blocking=True), weights

    def _pull_back(self) -> Tensor | float:
        """Add the gradient of the pull towards the pretrained weights, once per step → its share of the loss."""
        penalty = self._anchor.penalty() if self._anchor is not None else None
        if penalty is None or not penalty.requires_grad:
            return 0.0
        self._fabric.backward(penalty)
        return penalty.detach()

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
        """Present rate of each part of the network that learns."""
        return {group["part"]: group["lr"] for group in self._optimizer.param_groups}

    def groups(self) -> tuple[ParameterGroup, ...]:
        """What learns alike, at its peak rate, then what is frozen."""
        learning = [
            ParameterGroup(
                part=group["part"],
                n_parameters=_count(group["params"]),
                learning_rate=group["peak_lr"],
                weight_decay=group["weight_decay"],
            )
            for group in self._optimizer.param_groups
        ]
        frozen = [
            ParameterGroup(part=part, n_parameters=_count(self._plan.parts[part]), learning_rate=0.0, weight_decay=0.0)
            for part in self._plan.frozen(self._stage)
        ]
        return (*learning, *frozen)

    def resume_state(self) -> dict[str, Tensor]:
        """Raw weights, optimiser moments and pretrained weights, flat, to store beside the averaged weights."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        for index, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in entry.items()}
        if self._anchor is not None:
            tensors |= {f"anchor/{i}": v for i, v in enumerate(self._anchor.anchors)}
        return tensors

    def restore(self, average: Mapping[str, Tensor], resume: Mapping[str, Tensor], began: Sequence[float]) -> None:
        """Take up where `resume_state` was written, in the last of the stages that `began`."""
        for progress in began[1:]:
            self.advance(progress)
        self.model.load_state_dict({k.removeprefix("model/"): v for k, v in resume.items() if k.startswith("model/")})
        self.average.load(average)
        if self._anchor is not None:
            self._anchor.restore([resume[f"anchor/{i}"] for i in range(len(self._anchor.anchors))])
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Any]] = {}
        for key, value in resume.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                entries.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], value)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": entries})


def _count(parameters: Sequence[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the memory order of its parameter: the fused optimiser walks both by address, whatever the strides."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
