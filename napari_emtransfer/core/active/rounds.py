"""What is known after a ranking: the numbers that the window shows and that advice to stop rests on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Facts(BaseModel):
    # Facts of an older or newer version are read for what they have in common.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ControlFacts(_Facts):
    """IoU on the random control tiles, 0..1; `ground` says in words what was measured, and how sure it is.

    `low` and `high` bound the 95 % interval of `mean_iou`; None where there are too few tiles for one.
    """

    mean_iou: float | None
    low: float | None = None
    high: float | None = None
    iou: dict[str, float | None] = {}
    n_tiles: int
    n_specimens: int
    ground: str


class PhaseFacts(_Facts):
    """Area fraction of one class, 0..1, with its 95 % interval; None where there are too few control tiles for one.

    `half_width` is that of the interval before it was cut to 0..1; `from_errors` the share of its variance that comes
    from the model's errors and that more labels would reduce. The rest is how much tiles or specimens differ.
    """

    fraction: float
    low: float | None = None
    high: float | None = None
    half_width: float | None = None
    from_errors: float | None = None


class DifferenceFacts(_Facts):
    """Mean IoU after learning from chosen tiles − that after learning from as many random ones; 95 % interval."""

    difference: float
    low: float | None = None
    high: float | None = None
    n_tiles: int
    ground: str


class RoundFacts(_Facts):
    """The project after one ranking.

    Parameters
    ----------
    n_labelled_tiles
        Tiles with labels that the model has learnt from.
    n_done, n_control
        Queue entries that were done, and those of them that were random.
    n_pool, n_scored
        All tiles, and those that have been scored.
    acquisition, model
        By which the queue was chosen (never "default"), and key of weights and head.
    seconds_labelling
        Spent on all entries of the queue; None where nobody measured.
    control, phases, chosen_minus_random
        From random control tiles only; None or empty where nothing can be said. `phases_ground`: how, in words.
    kappa
        Agreement of this model with the one of a round before, on the tiles that stability is judged by.
    kappa_since
        `n_labelled_tiles` of that round.
    stop_tiles
        Names the tiles that stability is judged by: predictions of others are not compared with these.
    """

    n_labelled_tiles: int
    n_done: int = 0
    n_control: int = 0
    n_pool: int = 0
    n_scored: int = 0
    acquisition: str = ""
    model: str = ""
    seconds_labelling: float | None = None
    control: ControlFacts | None = None
    phases: dict[str, PhaseFacts] = {}
    phases_ground: str = ""
    chosen_minus_random: DifferenceFacts | None = None
    kappa: float | None = None
    kappa_since: int | None = None
    stop_tiles: str = ""
