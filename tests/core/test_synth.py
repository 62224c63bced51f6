import json
import time

import numpy as np
import pytest

from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.errors import StorageError
from napari_emtransfer.core.synth.sample import write_sample_dataset
from napari_emtransfer.core.synth.voronoi import Imaging, tessellate, two_phase


def test_distance_to_the_boundary_is_the_true_one():
    rng = np.random.default_rng(0)
    points, weights = rng.uniform(0, 100, (40, 2)), rng.uniform(0, 60, 40)
    y, x = np.mgrid[:100, :100].astype(float)
    ids, boundary = tessellate(y, x, points, weights)
    pixels = np.stack([y, x], axis=-1)[..., None, :]
    power = ((pixels - points) ** 2).sum(axis=-1) - weights
    np.testing.assert_array_equal(ids, power.argmin(axis=-1))
    own = points[ids]
    apart = np.linalg.norm(points - own[..., None, :], axis=-1)
    own_power = power.min(axis=-1, keepdims=True)
    all_boundaries = np.where(apart > 0, (power - own_power) / (2 * np.where(apart > 0, apart, 1)), np.inf)
    exact = all_boundaries.min(axis=-1)
    assert np.mean(np.isclose(boundary, exact, atol=1e-9)) > 0.99
    # Two seeds of equal weight: the distance to the perpendicular bisector, not the difference of distances.
    _, two = tessellate(y, x, np.array([[50.0, 20.0], [50.0, 80.0]]), np.zeros(2))
    np.testing.assert_allclose(two, np.abs(x - 50), atol=1e-9)


@pytest.mark.parametrize("kind", ["dual-phase", "precipitate"])
@pytest.mark.parametrize("fraction", [0.15, 0.5])
def test_two_phases(kind, fraction):
    made = two_phase((192, 256), seed=3, kind=kind, fraction=fraction)
    assert made.image.shape == made.mask.shape == (192, 256)
    assert made.image.dtype == np.float32
    assert made.mask.dtype == np.uint8
    assert made.image.min() >= 0
    assert made.image.max() <= 1
    assert set(np.unique(made.mask)) == {1, 2}
    assert np.mean(made.mask == 2) == pytest.approx(fraction, abs=0.06)
    assert json.loads(json.dumps(made.recipe)) == made.recipe


def test_mask_fits_the_image():
    # Without noise the phases separate by grey value nearly everywhere: image and mask come from one field.
    clean = Imaging(dose=1e7, gain_noise=0, blur_px=0.3, vignette=0, edge=0)
    for kind, sign in (("dual-phase", 1), ("precipitate", -1)):
        made = two_phase((256, 256), seed=5, kind=kind, fraction=0.3, imaging=clean)
        middle = np.mean([np.median(made.image[made.mask == k]) for k in (1, 2)])
        guess = np.where(sign * (made.image - middle) > 0, 2, 1)
        assert np.mean(guess == made.mask) > 0.9


def test_same_seed_same_pixels_other_seed_other_specimen():
    one, again, other = (two_phase((128, 128), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.mask, again.mask)
    assert np.mean(one.mask != other.mask) > 0.1
    settings = {two_phase((64, 64), seed=s).recipe["imaging"]["brightness"] for s in range(4)}
    assert len(settings) == 4


def test_sample_dataset(tmp_path):
    start = time.process_time()
    folder = write_sample_dataset(tmp_path / "sample")
    assert time.process_time() - start < 5
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    images, masks = sorted((folder / "images").iterdir()), sorted((folder / "masks").iterdir())
    assert [p.stem for p in images] == [p.stem for p in masks] == sorted(described["groups"])
    assert len(images) == 6
    assert len(set(described["groups"].values())) == 3
    for image, mask in zip(images, masks, strict=True):
        micrograph = read_micrograph(image)
        assert micrograph.shape == (512, 512)
        assert micrograph.problems == ()
        assert micrograph.pixel_size_nm == pytest.approx(described["pixel_size_nm"][image.stem])
        assert set(np.unique(read_micrograph(mask).pixels[:, :])) == {1, 2}
    split = described["splits"]["sample"]
    by_part = [{described["groups"][stem] for stem in part} for part in split.values()]
    assert not by_part[0] & by_part[1]
    # Specimens differ visibly in brightness, so that standardisation and transfer have something to do.
    means = [
        read_micrograph(folder / "images" / f"{s}_1.tif").read().mean() for s in ("annealed", "quenched", "tempered")
    ]
    assert max(means) > 1.4 * min(means)


def test_sample_dataset_is_deterministic(tmp_path, monkeypatch):
    from napari_emtransfer.core.synth import sample

    monkeypatch.setattr(sample, "_SHAPE", (96, 96))
    one, two, other = (write_sample_dataset(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    files = [p.relative_to(one) for p in one.rglob("*") if p.is_file()]
    assert len(files) == 13
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
    assert any((one / f).read_bytes() != (other / f).read_bytes() for f in files)


def test_sample_dataset_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        write_sample_dataset(tmp_path / "file")
