from itertools import pairwise

import numpy as np
import pytest
import torch
from nn_helpers import FP32, blobs

from napari_emtransfer.core.config import ModelConfig, PredictConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import DeviceError
from napari_emtransfer.core.nn.fusion import fused_for_inference
from napari_emtransfer.core.nn.ground import ArrayView
from napari_emtransfer.core.nn.lean import LeanUnet, lean
from napari_emtransfer.core.nn.memory import activation_bytes_per_pixel, affordable_roi
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.predictor import Predictor, predict_labels
from napari_emtransfer.core.nn.tiling import fade_weights, plan_axis


def predictor(model, **changes):
    return Predictor(model, PredictConfig(compute=FP32, **changes))


def assembled(predictor, view, **kwargs):
    whole = np.full((predictor.n_classes, *view.shape), np.nan, np.float32)
    for window, probabilities in predictor.predict(view, **kwargs):
        assert np.isnan(whole[(slice(None), *window.slices)]).all(), "a pixel was predicted twice"
        whole[(slice(None), *window.slices)] = probabilities
    return whole


@pytest.fixture(scope="module")
def micrograph():
    return ArrayView(blobs((500, 620), seed=3).image)


@pytest.fixture(scope="module")
def at_once(trained, micrograph):
    """The plain network on the whole micrograph, mirrored to a multiple of 32."""
    image = np.pad(micrograph.read(Window(y0=0, x0=0, y1=500, x1=620)), ((0, 12), (0, 20)), mode="symmetric")
    with torch.inference_mode():
        return trained(torch.from_numpy(image)[None, None]).softmax(1)[0, :, :500, :620].numpy()


def test_one_window_is_the_network_itself(trained, micrograph, at_once):
    assert np.abs(assembled(predictor(trained, roi_px=1024), micrograph) - at_once).max() < 1e-4


@pytest.mark.parametrize("blend", ["valid", "hann"])
def test_probabilities_are_complete_and_sum_to_one(trained, micrograph, blend):
    whole = assembled(predictor(trained, roi_px=256, halo_px=32, blend=blend), micrograph)
    assert np.allclose(whole.sum(0), 1, atol=1e-5)
    assert whole.min() >= 0


def test_tiles_approach_the_whole_as_the_halo_grows(trained, micrograph, at_once):
    errors = [
        np.abs(assembled(predictor(trained, roi_px=448, halo_px=halo), micrograph) - at_once).max()
        for halo in (0, 64, 160)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_part_sees_its_surroundings(trained, micrograph):
    window = Window(y0=101, x0=333, y1=287, x1=471)
    p = predictor(trained, halo_px=192)
    whole, part = assembled(p, micrograph), assembled(p, micrograph, window=window)
    inside = (slice(None), *window.slices)
    assert np.isfinite(part).sum() == np.isfinite(part[inside]).sum() == 2 * 186 * 138
    assert np.abs(part[inside] - whole[inside]).max() < 5e-3


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (33, 32), (500, 5)])
def test_any_size_is_predicted(trained, shape):
    labels = predict_labels(predictor(trained, roi_px=128, halo_px=32), ArrayView(np.zeros(shape, np.float32)))
    assert labels.shape == shape
    assert np.isin(labels, (1, 2)).all()


def test_rows_are_told_and_a_stop_is_obeyed(trained, micrograph):
    told, done = [], []
    p = predictor(trained, roi_px=256, halo_px=32)
    pieces = p.predict(micrograph, lambda: len(done) == 3)
    while piece := next(pieces, None):
        done.append(piece)
    assert len(done) == 3
    list(p.predict(micrograph, on_rows=lambda done, total: told.append((done, total))))
    assert told == sorted(told)
    assert told[-1] == (500, 500)


def test_a_stop_is_heard_in_the_middle_of_a_window(trained, micrograph):
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == 20

    assert list(predictor(trained, roi_px=1024).predict(micrograph, stop)) == []
    assert asked == 20


def test_batches_of_windows_equal_single_windows(trained, micrograph):
    single = assembled(predictor(trained, roi_px=256, halo_px=32), micrograph)
    batched = assembled(predictor(trained, roi_px=256, halo_px=32, batch_size=3), micrograph)
    assert np.abs(single - batched).max() < 1e-4


