"""What each request does. The same functions serve the worker process and, in its own process, the command line."""

from __future__ import annotations

from typing import Any

from napari_emtransfer.core.events import EngineReady
from napari_emtransfer.worker.control import Emit, RunControl, Terminal, terminal_of
from napari_emtransfer.worker.protocol import (
    AddSyntheticRequest,
    EvaluateRequest,
    LiveRequest,
    PredictRequest,
    PretrainRequest,
    PreviewRequest,
    RankRequest,
    RecipeRequest,
    RecommendRequest,
    Request,
    SimulateRequest,
    SynthesisPreviewRequest,
    SynthesizeRequest,
    TrainRequest,
    WarmRequest,
)

__all__ = ["Emit", "RunControl", "handle"]


def handle(request: Request, emit: Emit, control: RunControl) -> None:
    """Do what `request` asks; emit events on the way, and exactly one terminal event at the end.

    Nothing is raised: a fault becomes RunFailed. torch is imported here and not before.
    """
    emit(_terminal(request, emit, control))


def _terminal(request: Request, emit: Emit, control: RunControl) -> Terminal:
    if isinstance(request, TrainRequest):
        # A training run keeps a record of its own end, so it makes its own terminal event.
        from napari_emtransfer.worker.train_handler import train

        return train(request, emit, control)
    return terminal_of(request.run_id, control, lambda: _result(request, emit, control))


# What makes something: weights, micrographs, learning curves.
_Making = (
    SimulateRequest
    | PretrainRequest
    | RecipeRequest
    | SynthesizeRequest
    | SynthesisPreviewRequest
    | AddSyntheticRequest
)


def _result(
    request: WarmRequest
    | PredictRequest
    | EvaluateRequest
    | RecommendRequest
    | LiveRequest
    | RankRequest
    | PreviewRequest
    | _Making,
    emit: Emit,
    control: RunControl,
) -> dict[str, Any]:
    match request:
        case WarmRequest():
            return _warm(request, emit)
        case PredictRequest():
            from napari_emtransfer.worker.predict_handler import predict

            return predict(request, emit, control)
        case EvaluateRequest():
            from napari_emtransfer.worker.evaluate_handler import evaluate

            return evaluate(request, emit, control)
        case RecommendRequest():
            from napari_emtransfer.worker.recommend_handler import recommend

            return recommend(request, emit, control)
        case LiveRequest():
            from napari_emtransfer.worker.live_handler import update_live

            return update_live(request, emit, control)
        case RankRequest():
            from napari_emtransfer.worker.rank_handler import rank

            return rank(request, emit, control)
        case PreviewRequest():
            from napari_emtransfer.worker.preview_handler import preview

            return preview(request, emit, control)
    return _made(request, emit, control)


def _made(request: _Making, emit: Emit, control: RunControl) -> dict[str, Any]:
    match request:
        case SimulateRequest():
            from napari_emtransfer.worker.simulate_handler import simulate

            return simulate(request, emit, control)
        case PretrainRequest():
            from napari_emtransfer.worker.pretrain_handler import pretrain

            return pretrain(request, emit, control)
        case RecipeRequest():
            from napari_emtransfer.worker.recipe_handler import pretrain_by_recipe

            return pretrain_by_recipe(request, emit, control)
        case SynthesizeRequest():
            from napari_emtransfer.worker.synthesize_handler import synthesize

            return synthesize(request, emit, control)
        case SynthesisPreviewRequest():
            from napari_emtransfer.worker.synthetic_project_handler import preview_synthesis

            return preview_synthesis(request, emit, control)
        case AddSyntheticRequest():
            from napari_emtransfer.worker.synthetic_project_handler import add_synthetic

            return add_synthetic(request, emit, control)


def _warm(request: WarmRequest, emit: Emit) -> dict[str, Any]:
    """Import what a prediction needs, wake the device, say so."""
    import torch

    from napari_emtransfer.core.nn import devices, model, predictor  # noqa: F401 - imported for their slowness

    devices.set_threads(request.compute.threads)
    device = devices.resolve_device(request.compute.device)
    # The first operation on an accelerator loads its driver and kernels, which takes seconds.
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8, device=device), torch.zeros(1, 1, 3, 3, device=device))
    words, free = devices.describe(device), devices.free_memory_gb(device)
    emit(EngineReady(run_id=request.run_id, device=words, memory_free_gb=free))
    from napari_emtransfer.worker import live_handler  # noqa: F401 - a second or two, before the first stroke

    return {"device": words, "memory_free_gb": free}
