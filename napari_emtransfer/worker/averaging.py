"""Averaging over orientations and runs: which are allowed, and what the user should know of it."""

from __future__ import annotations

from napari_emtransfer.core.config import PredictConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import NoticePosted
from napari_emtransfer.core.legality import legal_symmetries
from napari_emtransfer.worker.control import Emit
from napari_emtransfer.worker.models import TrainedModel


def with_symmetries(config: PredictConfig, project: Project, *, tta: bool) -> PredictConfig:
    """With `tta`, the configuration with the symmetries that leave micrographs of the project's modality possible.

    Forbidden ones stay out also where a run was trained with them on the user's word: there they taught the network,
    here they would bend the result.
    """
    if not tta:
        return config
    return config.model_copy(update={"symmetries": legal_symmetries(project.settings.modality)})


def tell_of_averages(run_id: str, model: TrainedModel, emit: Emit, *, tta: bool) -> None:
    """Notices where averaging can do harm, or nothing at all."""
    if tta and len(model.predictor.config.symmetries) == 1:
        emit(
            NoticePosted(
                run_id=run_id,
                message="The modality of this project allows no symmetry but the micrograph as it is: "
                "there is nothing to average over.",
            )
        )
    elif tta and TrainConfig.model_validate(model.run.config).augment == "none":
        emit(
            NoticePosted(
                run_id=run_id,
                message=f"The run {model.run.id} was trained without augmentation: it has never seen a turned "
                "micrograph, so averaging over orientations may do harm.",
                hint="Compare `evaluate` with and without --tta.",
            )
        )
    if model.others:
        emit(
            NoticePosted(
                run_id=run_id,
                message=f"The mean of {len(model.others) + 1} runs has not been calibrated together: confidence and "
                "entropy are shown without a temperature.",
            )
        )
