"""Ridge classifiers in closed form, on features of a few labelled pixels."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional


def class_weights(labels: Tensor, n_classes: int) -> Tensor:
    """(n,) → (n, 1): what makes each class count alike, whatever its number of pixels; 1 where they are equal."""
    counts = torch.bincount(labels, minlength=n_classes).clamp_min(1)
    return (len(labels) / (n_classes * counts[labels].float()))[:, None]


def ridge(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_classes: int,
    strength: Tensor | float,
    *,
    relative: bool = False,
) -> Tensor:
    """Coefficients (D + 1, K) of the ridge regression of centred one-hot labels (n,) on features (n, D) and a constant.

    (XᵀWX + λ I)⁻¹ XᵀW Y with weights (n, 1). A `relative` strength is one of the mean of XᵀWX's diagonal.
    """
    x = with_constant(features)
    y = functional.one_hot(labels, n_classes).float() - 1 / n_classes
    gram = x.T @ (weights * x)
    penalty = strength * gram.diagonal().mean() if relative else strength
    return cast(Tensor, torch.linalg.solve(gram + penalty * torch.eye(len(gram), device=x.device), x.T @ (weights * y)))


def with_constant(features: Tensor) -> Tensor:
    """(n, D) → (n, D + 1), the last column 1."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)
