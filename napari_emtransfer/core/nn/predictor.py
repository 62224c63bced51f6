"""Tiled prediction of micrographs of any size, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_emtransfer.core.config import PredictConfig
from napari_emtransfer.core.data.labels import from_targets
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import DeviceError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.ensemble import Ensemble
from napari_emtransfer.core.nn.fusion import fused_for_inference
from napari_emtransfer.core.nn.ground import View
from napari_emtransfer.core.nn.lean import lean
from napari_emtransfer.core.nn.memory import affordable_roi
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.tiling import Segment, aligned_down, aligned_up, fade_weights, plan_axis

Probabilities = NDArray[np.float32]
_MAX_HANN_ROI: Final = 1024


@dataclass(frozen=True)
class _Box:
    """A window of the network (rows, columns) and what is kept of it."""

    rows: Segment
    columns: Segment

    @property
    def kept(self) -> Window:
        rows, columns = self.rows, self.columns
        return Window(y0=rows.keep_start, x0=columns.keep_start, y1=rows.keep_stop, x1=columns.keep_stop)

    @property
    def kept_slices(self) -> tuple[slice, slice]:
        return self.rows.kept_slice, self.columns.kept_slice

    def halved(self, halo: int, stride: int) -> tuple[list[_Box], int]:
        """Two boxes that keep the same together, and the axis of (C, h, w) to join them along; none when too small."""
        if self.rows.kept_length >= self.columns.kept_length:
            return [_Box(half, self.columns) for half in self.rows.halved(halo, stride)], 1
        return [_Box(self.rows, half) for half in self.columns.halved(halo, stride)], 2


class _StoppedError(Exception):
    """A stop was asked for while a window was being computed."""


class Predictor:
    """Class probabilities of a micrograph, window by window.

    With "valid" blending the kept centres of the windows equal the prediction of the whole micrograph at once, up to
    what reaches further than the halo. With "hann" the windows are cross-faded over their overlap. Windows start at
    multiples of the network's stride, so that pooling falls on the same pixels in each.

    Parameters
    ----------
    model
        A network, or an `Ensemble` of several. Copied: training may go on while predictions are made.
    config
        `roi_px` None lets memory decide; with more than one of `symmetries` the mean over them is predicted.
    device
        Where to compute; by `config.compute` when left out.
    disagreement
        Append one channel to the probabilities: how much the members of the ensemble (of one network: its
        orientations) disagree, in nats; see `Ensemble.examine`.

    Raises
    ------
    DeviceError
        When the device does not exist, or its memory does not hold the smallest window.
    """

    def __init__(
        self,
        model: SegmentationModel | Ensemble,
        config: PredictConfig | None = None,
        device: torch.device | None = None,
        *,
        disagreement: bool = False,
    ) -> None:
        self.config = config or PredictConfig()
        self.device = device or devices.resolve_device(self.config.compute.device)
        self.n_classes = model.n_classes
        self.n_channels = model.n_classes + disagreement
        self.stride = model.stride
        devices.keep_freed_memory()
        self._bf16 = devices.resolve_precision(self.config.compute.precision, self.device) == "bf16-mixed"
        self._disagreement = disagreement
        networks = [lean(fused_for_inference(network)) for network in _networks(model)]
        self._model = devices.moved(_combined(networks, self.config.symmetries, disagreement), self.device)
        self._networks = networks
        self._should_stop: Callable[[], bool] = lambda: False
        for module in self._model.modules():
            module.register_forward_pre_hook(self._heed_stop)
        self.halo_px = aligned_up(self.config.halo_px, self.stride)
        self.roi_px = self._resolve_roi()
        self._batch_size = self.config.batch_size or 1

    def _resolve_roi(self) -> int:
        smallest = 2 * self.halo_px + 2 * self.stride
        wanted = self.config.roi_px
        if wanted is None:
            # Members run one after the other: the hungriest decides.
            n_bytes = 2 if self._bf16 else 4
            wanted = min(affordable_roi(n, self.stride, self.device, bytes_per_value=n_bytes) for n in self._networks)
            if self.config.blend == "hann":
                # Cross-fading holds a row of windows as wide as the micrograph.
                wanted = min(wanted, _MAX_HANN_ROI)
        return max(aligned_up(wanted, self.stride), smallest)

    def predict(
        self,
        view: View,
        should_stop: Callable[[], bool] = lambda: False,
        on_rows: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        window: Window | None = None,
    ) -> Iterator[tuple[Window, Probabilities]]:
        """Probabilities (C, h, w) of a view (H, W), in reading order, each pixel once; C + 1 with `disagreement`.

        Parameters
        ----------
        view
            Standardised pixels at the model's working pixel size; only the windows needed are read.
        should_stop
            Asked before each layer of each window, for a large window takes seconds; what was predicted by then
            has been yielded.
        on_rows
            Told the rows done and the rows in all, after each row of windows.
        window
            Predict this part only; its surroundings are still seen.
        """
        target = window or Window(y0=0, x0=0, y1=view.shape[0], x1=view.shape[1])
        rows, columns = (
            self._segments(length, a, b)
            for length, a, b in zip(view.shape, (target.y0, target.x0), (target.y1, target.x1), strict=True)
        )
        strips = self._valid if self.config.blend == "valid" else self._hann
        self._should_stop = should_stop
        with contextlib.suppress(_StoppedError), devices.freed_memory_released():
            for place, probabilities in strips(view, rows, columns):
                part = place.intersection(target)
                if part is not None:
                    y, x = part.y0 - place.y0, part.x0 - place.x0
                    yield part, probabilities[:, y : y + part.shape[0], x : x + part.shape[1]]
                    if part.x1 == target.x1:
                        on_rows(part.y1 - target.y0, target.shape[0])

    def _heed_stop(self, _module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        if self._should_stop():
            raise _StoppedError

    def _segments(self, length: int, start: int, stop: int) -> list[Segment]:
        """Windows along one axis of `length` pixels that keep start..stop, and see a halo around it where there is."""
        first = max(0, aligned_down(start, self.stride) - self.halo_px)
        last = min(aligned_up(length, self.stride), aligned_up(stop, self.stride) + self.halo_px)
        plan = plan_axis(last - first, roi=self.roi_px, halo=self.halo_px, stride=self.stride)
        return [segment.shifted(first) for segment in plan]

    def _valid(self, view: View, rows: list[Segment], columns: list[Segment]) -> Iterator[tuple[Window, Probabilities]]:
        for row in rows:
            for group in _grouped(columns, self._batch_size):
                boxes = [_Box(row, column) for column in group]
                for box, probabilities in zip(boxes, self._probabilities(view, boxes), strict=True):
                    yield box.kept, probabilities

    def _hann(self, view: View, rows: list[Segment], columns: list[Segment]) -> Iterator[tuple[Window, Probabilities]]:
        """Whole rows at once: a row's lower overlap waits in `carried` for the row below."""
        row_weights, column_weights = fade_weights(rows), fade_weights(columns)
        left, right = columns[0].start, columns[-1].stop
        carried = np.zeros((self.n_channels, 0, right - left), np.float32)
        for i, row in enumerate(rows):
            strip = np.zeros((self.n_channels, row.stop - row.start, right - left), np.float32)
            strip[:, : carried.shape[1]] = carried
            for column, weights in zip(columns, column_weights, strict=True):
                (probabilities,) = self._probabilities(view, [_Box(row.uncropped(), column.uncropped())])
                probabilities *= row_weights[i][:, None] * weights
                strip[:, :, column.start - left : column.stop - left] += probabilities
            end = rows[i + 1].start if i + 1 < len(rows) else row.stop
            carried = strip[:, end - row.start :]
            yield Window(y0=row.start, x0=left, y1=end, x1=right), strip[:, : end - row.start]

    def _probabilities(self, view: View, boxes: list[_Box]) -> list[Probabilities]:
        """Kept probabilities of each box; out of memory, of ever smaller boxes put together."""
        try:
            return self._forward(view, boxes)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
        devices.empty_cache(self.device)
        if len(boxes) > 1:
            return [p for box in boxes for p in self._probabilities(view, [box])]
        halves, axis = boxes[0].halved(self.halo_px, self.stride)
        if not halves:
            edge = boxes[0].rows.stop - boxes[0].rows.start
            raise DeviceError(
                f"The memory of {self.device} does not hold one window of {edge} px.",
                "Choose another device, or a smaller encoder.",
            )
        return [np.concatenate([self._probabilities(view, [half])[0] for half in halves], axis=axis)]

    @torch.inference_mode()
    def _forward(self, view: View, boxes: list[_Box]) -> list[Probabilities]:
        pixels = np.stack([_read_mirrored(view, box) for box in boxes])[:, None]
        images = torch.from_numpy(pixels).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            logits, disagreement = self._look(images)
        kept = [(i, slice(None), *box.kept_slices) for i, box in enumerate(boxes)]
        probabilities = [logits[place].float().softmax(dim=0) for place in kept]
        if disagreement is not None:
            probabilities = [torch.cat([p, disagreement[k]]) for p, k in zip(probabilities, kept, strict=True)]
        return [p.contiguous().cpu().numpy() for p in probabilities]

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, 1, H, W) → logits (N, C, H, W), and the disagreement (N, 1, H, W) where it is wanted."""
        if self._disagreement and isinstance(self._model, Ensemble):
            return self._model.examine(images)
        return self._model(images), None


def _networks(model: SegmentationModel | Ensemble) -> list[SegmentationModel]:
    return model.networks if isinstance(model, Ensemble) else [model]


def _combined(networks: Sequence[nn.Module], symmetries: Sequence[int], disagreement: bool) -> nn.Module:
    """A single network in a single orientation stays as it is: the mean of one costs memory and gives nothing."""
    if len(networks) == 1 and tuple(symmetries) == (0,) and not disagreement:
        return networks[0]
    return Ensemble(networks, symmetries)


def predict_labels(
    predictor: Predictor, view: View, should_stop: Callable[[], bool] = lambda: False, *, window: Window | None = None
) -> NDArray[np.uint8]:
    """Most probable label value 1..K of each pixel, (h, w); 0 where `should_stop` came first."""
    target = window or Window(y0=0, x0=0, y1=view.shape[0], x1=view.shape[1])
    labels = np.zeros(target.shape, np.uint8)
    for part, channels in predictor.predict(view, should_stop, window=target):
        probabilities = channels[: predictor.n_classes]
        rows = slice(part.y0 - target.y0, part.y1 - target.y0)
        columns = slice(part.x0 - target.x0, part.x1 - target.x0)
        labels[rows, columns] = from_targets(probabilities.argmax(axis=0).astype(np.uint8))
    return labels


def _read_mirrored(view: View, box: _Box) -> NDArray[np.float32]:
    """Pixels of the box's window; beyond the image, where its size is no multiple of the stride, mirrored ones."""
    (height, width), rows, columns = view.shape, box.rows, box.columns
    inside = Window(y0=rows.start, x0=columns.start, y1=min(rows.stop, height), x1=min(columns.stop, width))
    pixels = view.read(inside)
    missing = [(0, rows.stop - inside.y1), (0, columns.stop - inside.x1)]
    return np.pad(pixels, missing, mode="symmetric") if any(after for _, after in missing) else pixels


def _grouped(segments: list[Segment], size: int) -> Iterator[list[Segment]]:
    for i in range(0, len(segments), size):
        yield segments[i : i + size]
