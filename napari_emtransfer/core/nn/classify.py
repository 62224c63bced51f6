"""Pretraining of an encoder on classified micrographs, with an auxiliary head that is thrown away afterwards.

Source: Goetz et al., npj Comput. Mater. 8, 27 (2022): ImageNet → an archive of SEM images in classes → the task; the
head is a global average pooling, a dropout of 0.5 and a linear layer, and the encoder learns ten times slower than the
decoder in the task that follows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from napari_emtransfer.core import events
from napari_emtransfer.core.config import ModelConfig, TrainConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.classify_data import ClassBatch, ClassifiedImage, ClassSampler, fixed_views
from napari_emtransfer.core.nn.ema import WeightAverage
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pace import Pace
from napari_emtransfer.core.nn.prefetch import prefetched
from napari_emtransfer.core.rates import is_pretrained, learning_rate, measured_encoder_rate, resolve_weights

DROPOUT: Final = 0.5
ENCODER_RATIO: Final = 0.1
_WARM_UP: Final = 0.05
_GRADIENT_NORM: Final = 1.0
_NORMAL_95: Final = 1.959964


class ImageClassifier(nn.Module):
    """Encoder and auxiliary head: (N, 1, H, W) standardised intensities → (N, C) logits."""

    def __init__(self, encoder: nn.Module, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(n_features, n_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → logits (N, C)."""
        return cast(Tensor, self.head(self.encoder(images)[-1]))


def build_classifier(config: TrainConfig, n_classes: int) -> ImageClassifier:
    """The network that a pretraining starts from; the same for the same seed. Raises as `build_model` does."""
    with torch.random.fork_rng():
        torch.manual_seed(config.compute.seed)
        model_config = ModelConfig(architecture=config.architecture, encoder=config.encoder, n_classes=1)
        encoder = build_model(model_config, resolve_weights(config)).encoder
        return ImageClassifier(encoder, cast(Sequence[int], encoder.out_channels)[-1], n_classes)


