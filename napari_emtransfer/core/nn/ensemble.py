"""Several networks, or one network in several orientations, as one: the mean of their probabilities.

Networks trained on different folds err in different places, so their mean is better than each (Goetz et al., npj
Comput. Mater. 2022: +1 to +3 points of IoU from bagging five folds); where they differ, they are out of their depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from napari_emtransfer.core.nn.model import SegmentationModel

# Below the smallest normal float32 the logarithm would be −inf.
_SMALLEST: Final = 1e-37


class Ensemble(nn.Module):
    """The mean probability over members and symmetries, as logits: (N, 1, H, W) → log p̄ (N, C, H, W).

    Members run one after the other, so that memory holds the activations of one at a time.

    Parameters
    ----------
    members
        Networks with the same classes.
    symmetries
        Elements of `core.nn.augment.dihedral`: each member sees the image in each of these orientations, and its
        answers are turned back. Windows of any shape may be turned, since both edges are multiples of `stride`.
    """

    def __init__(self, members: Sequence[nn.Module], symmetries: Sequence[int] = (0,)) -> None:
        super().__init__()
        if not members or not symmetries:
            raise ValueError("an ensemble needs at least one member and one symmetry")
        self.members = nn.ModuleList(members)
        self.symmetries = tuple(symmetries)

    @property
    def networks(self) -> list[SegmentationModel]:
        """The members, where they are whole segmentation models."""
        return [member for member in self.members if isinstance(member, SegmentationModel)]

    @property
    def stride(self) -> int:
        """Pixels per step of the coarsest feature map of any member; their strides are powers of two."""
        return max(network.stride for network in self.networks)

    @property
    def n_classes(self) -> int:
        """Number of logit channels."""
        return self.networks[0].n_classes

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) → log of the mean probability (N, C, H, W)."""
        return self.examine(image)[0]

    def examine(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W) → log of the mean probability (N, C, H, W) and the disagreement (N, 1, H, W) in nats.

        The disagreement is the mutual information between the answer and who gives it, H(p̄) − mean H(p): 0 where all
        say the same, ln C at most. It is taken between members, each averaged over the symmetries; for a single member
        between its symmetries.

        Source: Houlsby et al., Bayesian active learning by disagreement, 2011.
        """
        opinions = self._opinions(image)
        first = next(opinions)
        total, entropies, n = first, _entropy(first), 1
        for opinion in opinions:
            total = total + opinion
            entropies = entropies + _entropy(opinion)
            n += 1
        mean = total / n
        disagreement = (_entropy(mean) - entropies / n).clamp_min(0)
        return mean.clamp_min(_SMALLEST).log(), disagreement

    def _opinions(self, image: Tensor) -> Iterator[Tensor]:
        """Probabilities of each member; of a single member in each orientation."""
        if len(self.members) == 1:
            yield from (_turned_prediction(self.members[0], image, element) for element in self.symmetries)
            return
        for member in self.members:
            total = _turned_prediction(member, image, self.symmetries[0])
            for element in self.symmetries[1:]:
                total = total + _turned_prediction(member, image, element)
            yield total / len(self.symmetries)


def turned(image: Tensor, element: int) -> Tensor:
    """One of the 8 symmetries of the square on the last two axes, as `core.nn.augment.dihedral` numbers them."""
    rotated = torch.rot90(image, element % 4, (-2, -1))
    return rotated.flip(-1) if element >= 4 else rotated


def turned_back(image: Tensor, element: int) -> Tensor:
    """The inverse of `turned`."""
    upright = image.flip(-1) if element >= 4 else image
    return torch.rot90(upright, -(element % 4), (-2, -1))


def _turned_prediction(member: nn.Module, image: Tensor, element: int) -> Tensor:
    if element == 0:
        logits = member(image)
    else:
        logits = turned_back(member(turned(image, element).contiguous(memory_format=torch.channels_last)), element)
    probabilities: Tensor = logits.float().softmax(dim=1)
    return probabilities


def _entropy(probabilities: Tensor) -> Tensor:
    """(N, C, H, W) → (N, 1, H, W) in nats."""
    return torch.special.entr(probabilities).sum(dim=1, keepdim=True)
