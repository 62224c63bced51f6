"""What learns in a simulated labelling: the head that ranks, or a network that is fine-tuned in each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.pool import TilePool
from napari_emtransfer.core.active.uncertainty import out_of_distribution
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import EMTransferError, LabelError
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.legality import allowed_transforms
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.features import FrozenNetwork
from napari_emtransfer.core.nn.ground import TrainingImage, training_images
from napari_emtransfer.core.nn.live import LabelledPixels
from napari_emtransfer.core.nn.pool_features import PoolFeatures
from napari_emtransfer.core.nn.pool_head import PoolHead
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.worker.control import Cancelled
from napari_emtransfer.worker.models import open_for, working_view
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_round import N_MEMBERS, NEIGHBOURS
from napari_emtransfer.worker.rank_scores import Scores, score
from napari_emtransfer.worker.rank_state import Labelled, RankState

_BLOCK: Final = 64
# The maps of a pixel come as they are and blurred at three widths.
_N_WIDTHS: Final = 4

Classes = NDArray[np.intp]


class HeadLearner:
    """Fits the head that ranks; measures it on the lattice pixels of held-out tiles.

    Parameters
    ----------
    state
        Features of all tiles, those of the pool and the held-out ones.
    labels
        Tile of the table → its labels.
    pool, test
        Tiles of the table: those that can be chosen, in the order of the acquisition's pool, and the held-out ones.
    """

    def __init__(
        self,
        project: Project,
        state: RankState,
        labels: Mapping[int, Labelled],
        pool: NDArray[np.intp],
        test: NDArray[np.intp],
        should_stop: Callable[[], bool],
    ) -> None:
        self.project, self.state, self.labels = project, state, labels
        self.pool, self.test, self.should_stop = pool, test, should_stop
        self.head: PoolHead | None = None
        self._learnt: NDArray[np.intp] = np.zeros(0, np.intp)

    def unscored(self) -> TilePool:
        """The pool before anything is labelled: all tiles open."""
        table, n, n_classes = self.state.table, len(self.pool), self.state.n_classes
        return TilePool(
            micrographs=table.micrographs[self.pool],
            specimens=table.specimens[self.pool],
            open=np.ones(n, np.bool_),
            labelled=np.zeros(n, np.bool_),
            embeddings=self.state.features.embeddings(self._mask(self.pool))[self.pool],
            scores={name: np.full(n, np.nan, np.float32) for name in ("entropy", "margin", "bald", "novelty")},
            shares=np.full((n, n_classes), np.nan, np.float32),
            class_entropy=np.full((n, n_classes), np.nan, np.float32),
        )

    def learn(self, tiles: NDArray[np.intp]) -> bool:
        """Begin afresh and learn these tiles of the pool; False where they show fewer than two classes."""
        self._learnt = self.pool[tiles]
        known = [self.labels[tile] for tile in self._learnt.tolist() if tile in self.labels]
        parts = self.state.pixels(self.project, known, self.should_stop)
        if self.should_stop():
            raise Cancelled
        try:
            self.head = self._fitted(list(parts.values()))
        except LabelError:
            self.head = None
        return self.head is not None

    def look(self, pool: TilePool) -> TilePool:
        """The pool with what the head says of it."""
        if self.head is None:
            return pool
        state, features = self.state, self.state.features
        scores = Scores.empty("", len(state.table), state.n_classes)
        members = [self.head.solve(), *self.head.committee(N_MEMBERS, seed=state.seed)]
        lattices = {tile: self.labels[tile].labels.lattice for tile in self._learnt.tolist() if tile in self.labels}
        score(scores, self.pool, features, self.head, members, lattices, self.should_stop)
        numbers = {name: getattr(scores, name)[self.pool] for name in ("entropy", "margin", "bald")}
        known = pool.embeddings[np.isin(self.pool, self._learnt)]
        numbers["novelty"] = out_of_distribution(pool.embeddings, known, NEIGHBOURS)
        shares, class_entropy = scores.shares[self.pool], scores.class_entropy[self.pool]
        return replace(pool, scores=numbers, shares=shares, class_entropy=class_entropy)

    def measure(self) -> float:
        """Class-mean IoU over the labelled lattice pixels of all held-out tiles together."""
        n = self.state.n_classes
        counts = np.zeros(n * n, np.int64)
        for start in range(0, len(self.test), _BLOCK):
            tiles = self.test[start : start + _BLOCK]
            values = self.state.features.features(tiles)
            shown = self.state.features.kept(tiles)
            truth = np.stack([self._truth(tile) for tile in tiles.tolist()])
            known = shown & (truth != IGNORE_INDEX)
            pairs = truth[known].astype(np.intp) * n + self._predicted(values)[known]
            counts += np.bincount(pairs, minlength=n * n)
        return ConfusionMatrix(counts.reshape(n, n)).mean_iou()

    def _fitted(self, parts: list[LabelledPixels]) -> PoolHead:
        n_networks = self.state.features.source.n_networks
        return PoolHead(parts, self.state.n_classes, n_networks=n_networks, seed=self.state.seed)

    def _predicted(self, features: NDArray[np.float16]) -> Classes:
        """Features (k, P, D) → classes (k, P)."""
        if self.head is None:
            raise RuntimeError("nothing was learnt")
        classes: Classes = self.head.samples(features).mean(axis=0).argmax(axis=0)
        return classes

    def _truth(self, tile: int) -> NDArray[np.uint8]:
        if tile in self.labels:
            return self.labels[tile].labels.lattice
        return np.full(self._n_points, IGNORE_INDEX, np.uint8)

    @cached_property
    def _n_points(self) -> int:
        return len(next(iter(self.labels.values())).labels.lattice)

    def _mask(self, tiles: NDArray[np.intp]) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.state.table), np.bool_)
        mask[tiles] = True
        return mask


class NetworkLearner(HeadLearner):
    """Fine-tunes a network by `config` on the labelled tiles: it is measured itself, a head on it ranks.

    Parameters
    ----------
    folder
        Where a checkpoint may lie for a moment.
    """

    def __init__(self, *args: object, config: TrainConfig, folder: Path, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._config, self._folder = config, folder

    def learn(self, tiles: NDArray[np.intp]) -> bool:
        """As `HeadLearner.learn`, on features of the network that was fine-tuned first."""
        chosen = self.pool[tiles]
        try:
            source = self._fine_tuned(chosen)
        except LabelError:
            return False
        old = self.state.features
        features = TileFeatures(source, old.standardization, old.working_nm, FeatureCache(None), _raised, whole=True)
        features.refresh(self.project)
        self.state = RankState(features, n_classes=self.state.n_classes, seed=self.state.seed)
        wanted = self._mask(np.concatenate([self.pool, self.test]))
        features.sample(self.project, None, None, wanted, self.should_stop, lambda _done, _total: None)
        return super().learn(tiles)

    def _fine_tuned(self, tiles: NDArray[np.intp]) -> PoolFeatures:
        names = self.project.schema.names
        features = self.state.features
        context = RunContext(
            run_id="simulate",
            classes=names,
            folder=self._folder,
            standardization=features.standardization.model_dump(),
            working_pixel_size_nm=features.working_nm,
            allowed=allowed_transforms(self.project.settings.modality, ()),
        )
        images = [image for stem in self._stems(tiles) for image in self._images(stem, tiles)]
        trainer = Trainer(initial_model(self._config, len(names)), self._config, images, [], context)
        trainer.fit(lambda _event: None, self.should_stop)
        if self.should_stop():
            raise Cancelled
        model = Checkpoint.load(context.checkpoint_path("best")).build()
        return PoolFeatures(FrozenNetwork(model, "decoder", devices.resolve_device(self._config.compute.device)))

    def _stems(self, tiles: NDArray[np.intp]) -> list[str]:
        return sorted(set(self.state.table.stems[tiles].tolist()))

    def _images(self, stem: str, tiles: NDArray[np.intp]) -> list[TrainingImage]:
        """The chosen tiles of one micrograph, with what surrounds them unlabelled."""
        table, features = self.state.table, self.state.features
        view = working_view(open_for(self.project, stem), features.standardization, features.working_nm)
        targets = np.full(view.shape, IGNORE_INDEX, np.uint8)
        for tile in tiles[table.stems[tiles] == stem].tolist():
            targets[table.working_window(tile).slices] = self.state.working_targets(self.project, tile)
        return training_images(view, targets, crop_px=self._config.crop_px)

    def _predicted(self, features: NDArray[np.float16]) -> Classes:
        """What the network itself says: its logits are the last of the maps that are not blurred."""
        logits = features[..., : features.shape[-1] // _N_WIDTHS][..., -self.state.n_classes :]
        classes: Classes = logits.argmax(axis=-1)
        return classes


def _raised(error: EMTransferError) -> None:
    raise error
