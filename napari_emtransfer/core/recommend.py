"""Which strategy suits the labels, the weights and the gap between them: rules as rows of data, the first match wins.

The rows, with their reasons and sources, are in `strategy_rules.toml`; to change a threshold is to edit that file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer.core.config import Freeze, Modality, NormPolicy, TrainConfig

GapClass = Literal["small", "large", "unknown"]
ResolvedStrategy = Literal["scratch", "feature-extraction", "fine-tune", "gradual"]
COUNTED_TILE_PX: Final = 256

_IN_WORDS: Final[dict[ResolvedStrategy, str]] = {
    "scratch": "train from scratch",
    "feature-extraction": "feature extraction (the encoder stays frozen)",
    "fine-tune": "fine-tuning with a slower encoder",
    "gradual": "feature extraction, then gradual unfreezing",
}


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Situation(_Row):
    """What a rule looks at. `n_tiles` counts tiles of 256² working pixels; `continued` implies `pretrained`."""

    n_tiles: int = Field(ge=0)
    n_specimens: int = Field(ge=0)
    gap: GapClass
    pretrained: bool
    continued: bool = False
    modality: Modality | None = None


class Rule(_Row):
    """One row: the conditions (None always holds), what is to be done, why, and who says so."""

    id: str
    pretrained: bool | None = None
    continued: bool | None = None
    tiles_from: int = Field(default=0, ge=0)
    tiles_to: int | None = Field(default=None, ge=0)
    specimens_from: int = Field(default=0, ge=0)
    specimens_to: int | None = Field(default=None, ge=0)
    gap: frozenset[GapClass] | None = None
    modality: frozenset[Modality] | None = None
    strategy: ResolvedStrategy
    normalization: NormPolicy
    freeze: Freeze = "none"
    encoder_rate_factor: float = Field(default=1.0, gt=0)
    reason: str = Field(min_length=1)
    source: str = Field(min_length=1)

    def matches(self, situation: Situation) -> bool:
        """Whether all conditions hold."""
        return (
            self.pretrained in (None, situation.pretrained)
            and self.continued in (None, situation.continued)
            and _within(situation.n_tiles, self.tiles_from, self.tiles_to)
            and _within(situation.n_specimens, self.specimens_from, self.specimens_to)
            and (self.gap is None or situation.gap in self.gap)
            and (self.modality is None or situation.modality in self.modality)
        )


class RunAdvice(_Row):
    """One row of what a run should hear; IoU as shares of 1. `drop_from` is training minus held-out IoU."""

    id: str
    encoder_frozen: bool | None = None
    training_below: float | None = Field(default=None, gt=0, le=1)
    training_from: float | None = Field(default=None, ge=0, le=1)
    drop_from: float | None = Field(default=None, ge=0, le=1)
    stale_from: int = Field(default=0, ge=0)
    words: str = Field(min_length=1)
    source: str = Field(min_length=1)

    def matches(self, training: float, held_out: float | None, n_stale: int, frozen: bool) -> bool:
        """Whether all conditions hold; one on the held-out IoU does not where there is none."""
        drop = None if held_out is None else training - held_out
        return (
            self.encoder_frozen in (None, frozen)
            and (self.training_below is None or training < self.training_below)
            and (self.training_from is None or training >= self.training_from)
            and (self.drop_from is None or (drop is not None and drop >= self.drop_from))
            and n_stale >= self.stale_from
        )


class RuleBook(_Row):
    """The file of rules."""

    small_gap_below: float = Field(gt=0)
    default_encoder_rate: float = Field(gt=0, le=1)
    rule: tuple[Rule, ...] = Field(min_length=1)
    advice: tuple[RunAdvice, ...]


class Recommendation(_Row):
    """A strategy and what goes with it; `encoder_learning_rate` is None where the encoder does not learn on its own.

    `reason` is one sentence with its numbers; `rule` the row that was followed.
    """

    strategy: ResolvedStrategy
    normalization: NormPolicy
    freeze: Freeze
    encoder_learning_rate: float | None
    reason: str
    rule: Rule

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """The configuration as recommended; what the user has chosen in it stays, a strategy above all."""
        if config.strategy != "auto":
            return config
        changes: dict[str, object] = {"strategy": self.strategy}
        if config.normalization == "auto":
            changes["normalization"] = self.normalization
        if config.freeze == "none":
            changes["freeze"] = self.freeze
        if config.encoder_learning_rate is None and self.encoder_learning_rate is not None:
            changes["encoder_learning_rate"] = self.encoder_learning_rate
        return config.model_copy(update=changes)


@lru_cache(maxsize=1)
def rule_book() -> RuleBook:
    """The rules that came with the program."""
    text = files("napari_emtransfer.core").joinpath("strategy_rules.toml").read_text(encoding="utf-8")
    return RuleBook.model_validate(tomllib.loads(text))


def gap_class(gap: float | None) -> GapClass:
    """What a measured domain gap amounts to; None is unknown."""
    if gap is None:
        return "unknown"
    return "small" if gap < rule_book().small_gap_below else "large"


def first_match(rules: Iterable[Rule], situation: Situation) -> Rule:
    """The rule that decides. The rule book covers everything, so there is one."""
    return next(rule for rule in rules if rule.matches(situation))


def recommend(
    n_tiles: int,
    n_specimens: int,
    gap: float | None,
    pretrained: bool,
    encoder_rate: float | None = None,
    *,
    continued: bool = False,
    modality: Modality | None = None,
    tile_px: int = COUNTED_TILE_PX,
) -> Recommendation:
    """How to transfer to so many labelled tiles of so many specimens.

    Parameters
    ----------
    n_tiles
        Labelled tiles of edge `tile_px` in working pixels; translated to tiles of 256² for the rules.
    gap
        `core.nn.gap.domain_gap`, or None where it could not be measured.
    pretrained, continued
        Whether there are weights to start from, and whether they are those of an earlier run of the project.
    encoder_rate
        The learning rate that measured best for these weights.
    """
    situation = Situation(
        n_tiles=counted_tiles(n_tiles, tile_px),
        n_specimens=n_specimens,
        gap=gap_class(gap),
        pretrained=pretrained or continued,
        continued=continued,
        modality=modality,
    )
    rule = first_match(rule_book().rule, situation)
    found = f"{_counted(n_tiles, tile_px)} on {_count(n_specimens, 'specimen')} to learn from"
    about = [found] if not situation.pretrained else [found, gap_in_words(gap, continued)]
    return Recommendation(
        strategy=rule.strategy,
        normalization=rule.normalization,
        freeze=rule.freeze,
        encoder_learning_rate=_rate(rule, encoder_rate),
        reason=f"{', '.join(about)} → {_IN_WORDS[rule.strategy]}: {rule.reason}.",
        rule=rule,
    )


def counted_tiles(n_tiles: int, tile_px: int) -> int:
    """Tiles of edge `tile_px` as a number of tiles of 256²; one at least where there is any."""
    return max(1, round(n_tiles * (tile_px / COUNTED_TILE_PX) ** 2)) if n_tiles else 0


def gap_in_words(gap: float | None, continued: bool = False) -> str:
    """Such as "large gap to the pretraining data (0.31)"."""
    to = "to what the earlier run learnt from" if continued else "to the pretraining data"
    return f"gap {to} unknown" if gap is None else f"{gap_class(gap)} gap {to} ({gap:.2f})"


def advice(
    training_iou: float | None,
    n_stale: int,
    strategy: str,
    held_out_iou: float | None = None,
    *,
    freeze: Freeze = "none",
) -> str | None:
    """What the course of a run suggests, in words with numbers; None while there is nothing to say.

    Parameters
    ----------
    training_iou, held_out_iou
        Mean IoU on the training crops of late, and on the held-out ground; None where there is none.
    n_stale
        Validations since the best one.
    """
    if training_iou is None:
        return None
    frozen = strategy == "feature-extraction" or freeze == "encoder"
    row = _first_advice(rule_book().advice, training_iou, held_out_iou, n_stale, frozen)
    if row is None:
        return None
    held_out = "" if held_out_iou is None else f"{held_out_iou:.2f}"
    return row.words.format(training=f"{training_iou:.2f}", held_out=held_out, stale=n_stale)


def _first_advice(
    rows: Sequence[RunAdvice], training: float, held_out: float | None, n_stale: int, frozen: bool
) -> RunAdvice | None:
    return next((row for row in rows if row.matches(training, held_out, n_stale, frozen)), None)


def _rate(rule: Rule, encoder_rate: float | None) -> float | None:
    if rule.strategy not in ("fine-tune", "gradual"):
        return None
    return (encoder_rate or rule_book().default_encoder_rate) * rule.encoder_rate_factor


def _within(value: int, low: int, high: int | None) -> bool:
    return low <= value and (high is None or value <= high)


def _counted(n_tiles: int, tile_px: int) -> str:
    size = "" if tile_px == COUNTED_TILE_PX else f" of {tile_px}² px"
    return _count(n_tiles, "labelled tile") + size


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
