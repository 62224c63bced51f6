"""Names of tensors: a file's against a model's, whatever the file's author wrapped the network in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from torch import Tensor

PARTS: Final = ("encoder.", "decoder.", "segmentation_head.")

# What DataParallel, Lightning and self-supervised frameworks put in front; one after another, in any order.
_WRAPPERS: Final = ("module.", "model.", "encoder.", "backbone.")
_PREFIXES: Final = ("", "encoder.", "encoder.model.")

# Old files of DenseNet (norm.1 for norm1); timm's flattened stages (stages_0 for stages.0); a VGG of which only the
# features were trained in parallel.
_OLD_DENSENET: Final = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_STAGES: Final = re.compile(r"(stem|stages|layers|blocks|features)\.(\d+)\.")
_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    lambda key: key,
    lambda key: _OLD_DENSENET.sub(r"\1\2", key),
    lambda key: _STAGES.sub(r"\1_\2.", key, count=1),
    lambda key: key.replace("features.module.", "features."),
)

# Layers behind the last feature map: classifiers, and what an encoder for segmentation leaves out.
_CLASSIFIER: Final = re.compile(
    r"^(?:encoder\.)?(?:model\.)?(?:fc|_fc|classifier|last_linear|linear|heads?|head_\w+|aux\w*|AuxLogits|conv_head|bn2|norm"
    r"|classification_head)\."
)


def is_classifier(key: str) -> bool:
    """Whether a tensor belongs to a classifier head, which segmentation has no use for."""
    return _CLASSIFIER.match(key) is not None


def named_like(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """`state` under the names by which most of its tensors are found among a model's `shapes`."""
    return max(_readings(state), key=lambda reading: _n_found(reading, shapes))


def _readings(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for stripped in _strippings(dict(state)):
        for prefix in _PREFIXES:
            for spell in _SPELLINGS:
                yield {spell(prefix + key): tensor for key, tensor in stripped.items()}


def _strippings(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state as it is, and below each wrapper that some of its names begin with, again and again."""
    yield state
    for wrapper in _WRAPPERS:
        inner = {k.removeprefix(wrapper): v for k, v in state.items() if k.startswith(wrapper)}
        if inner:
            yield from _strippings(inner)


def _n_found(reading: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(k in shapes and len(shapes[k]) == v.ndim for k, v in reading.items())
