"""What a configuration resolves to before anything is computed: weights, strategy, norms, rates; dangerous rates.

No torch here: the window and the command line ask before a run starts.
"""

from __future__ import annotations

from typing import Final, Literal

from napari_emtransfer.core.config import AUTO_WEIGHTS, TrainConfig
from napari_emtransfer.core.errors import RateError
from napari_emtransfer.core.nn import registry, store

Strategy = Literal["scratch", "feature-extraction", "fine-tune", "gradual"]
Normalization = Literal["source", "train", "adabn", "mix"]

DEFAULT_RATE: Final = 1e-3
FINE_TUNE_RATIO: Final = 0.1
UNIFORM_LIMIT: Final = 1e-4
# A rate counts as measured up to this multiple of the one that the weights' row carries.
_MEASURED_SLACK: Final = 2.0


def resolve_weights(config: TrainConfig) -> str:
    """The weights; "auto" stands for those that came with the program for this encoder, else for "none"."""
    if config.weights != AUTO_WEIGHTS:
        return config.weights
    entry = None if config.strategy == "scratch" else store.bundled_for(config.encoder)
    return "none" if entry is None else entry.name


def with_weights(config: TrainConfig) -> TrainConfig:
    """The configuration with its weights resolved."""
    return config.model_copy(update={"weights": resolve_weights(config)})


def about_weights(config: TrainConfig) -> tuple[str, str] | None:
    """What a user might not expect of the weights, and what to do about it; None where there is nothing to say.

    Raises
    ------
    WeightsError
        When there are no weights for "auto" because the card of those that came with the program cannot be read.
    """
    weights = resolve_weights(config)
    if config.weights == AUTO_WEIGHTS and weights == "none" and config.strategy != "scratch":
        known = [row.encoder for row in registry.bundled_entries() if row.encoder is not None]
        others = f"weights came with the program for {', '.join(known)} only" if known else "no weights came with it"
        return (
            f"The encoder {config.encoder} begins at random numbers, because {others}.",
            "Name weights (--weights imagenet, or those of `emtransfer weights list`), or say --weights none.",
        )
    stated = None if weights == "none" else store.stated_architecture(weights, config.encoder)
    if stated in (None, config.architecture):
        return None
    said = f"The weights {weights!r} hold a decoder of {stated}: {config.architecture} takes their encoder alone."
    return said, f"Its decoder begins at random numbers; --architecture {stated} takes both."


def resolve_strategy(config: TrainConfig) -> Strategy:
    """The strategy; "auto" stands for "fine-tune" where there are weights to tune, else for "scratch"."""
    if config.strategy == "auto":
        return "fine-tune" if is_pretrained(config) else "scratch"
    return config.strategy


def resolve_normalization(config: TrainConfig) -> Normalization:
    """Whose statistics the encoder's batch norms use; "auto" is "train" from scratch and "adabn" otherwise."""
    if config.normalization == "auto":
        return "adabn" if is_pretrained(config) and resolve_strategy(config) != "scratch" else "train"
    return config.normalization


def is_pretrained(config: TrainConfig) -> bool:
    """True where the network starts from weights: of the registry, of a file, or of an earlier run."""
    return resolve_weights(config) != "none"


def trains_encoder(config: TrainConfig) -> bool:
    """False where strategy or `freeze` keep the whole encoder as it was loaded."""
    return config.freeze != "encoder" and resolve_strategy(config) != "feature-extraction"


def measured_encoder_rate(config: TrainConfig) -> float | None:
    """The encoder's rate that measured best for these weights; None where neither their row nor their file says one."""
    return store.stated_encoder_rate(resolve_weights(config), config.encoder)


def learning_rate(config: TrainConfig) -> float:
    """Peak rate of decoder and head: as given, else what measured best for the weights, else 1e-3."""
    if config.learning_rate is not None:
        return config.learning_rate
    return store.stated_learning_rate(resolve_weights(config), config.encoder) or DEFAULT_RATE


def encoder_rate(config: TrainConfig) -> float:
    """Peak rate of the encoder, of its deepest stage where they differ.

    As given; from scratch the decoder's; else what measured best for these weights, or a tenth of the decoder's
    (Goetz et al. 2022).
    """
    if config.encoder_learning_rate is not None:
        return config.encoder_learning_rate
    if resolve_strategy(config) == "scratch":
        return learning_rate(config)
    return measured_encoder_rate(config) or FINE_TUNE_RATIO * learning_rate(config)


def check_rates(config: TrainConfig) -> None:
    """Refuse to train a pretrained encoder as fast as the decoder, above 1e-4, unless confirmed.

    Weights for which such a rate was measured to be the best, as compact ones from synthetic images, are exempt.

    Raises
    ------
    RateError
        Naming both rates.
    """
    rate, limit = encoder_rate(config), max(UNIFORM_LIMIT, _MEASURED_SLACK * (measured_encoder_rate(config) or 0.0))
    if not is_pretrained(config) or not trains_encoder(config) or config.confirm_uniform_rate:
        return
    decoder = learning_rate(config)
    if rate < decoder or rate <= limit:
        return
    raise RateError(
        f"The pretrained encoder would learn at {rate:g}, and the decoder at {decoder:g}: above "
        f"{UNIFORM_LIMIT:g}, an encoder that learns as fast as the decoder forgets what it was pretrained for.",
        f"Give it a tenth (--encoder-learning-rate {FINE_TUNE_RATIO * decoder:g}), or confirm the rate "
        "(--confirm-uniform-rate, confirm_uniform_rate in the settings).",
    )
