"""The recipe of a pretraining on synthetic micrographs: everything that its result depends on."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_emtransfer.core.config import Architecture, Precision
from napari_emtransfer.core.errors import UnreadableFileError

# What a network is asked for. "episodic": that a ridge classifier, fitted on a few of its features of one place of a
# material, segments another place. "multi-task": the phases by brightness, their boundaries, the image without its
# noise. "both": the two losses together.
Objective = Literal["episodic", "multi-task", "both"]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PretrainStage(_Config):
    """A stretch of a pretraining with tiles of one size; `episodes` per step, two tiles each."""

    steps: int = Field(ge=1)
    tile_px: int = Field(default=128, ge=64, multiple_of=32)
    episodes: int = Field(default=6, ge=1)


class PretrainRecipe(_Config):
    """Rates rise over `warm_up` steps, stay, and fall linearly to 0 over the last `cool_down` ones.

    So a pretraining can be made longer afterwards: every state before the cool-down belongs to the longer one too.
    """

    name: str
    seed: int = Field(default=0, ge=0)
    architecture: Architecture = "Unet"
    encoder: str = "tu-regnety_002"
    embedding: int = Field(default=32, ge=8, le=64)
    objective: Objective = "both"
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=1e-3, ge=0)
    average: float = Field(default=0.998, ge=0, lt=1)
    warm_up: int = Field(default=100, ge=0)
    cool_down: int = Field(default=500, ge=0)
    stages: tuple[PretrainStage, ...] = Field(min_length=1)
    precision: Precision = "auto"

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> PretrainStage:
        """The stage that step `step` (from 0) belongs to."""
        last = 0
        for stage in self.stages:
            last += stage.steps
            if step < last:
                return stage
        return self.stages[-1]

    def first_episode(self, step: int) -> int:
        """Number of the first episode of step `step`: no episode is seen twice, and a resumed run sees the same."""
        seen = 0
        for stage in self.stages:
            if step <= stage.steps:
                return seen + step * stage.episodes
            seen, step = seen + stage.steps * stage.episodes, step - stage.steps
        return seen

    def rate(self, step: int) -> float:
        """Learning rate of step `step`."""
        rising = min(1.0, (step + 1) / max(1, self.warm_up))
        falling = min(1.0, (self.steps - step) / max(1, self.cool_down))
        return self.learning_rate * rising * falling


def read_recipe(path: Path) -> PretrainRecipe:
    """A recipe out of a TOML file.

    Raises
    ------
    UnreadableFileError
        When there is no such file, or it is no recipe; the sentence names the first wrong entry.
    """
    try:
        return PretrainRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UnreadableFileError(
            f"The recipe {str(path)!r} cannot be read: {error.strerror or error}.", "Name a .toml file that exists."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFileError(
            f"{path.name!r} is no TOML file: {error}.", "Compare it with resources/pretraining.toml."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or "the recipe"
        raise UnreadableFileError(
            f"{path.name!r} is no recipe of a pretraining: {place}: {first['msg']}.",
            "Compare it with resources/pretraining.toml.",
        ) from error
