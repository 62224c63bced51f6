"""The head that ranks: a ridge classifier of pixels, fitted anew in a moment, and committees of it for nothing more.

All that a fit needs of a tile is the Gram matrix of its labelled pixels. A head without a tile, with some tiles counted
twice, or of some tiles alone is a weighted sum of these matrices and one small linear system: so a tile can be
predicted by a head that never saw it, and members of a committee (bootstrap over tiles; Breiman, Mach. Learn. 24,
1996) disagree where few tiles decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.nn.live import LabelledPixels

# Random rectified features of the standardised ones: what a line through feature space cannot tell apart.
_N_HIDDEN: Final = 200
# Of the mean of the Gram matrix's diagonal, for one tile; the more tiles, the less a head has to be held back.
_RIDGE: Final = 0.3
_SCALES: Final = tuple(float(s) for s in np.geomspace(1, 30, 12))
# How sure the head may be is seen on tiles that it was not fitted on, in so many parts.
_N_PARTS: Final = 8
_SMALLEST_STD: Final = 1e-3
_BLOCK: Final = 400_000
# Pixels whose lifted features are made at a time.
_CACHED: Final = 4096


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A head: (S, D', K), one per network; the scale of its logits is that of the fit."""

    values: Tensor


class PoolHead:
    """Ridge classifiers of labelled pixels, kept tile by tile; a function of (pixels, n_classes, seed).

    Pixels count as 1/√(area of their class), the total of a class being what it is over all tiles. Logits are scaled to
    the least cross-entropy on tiles left out: scaled on those fitted on, the head would be too sure of itself.

    Parameters
    ----------
    parts
        Labelled pixels, one entry per tile: features (N, S·D) and class indices (N,).
    n_networks
        S: features of so many networks lie side by side, each of which gets a head of its own.

    Raises
    ------
    LabelError
        When fewer than two classes are labelled.
    """

    def __init__(self, parts: Sequence[LabelledPixels], n_classes: int, *, n_networks: int = 1, seed: int = 0) -> None:
        self.n_classes, self.n_networks, self.n_tiles = n_classes, n_networks, len(parts)
        classes = torch.from_numpy(np.concatenate([part.classes for part in parts])).long() if parts else None
        if classes is None or len(classes.unique()) < 2:
            raise LabelError(
                "Pixels of fewer than two classes are labelled; telling classes apart takes two.",
                "Paint a stroke of another class: the background is a class, too.",
            )
        counts = torch.bincount(classes, minlength=n_classes).clamp_min(1)
        self._weights = (len(classes) / (n_classes * counts)).sqrt()
        self._known = torch.bincount(classes, minlength=n_classes) > 0
        self._lifts = [_Lift(features, seed + i) for i, features in enumerate(self._side_by_side(parts))]
        # (T, S, …): one matrix per tile and network.
        self._grams, self._targets = self._sums(parts)
        self._scale = 1.0
        self._scale = self._best_scale(parts)

    def solve(self, tiles: NDArray[np.floating] | NDArray[np.integer] | None = None) -> Coefficients:
        """The head in which tile t counts `tiles[t]` times (T,); None: each once."""
        counts = torch.ones(self.n_tiles) if tiles is None else torch.as_tensor(tiles, dtype=torch.float32)
        gram = torch.einsum("t,tsij->sij", counts, self._grams).double()
        target = torch.einsum("t,tsik->sik", counts, self._targets).double()
        diagonal = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-9)
        strength = _RIDGE / counts.sum().clamp_min(1) * diagonal
        penalty = strength[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype)
        return Coefficients(torch.linalg.solve(gram + penalty, target).float())

    def without(self, tile: int) -> Coefficients:
        """The head that has not seen tile `tile`."""
        counts = np.ones(self.n_tiles, np.float32)
        counts[tile] = 0
        return self.solve(counts)

    def committee(self, n: int, seed: int = 0) -> list[Coefficients]:
        """As many heads, each on tiles drawn with replacement."""
        rng = np.random.default_rng(seed)
        return [self.solve(rng.multinomial(self.n_tiles, np.full(self.n_tiles, 1 / self.n_tiles))) for _ in range(n)]

    def samples(
        self, features: NDArray[np.floating], heads: Sequence[Coefficients] | None = None
    ) -> NDArray[np.float32]:
        """Features (…, S·D) → probabilities (M, C, …) of each head (None: that of all tiles) and network, M of them."""
        chosen = [self.solve()] if heads is None else list(heads)
        flat = features.reshape(-1, features.shape[-1])
        blocks = [self._predicted(flat[i : i + _BLOCK], chosen) for i in range(0, max(1, len(flat)), _BLOCK)]
        probabilities = torch.cat(blocks, dim=2).numpy()
        return probabilities.reshape(*probabilities.shape[:2], *features.shape[:-1])

    # ---- inside

    def _predicted(self, features: NDArray[np.floating], heads: Sequence[Coefficients]) -> Tensor:
        """(N, S·D) → (M, C, N)."""
        parts = np.split(features, self.n_networks, axis=1)
        members = []
        for network, (lift, part) in enumerate(zip(self._lifts, parts, strict=True)):
            joined = torch.cat([head.values[network] for head in heads], dim=1)
            values = torch.from_numpy(np.ascontiguousarray(part, np.float32))
            scores = lift.read(values, joined).reshape(len(heads), self.n_classes, len(part))
            scores[:, ~self._known] = -torch.inf
            members.append(functional.softmax(scores * self._scale, dim=1))
        return torch.stack(members, dim=1).flatten(0, 1)

    def _side_by_side(self, parts: Sequence[LabelledPixels]) -> list[NDArray[np.floating]]:
        return np.split(np.concatenate([part.features for part in parts]), self.n_networks, axis=1)

    def _sums(self, parts: Sequence[LabelledPixels]) -> tuple[Tensor, Tensor]:
        """XᵀWX (T, S, D', D') and XᵀWY (T, S, D', K)."""
        grams, targets = [], []
        for part in parts:
            classes = torch.from_numpy(part.classes).long()
            weights = self._weights[classes][:, None]
            wanted = functional.one_hot(classes, self.n_classes).float() - 1 / self.n_classes
            lifted = [
                lift(torch.from_numpy(np.ascontiguousarray(values, np.float32)))
                for lift, values in zip(self._lifts, np.split(part.features, self.n_networks, axis=1), strict=True)
            ]
            grams.append(torch.stack([x.T @ (weights * x) for x in lifted]))
            targets.append(torch.stack([x.T @ (weights * wanted) for x in lifted]))
        return torch.stack(grams), torch.stack(targets)

    def _best_scale(self, parts: Sequence[LabelledPixels]) -> float:
        """Of least cross-entropy on tiles left out; where a tile is alone, on itself."""
        group = np.arange(self.n_tiles) % min(_N_PARTS, self.n_tiles)
        losses = np.zeros(len(_SCALES))
        for number in range(group.max() + 1):
            inside = group == number
            head = self.solve((~inside).astype(np.float32) if self.n_tiles > 1 else None)
            for tile in np.flatnonzero(inside).tolist():
                logits = self._predicted(parts[tile].features, [head]).clamp_min(1e-9).log().mean(dim=0).T
                wanted = torch.from_numpy(parts[tile].classes).long()
                weight = float(self._weights[wanted].sum())
                losses += [weight * float(functional.cross_entropy(logits * s, wanted)) for s in _SCALES]
        return _SCALES[int(losses.argmin())]


