"""Settings that have no effect on a training as it is set up, and why: a form greys them."""

from __future__ import annotations

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.rates import is_pretrained, resolve_strategy

_ENCODER_FIELDS = ("encoder_learning_rate", "depth_decay")


def idle_settings(config: TrainConfig) -> dict[str, str]:
    """Name of the field → a sentence that says why it changes nothing. What "auto" may decide stays open."""
    idle = dict(_of_the_strategy(config))
    if config.freeze == "encoder":
        idle |= dict.fromkeys(_ENCODER_FIELDS, "The encoder is frozen.")
    if not is_pretrained(config):
        idle["l2_sp"] = "There are no pretrained weights to pull back to."
    if not config.weights.startswith("run:"):
        only = "Only for a run that goes on from an earlier one (weights run:ID)."
        idle |= {"shrink": only, "new_weight": only}
    return idle


def _of_the_strategy(config: TrainConfig) -> dict[str, str]:
    is_open = config.strategy == "auto" and is_pretrained(config)
    if is_open:
        return {}
    strategy = resolve_strategy(config)
    idle = {} if strategy == "gradual" else {"plateau": f"The strategy {strategy} has one stage only."}
    match strategy:
        case "scratch":
            idle["depth_decay"] = "From scratch all stages of the encoder learn alike."
        case "feature-extraction":
            idle |= dict.fromkeys(_ENCODER_FIELDS, "In feature extraction the encoder stays as it is.")
    return idle