class Hungry(torch.nn.Module):
    """Runs out of memory above a number of pixels."""

    def __init__(self, model, max_pixels):
        super().__init__()
        self.model, self.max_pixels, self.n_failed = model, max_pixels, 0

    def forward(self, images):
        if images.numel() > self.max_pixels:
            self.n_failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.model(images)


def test_out_of_memory_makes_windows_smaller(trained, micrograph, at_once):
    p = predictor(trained, roi_px=1024, halo_px=160)
    p._model = hungry = Hungry(p._model, 420 * 420)
    assert np.abs(assembled(p, micrograph) - at_once).max() < 0.02
    assert hungry.n_failed > 0


def test_too_little_memory_for_any_window_is_said(trained, micrograph):
    p = predictor(trained, roi_px=256)
    p._model = Hungry(p._model, 10)
    with pytest.raises(DeviceError, match="does not hold one window"):
        next(p.predict(micrograph))


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18", "mobilenet_v2", "efficientnet-b0"])
def test_folded_norms_change_nothing(encoder):
    torch.manual_seed(0)
    model = build_model(ModelConfig(encoder=encoder, n_classes=2))
    image = torch.randn(2, 1, 64, 64)
    model(image)  # a training pass, so that the statistics are not the initial ones
    model.eval()
    fused = fused_for_inference(model)
    n_norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()) for net in (model, fused)]
    with torch.inference_mode():
        assert torch.allclose(model(image), fused(image), atol=1e-3)
    assert n_norms[1] < n_norms[0]


@pytest.mark.parametrize("shape", [(992, 640), (32, 32), (64, 2048)])
def test_the_last_blocks_in_strips_change_nothing(trained, shape):
    strips = lean(trained)
    image = torch.randn(1, 1, *shape, generator=torch.manual_seed(0))
    with torch.inference_mode():
        assert isinstance(strips, LeanUnet)
        assert (strips(image) - trained(image)).abs().max() < 1e-4


def test_windows_fit_the_memory():
    models = {
        a: fused_for_inference(build_model(ModelConfig(architecture=a, n_classes=3))) for a in ("Unet", "UnetPlusPlus")
    }
    cpu = torch.device("cpu")
    full, strips = (affordable_roi(m, 32, cpu, bytes_per_value=4) for m in (models["Unet"], lean(models["Unet"])))
    assert strips > full > affordable_roi(models["UnetPlusPlus"], 32, cpu, bytes_per_value=4) > 512
    assert affordable_roi(models["Unet"], 32, cpu, bytes_per_value=2) > full
    assert 200 < activation_bytes_per_pixel(lean(models["Unet"]), 32, bytes_per_value=4) < 300


@pytest.mark.parametrize("length", [32, 256, 480, 512, 1024, 4096, 16384])
@pytest.mark.parametrize(("roi", "halo"), [(256, 64), (512, 0), (1536, 128), (160, 64)])
def test_windows_tile_the_axis(length, roi, halo):
    segments = plan_axis(length, roi=roi, halo=halo, stride=32)
    assert segments[0].keep_start == 0
    assert segments[-1].keep_stop == length
    for left, right in pairwise(segments):
        assert left.keep_stop == right.keep_start
        assert left.stop - left.keep_stop >= halo
        assert right.keep_start - right.start >= halo
    assert len({s.stop - s.start for s in segments}) == 1
    assert all(s.start >= 0 and s.stop <= length and s.start % 32 == 0 and s.stop - s.start <= roi for s in segments)
    total = np.zeros(length)
    for weight, s in zip(fade_weights(segments), segments, strict=True):
        total[s.start : s.stop] += weight
    assert np.allclose(total, 1, atol=1e-6)


def test_large_micrographs_waste_little():
    halo, roi = 128, 2560
    segments = plan_axis(16384, roi=roi, halo=halo, stride=32)
    computed = sum(s.stop - s.start for s in segments)
    assert (16384 / computed) ** 2 > 0.8