def encoder_rate(config: TrainConfig) -> float:
    """Peak rate of the encoder: as given, as the weights state, a tenth of the head's, or the head's from scratch."""
    if config.encoder_learning_rate is not None:
        return config.encoder_learning_rate
    if not is_pretrained(config):
        return learning_rate(config)
    return measured_encoder_rate(config) or ENCODER_RATIO * learning_rate(config)


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out images that are put into their class: of all, with a 95 % interval (Wilson), and per class."""

    overall: float
    ci95: tuple[float, float]
    per_class: dict[str, float]
    n_images: int


class EncoderPretraining:
    """Trains an `ImageClassifier` in place for `config.iterations`, or for `config.minutes`.

    AdamW with weight decay on mixing weights only, warm-up and cosine, gradient clipping; what is kept is the running
    average of the weights. It emits IterationEnded, at most ten a second.
    """

    def __init__(self, model: ImageClassifier, config: TrainConfig, sampler: ClassSampler) -> None:
        self.device = devices.resolve_device(config.compute.device)
        self.model = devices.moved(model, self.device)
        self.config, self._sampler = config, sampler
        rates = {"encoder": encoder_rate(config), "head": learning_rate(config)}
        groups = [g for part, rate in rates.items() for g in _groups(part, getattr(model, part), rate, config)]
        self._optimizer = torch.optim.AdamW(groups)
        self._average = WeightAverage(self.model, config.average)
        self._loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        precision = devices.resolve_precision(config.compute.precision, self.device)
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        self.seconds = 0.0

    def fit(self, run_id: str, emit: Callable[[events.Event], None], should_stop: Callable[[], bool]) -> int:
        """Train → iterations done; the model holds the averaged weights afterwards.

        Raises
        ------
        EMTransferError
            When the loss becomes infinite or nan.
        """
        config = self.config
        devices.seed_everything(config.compute.seed)
        budget = None if config.minutes is None else 60 * config.minutes
        pace = Pace(config.iterations, config.iterations, budget, 0.0, 0.0)
        iteration, losses = 0, list[Tensor]()
        with prefetched(self._sampler, 0) as batches:
            while iteration < config.iterations and not should_stop() and not pace.over_budget:
                started = time.monotonic()
                losses.append(self._step(next(batches), iteration, pace.progress(iteration)))
                iteration += 1
                pace.step_took(time.monotonic() - started)
                if pace.may_speak() or iteration == config.iterations:
                    emit(self._told(run_id, iteration, losses, pace))
        if losses:  # stopped, or out of time: what is kept must not be nan either
            emit(self._told(run_id, iteration, losses, pace))
        self.seconds = pace.seconds
        self.model.load_state_dict(self._average.state)
        return iteration

    def _step(self, batch: ClassBatch, iteration: int, progress: float) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * _share_of_peak(progress)
        self.model.train()
        images = batch.images.to(self.device, memory_format=torch.channels_last)
        with self._autocast:
            loss = self._loss(self.model(images), batch.labels.to(self.device))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._average.update(iteration)
        return cast(Tensor, loss.detach())

    def _told(self, run_id: str, iteration: int, losses: list[Tensor], pace: Pace) -> events.IterationEnded:
        loss = float(torch.stack(losses).mean())
        losses.clear()
        if not math.isfinite(loss):
            raise EMTransferError(
                f"The loss became {loss} by iteration {iteration}.",
                f"Lower the learning rate ({learning_rate(self.config):g} now).",
            )
        return events.IterationEnded(
            run_id=run_id,
            iteration=iteration,
            loss=loss,
            learning_rates={group["part"]: group["lr"] for group in self._optimizer.param_groups},
            seconds_left=pace.seconds_left(iteration),
            memory_gb=devices.process_memory_gb(self.device),
        )

    @torch.inference_mode()
    def measure(
        self, images: Iterable[ClassifiedImage], classes: Sequence[str], should_stop: Callable[[], bool]
    ) -> Accuracy | None:
        """Accuracy on held-out images, each judged by the mean probability of five views; None when stopped."""
        self.model.eval()
        right: dict[int, list[bool]] = {label: [] for label in range(len(classes))}
        for image in images:
            if should_stop():
                return None
            views = fixed_views(image.image, self.config.crop_px).to(self.device, memory_format=torch.channels_last)
            with self._autocast:
                logits = self.model(views)
            guess = int(logits.float().softmax(dim=1).mean(dim=0).argmax())
            right[image.label].append(guess == image.label)
        every = [hit for hits in right.values() for hit in hits]
        per_class = {classes[label]: sum(hits) / len(hits) for label, hits in right.items() if hits}
        return Accuracy(sum(every) / len(every), wilson_interval(sum(every), len(every)), per_class, len(every))

    def encoder_tensors(self) -> dict[str, Tensor]:
        """The averaged encoder, under the names that segmentation networks have for it."""
        state = self._average.state
        return {k: v.detach().cpu().contiguous() for k, v in state.items() if k.startswith("encoder.")}


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 22, 209 (1927)), which holds for few and for all-right images too."""
    share, z2 = n_right / n, _NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _groups(part: str, module: nn.Module, rate: float, config: TrainConfig) -> list[dict[str, object]]:
    """Optimiser groups of one part, norms and biases without weight decay."""
    decays = {True: config.weight_decay, False: 0.0}
    groups = {mixing: [p for p in module.parameters() if (p.ndim > 1) == mixing] for mixing in decays}
    return [
        {"params": parameters, "part": part, "lr": rate, "peak_lr": rate, "weight_decay": decays[mixing]}
        for mixing, parameters in groups.items()
        if parameters
    ]


def _share_of_peak(progress: float) -> float:
    """Linear warm-up for 5 % of the run, then half a cosine."""
    if progress < _WARM_UP:
        return (progress + 1e-3) / (_WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))
