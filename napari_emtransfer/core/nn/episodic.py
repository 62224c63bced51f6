"""What a network learns from synthetic episodes: features that a classifier of a few pixels can use.

Episodic: on the embedding of a few labelled pixels of the support a ridge regression onto the classes is solved in
closed form; its scores on the query go through a cross-entropy, and the gradient through the solution (Bertinetto et
al., "Meta-learning with differentiable closed-form solvers", ICLR 2019). That is what a live head does with scribbles.

Multi-task: three maps from one further convolution: phases in the order of their brightness, boundaries, and the
image without its noise.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.ridge import class_weights, ridge, with_constant
from napari_emtransfer.core.recipe import Objective
from napari_emtransfer.core.synth.materials import MAX_CLASSES

_FEWEST_POINTS: Final = 10
_MOST_POINTS: Final = 80
_QUERY_POINTS: Final = 3000
# Rare classes count more, but not without end: weight 1 / (share + this).
_RARE: Final = 0.05
_N_MAPS: Final = MAX_CLASSES + 2  # phases by brightness, boundary, clean image


class EpisodicNetwork(nn.Module):
    """A segmentation network whose head gives an embedding, with what the objectives need beside it.

    Only encoder and decoder are of use afterwards.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        width = model.n_classes
        self.maps = nn.Conv2d(width, _N_MAPS, 1)
        self.log_ridge = nn.Parameter(torch.tensor(float(np.log(5.0))))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → embedding (N, D, H, W), each pixel's of length √D."""
        embedding = functional.normalize(self.model(images).float(), dim=1)
        return cast(Tensor, embedding * self.model.n_classes**0.5)


def objective_loss(
    network: EpisodicNetwork,
    batch: dict[str, Tensor],
    embedding: Tensor,
    objective: Objective,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one step, and its parts with the episodes' accuracy for the log.

    Parameters
    ----------
    batch
        `classes` (B, 2, H, W) int64, `clean` and `boundaries` (B, 2, H, W) float32.
    embedding
        (2 B, D, H, W), support and query in turns.
    """
    loss, parts = embedding.new_zeros(()), dict[str, float]()
    if objective != "multi-task":
        episodic, accuracy = episodic_loss(network, embedding, batch["classes"], rng)
        loss, parts = loss + episodic, {"episodic": float(episodic.detach()), "accuracy": accuracy}
    if objective != "episodic":
        tasks = multi_task_losses(network.maps(embedding), batch)
        loss = loss + torch.stack(list(tasks.values())).sum()
        parts |= {name: float(value.detach()) for name, value in tasks.items()}
    return loss, parts


def episodic_loss(
    network: EpisodicNetwork, embedding: Tensor, classes: Tensor, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Mean class-weighted cross-entropy of the queries (B, 2, H, W), and the share of their pixels that is right."""
    features = embedding.flatten(2).unflatten(0, (-1, 2))  # (B, 2, D, H·W)
    labels = classes.flatten(2)
    losses, right = [], 0.0
    for (support, query), (support_labels, query_labels) in zip(features, labels, strict=True):
        chosen = labelled_pixels(support_labels, rng)
        asked = torch.from_numpy(rng.integers(query_labels.numel(), size=_QUERY_POINTS)).to(labels.device)
        n_classes = int(support_labels.max()) + 1
        found = support_labels[chosen]
        weights = ridge(
            support[:, chosen].T, found, class_weights(found, n_classes), n_classes, network.log_ridge.exp()
        )
        scores = with_constant(query[:, asked].T) @ weights * network.log_scale.exp()
        truth = query_labels[asked]
        losses.append(functional.cross_entropy(scores, truth, weight=_rarity(truth, n_classes)))
        right += float((scores.argmax(1) == truth).float().mean())
    return torch.stack(losses).mean(), right / len(losses)


def labelled_pixels(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Indices of 10 to 80 random pixels of each class present in `labels` (n,), as a hand might have put them."""
    n = int(np.exp(rng.uniform(np.log(_FEWEST_POINTS), np.log(_MOST_POINTS))))
    found = []
    for label in range(int(labels.max()) + 1):
        places = torch.nonzero(labels == label)[:, 0]
        order = torch.from_numpy(rng.integers(max(1, len(places)), size=min(n, len(places)))).to(labels.device)
        found.append(places[order])
    return torch.cat(found)


def multi_task_losses(maps: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses of the phases by brightness, of the boundaries and of the clean image; `maps` (2 B, 6, H, W)."""
    clean, boundaries, classes = (batch[k].flatten(0, 1) for k in ("clean", "boundaries", "classes"))
    ranked = by_brightness(classes, clean)
    return {
        "phases": 0.5 * functional.cross_entropy(maps[:, :MAX_CLASSES], ranked),
        "boundaries": functional.binary_cross_entropy_with_logits(maps[:, MAX_CLASSES], boundaries),
        "clean": 0.5 * functional.smooth_l1_loss(maps[:, MAX_CLASSES + 1], clean),
    }


def by_brightness(classes: Tensor, clean: Tensor) -> Tensor:
    """Classes (N, H, W) renumbered so that 0 is the darkest of each image, by the mean of the clean one."""
    flat = classes.flatten(1)
    counts = torch.zeros(len(flat), MAX_CLASSES, device=flat.device)
    sums = counts.clone()
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    sums.scatter_add_(1, flat, clean.flatten(1))
    means = torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)
    rank = means.argsort(1).argsort(1)
    return torch.gather(rank, 1, flat).view_as(classes)


def _rarity(labels: Tensor, n_classes: int) -> Tensor:
    share = torch.bincount(labels, minlength=n_classes).float() / len(labels)
    weight = 1 / (share + _RARE)
    return weight / weight.mean()
