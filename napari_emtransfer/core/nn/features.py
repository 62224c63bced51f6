"""What the live head sees of a pixel: classical filters and, where there are weights, features of a frozen network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn import devices, filters
from napari_emtransfer.core.nn.fusion import fused_for_inference
from napari_emtransfer.core.nn.ground import ArrayView, View
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.normalization import adapt

Part = Literal["encoder", "decoder", "decoder-maps"]
# What the maps of a part depend on.
_USED: Final[Mapping[Part, tuple[str, ...]]] = {
    "encoder": ("encoder.",),
    "decoder-maps": ("encoder.", "decoder."),
    "decoder": ("encoder.", "decoder.", "segmentation_head."),
}

# Of the encoder only maps of at most 8 px per step: the deeper ones mix what lies further apart than a stroke is long.
_COARSEST_PX: Final = 8
_MARGIN_PX: Final = 64
# Statistics of so few crops are noisier than those of a training, but there by the first stroke.
_N_ADAPTED: Final = 4
_ADAPTED_PX: Final = 512
_CROP_PX: Final = 256
# Where the mean and the spread of a feature over a micrograph are measured: so many windows along each axis.
_N_WINDOWS: Final = 2
_WINDOW_PX: Final = 192
_SMALLEST_STD: Final = 1e-3


class FrozenNetwork:
    """Feature maps of a network that is not trained any more, brought to full resolution.

    Parameters
    ----------
    model
        Copied.
    part
        "encoder": its finer maps, for pretrained weights. "decoder": what the head of a trained network sees, and the
        logits that it makes of it. "decoder-maps": the former alone, for a pretrained decoder without a head.
    """

    def __init__(self, model: SegmentationModel, part: Part, device: torch.device) -> None:
        self.part: Part = part
        self.fingerprint = fingerprint(model, _USED[part])
        self._device = device
        self._stride = max(model.stride, filters.ALIGNMENT_PX)
        self._model = devices.moved(fused_for_inference(model), device)

    @torch.inference_mode()
    def __call__(self, view: View, window: Window) -> NDArray[np.float32]:
        """Features (F, h, w) of one window of a view, with its surroundings seen."""
        step = self._stride
        y0, x0 = (start // step * step - _MARGIN_PX for start in (window.y0, window.x0))
        y1, x1 = (-(-stop // step) * step + _MARGIN_PX for stop in (window.y1, window.x1))
        pixels = torch.from_numpy(filters.read_mirrored(view, (y0, y1), (x0, x1)))[None, None]
        maps = self._maps(pixels.to(self._device, memory_format=torch.channels_last))
        rows, columns = (slice(a - o, b - o) for a, b, o in ((window.y0, window.y1, y0), (window.x0, window.x1, x0)))
        full = [_enlarged(m, (y1 - y0, x1 - x0))[0, :, rows, columns] for m in maps]
        features: NDArray[np.float32] = torch.cat(full).float().cpu().numpy()
        return features

    def _maps(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self._model.encoder(image)
        if self.part == "encoder":
            return [m for m in levels[1:] if image.shape[-1] // m.shape[-1] <= _COARSEST_PX]
        decoded: Tensor = self._model.decoder(levels)
        return [decoded] if self.part == "decoder-maps" else [decoded, self._model.segmentation_head(decoded)]


class FeatureSource:
    """Features of windows of views, as the live head wants them: fp16 (F, h, w).

    The filters of a pixel are the same through any window. Those of the network are, up to what it sees beyond a margin
    of 64 px.
    """

    def __init__(self, network: FrozenNetwork | None = None) -> None:
        self._network = network
        part = f"{network.part} {network.fingerprint}" if network is not None else "none"
        self.fingerprint = f"filters {filters.VERSION}, network {part}"

    def __call__(self, view: View, window: Window) -> NDArray[np.float16]:
        """Features (F, h, w) of `window`."""
        parts = [filters.filter_window(view, window)]
        if self._network is not None:
            parts.append(self._network(view, window))
        limit = float(np.finfo(np.float16).max)
        return np.concatenate(parts).clip(-limit, limit).astype(np.float16)

    def statistics(self, view: View) -> NDArray[np.float16]:
        """Mean and standard deviation (2, F, 1) of each feature over a micrograph, from four windows spread over it."""
        rows, columns = (_spread(length) for length in view.shape)
        parts = [self(view, Window(y0=y0, x0=x0, y1=y1, x1=x1)) for y0, y1 in rows for x0, x1 in columns]
        values = np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1).astype(np.float32)
        return np.stack([values.mean(axis=1), values.std(axis=1)])[..., None].astype(np.float16)


def with_relative(features: NDArray[np.float16], statistics: NDArray[np.float16]) -> NDArray[np.float16]:
    """Features (F, …) and `statistics` (2, F, 1) of their micrograph → (2F, …): as they are, and standardised."""
    flat = features.reshape(len(features), -1)
    mean, std = statistics.astype(np.float32)
    relative = (flat - mean) / np.maximum(std, _SMALLEST_STD)
    limit = float(np.finfo(np.float16).max)
    both = np.concatenate([flat, relative.clip(-limit, limit).astype(np.float16)])
    return both.reshape(-1, *features.shape[1:])


def adapted(model: SegmentationModel, views: Sequence[View]) -> SegmentationModel:
    """`model` with its batch norms measured on central windows of a few views, in place; nothing is drawn at random.

    The weights' own statistics are of other images, and features that they scale wrongly differ between specimens.
    """
    chosen = [views[i] for i in np.linspace(0, len(views) - 1, min(len(views), _N_ADAPTED)).round().astype(int)]
    crop = -(-_CROP_PX // model.stride) * model.stride
    adapt(model, "adabn", [ArrayView(view.read(_central(view.shape))) for view in chosen], crop_px=crop)
    return model


def fingerprint(model: SegmentationModel, parts: tuple[str, ...] = _USED["decoder"]) -> str:
    """Hash of all weights and norm statistics of these parts: others, such as a new head, may be at random."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(parts):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _spread(length: int) -> list[tuple[int, int]]:
    """Spans of at most 192 px in the middle of each half of an axis; one where they would overlap."""
    if length <= _N_WINDOWS * _WINDOW_PX:
        return [(0, length)]
    starts = [(2 * i + 1) * length // (2 * _N_WINDOWS) - _WINDOW_PX // 2 for i in range(_N_WINDOWS)]
    return [(start, start + _WINDOW_PX) for start in starts]


def _central(shape: tuple[int, int]) -> Window:
    (y0, y1), (x0, x1) = (((n - e) // 2, (n - e) // 2 + e) for n, e in ((n, min(n, _ADAPTED_PX)) for n in shape))
    return Window(y0=y0, x0=x0, y1=y1, x1=x1)


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