class _Lift:
    """Features (N, D) → (N, D'): standardised, rectified random ones of these, and a constant."""

    def __init__(self, features: NDArray[np.floating], seed: int) -> None:
        values = features.astype(np.float32)
        self._mean = torch.from_numpy(values.mean(axis=0))
        self._std = torch.from_numpy(values.std(axis=0)).clamp_min(_SMALLEST_STD)
        rng, n = np.random.default_rng(seed), values.shape[1]
        self._directions = torch.from_numpy((rng.normal(size=(n, _N_HIDDEN)) / np.sqrt(n)).astype(np.float32))
        self._offsets = torch.from_numpy(rng.uniform(-1, 1, _N_HIDDEN).astype(np.float32))

    def __call__(self, features: Tensor) -> Tensor:
        standard = (features - self._mean) / self._std
        hidden = functional.relu(standard @ self._directions + self._offsets)
        return torch.cat([standard, hidden, standard.new_ones(len(standard), 1)], dim=1)

    def read(self, features: Tensor, coefficients: Tensor) -> Tensor:
        """(N, D) and (D', J) → (J, N): `self(features) @ coefficients`, transposed, in a quarter of the time.

        Lifted features are neither joined nor kept, and stay in the processor's cache.
        """
        linear, hidden, constant = coefficients.split([len(self._mean), _N_HIDDEN, 1])
        directions, linear = (matrix / self._std[:, None] for matrix in (self._directions, linear))
        found = features.new_empty(coefficients.shape[1], len(features))
        for start in range(0, len(features), _CACHED):
            pixels = (features[start : start + _CACHED] - self._mean).T
            rectified = torch.addmm(self._offsets[:, None], directions.T, pixels).relu_()
            found[:, start : start + _CACHED] = torch.addmm(constant.T, linear.T, pixels).addmm_(hidden.T, rectified)
        return found
