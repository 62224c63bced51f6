import numpy as np
import pytest

from napari_emtransfer.core.data.micrograph import Micrograph, Plane
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import UnreadableFileError


class Recorder:
    """Pixels that remember what was asked of them."""

    def __init__(self, array):
        self.array, self.asked = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        self.asked.append(index)
        return self.array[index]


def codes(micrograph):
    return [problem.code for problem in micrograph.problems]


def noise(shape=(80, 120), seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def test_read_touches_only_its_window():
    pixels = Recorder(noise())
    window = Window(y0=3, x0=7, y1=13, x1=27)
    values = Micrograph("m", pixels).read(window)
    assert pixels.asked == [window.slices]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, pixels.array[3:13, 7:27])


def test_non_finite_pixels_become_the_images_median_in_every_window():
    array = noise()
    array[5, 5], array[6, 6], array[7, 7] = np.nan, np.inf, -np.inf
    micrograph = Micrograph.inspected("m", array, 1.0)
    median = np.median(array[np.isfinite(array)])
    whole, part = micrograph.read(), micrograph.read(Window(y0=5, x0=5, y1=8, x1=8))
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(whole[5:8, 5:8], part)
    assert [part[i, i] for i in range(3)] == pytest.approx([median] * 3)
    assert codes(micrograph) == ["nonfinite"]
    assert "3 pixels" in micrograph.problems[0].message


def test_all_pixels_non_finite():
    micrograph = Micrograph.inspected("m", np.full((10, 10), np.nan), 1.0)
    assert codes(micrograph) == ["nonfinite", "constant"]
    assert not micrograph.read().any()


def test_constant_image_and_missing_pixel_size_are_problems():
    assert codes(Micrograph.inspected("m", np.full((70, 70), 5, np.uint16))) == ["no_pixel_size", "constant"]
    assert codes(Micrograph.inspected("m", noise(), 2.5)) == []


def test_values_beyond_float32_are_no_surprise():
    array = np.full((10, 10), 1.0)
    array[0, 0] = 1e300
    assert np.isfinite(Micrograph("m", array).read()).all()


def test_a_huge_image_is_inspected_by_samples():
    pixels = Recorder(np.broadcast_to(np.uint8(7), (16384, 16384)))
    micrograph = Micrograph.inspected("m", pixels, 1.0)
    touched = sum((y.stop - y.start) * (x.stop - x.start) for y, x in pixels.asked)
    assert touched < 1e6
    assert codes(micrograph) == ["constant"]


def test_plane_of_a_stack_is_lazy():
    stack = Recorder(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5))
    plane = Plane(stack, (1, 2))
    assert plane.shape == (4, 5)
    assert stack.asked == []
    np.testing.assert_array_equal(plane[1:3, 2:4], stack.array[1, 2, 1:3, 2:4])


def test_storage_that_fails_later_is_a_users_error():
    class Broken:
        shape, dtype = (10, 10), np.dtype("u1")

        def __getitem__(self, index):
            raise RuntimeError("error during blosc decompression")

    with pytest.raises(UnreadableFileError, match="blosc"):
        Micrograph("m", Broken()).read()


def draw_bar(image, height, *, background, ink, at_top=False, rule=False, seed=0):
    """A bar as SEM software draws it, with real letters."""
    from PIL import Image, ImageDraw

    width = image.shape[1]
    bar = Image.new("L", (width, height), background)
    pen = ImageDraw.Draw(bar)
    for i in range(0, width - 60, 150):
        pen.text((8 + i, height // 2 - 6), f"EHT = {5 + i % 7}.00 kV  WD 4.{i % 9} mm", fill=ink)
    pen.line((width - 120, height - 5, width - 30, height - 5), fill=ink, width=2)
    if rule:
        pen.line((0, 0, width, 0), fill=ink, width=1)
    bar = np.asarray(bar).astype(image.dtype)
    if image.max() > 255:
        bar = bar * 257
    return np.concatenate([bar, image] if at_top else [image, bar])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("height", "background", "ink", "at_top", "rule"),
    [
        (40, 0, 255, False, False),
        (64, 255, 0, False, True),
        (30, 0, 255, False, True),
        (50, 200, 0, False, False),
        (32, 0, 230, True, False),
    ],
)
def test_info_bars_are_found(seed, height, background, ink, at_top, rule):
    from napari_emtransfer.core.synth.voronoi import two_phase

    grey = two_phase((480, 640), seed=seed).image
    image = draw_bar((grey * 255).astype(np.uint8), height, background=background, ink=ink, at_top=at_top, rule=rule)
    bar = Micrograph.inspected("m", image, 1.0).info_bar
    assert bar is not None
    edge = height if at_top else 480
    assert abs((bar.y1 if at_top else bar.y0) - edge) <= 1
    assert (bar.x0, bar.x1) == (0, 640)


def test_no_info_bar_in_honest_images():
    from napari_emtransfer.core.synth.voronoi import two_phase

    rng = np.random.default_rng(0)
    saturated = np.clip(rng.normal(220, 40, (400, 400)), 0, 255).astype(np.uint8)
    vacuum = rng.normal(120, 20, (400, 400)).clip(0, 255).astype(np.uint8)
    vacuum[330:] = 0  # a specimen's straight edge with nothing below
    bright_particle = vacuum.copy()
    bright_particle[350:380, 100:140] = 255
    stripes = np.tile(np.repeat([0, 255], 4), (400, 50)).astype(np.uint8)
    images = [saturated, vacuum, bright_particle, stripes]
    images += [two_phase((256, 256), seed=s, kind="precipitate").image for s in range(3)]
    assert [Micrograph.inspected("m", image, 1.0).info_bar for image in images] == [None] * len(images)


def test_no_info_bar_in_the_real_sets(real_data):
    from napari_emtransfer.core.data.readers import read_micrograph

    files = [f for f in sorted(real_data.glob("*/images/*")) if f.parent.parent.name != "raw"][::4]
    assert len(files) > 20
    assert [f.name for f in files if read_micrograph(f).info_bar is not None] == []


@pytest.mark.parametrize(
    ("name", "y0"), [("rosettasciio__Zeiss_SEM_1k.tif", 691), ("rosettasciio__FEI-Helios-Ebeam-16bits.tif", 442)]
)
def test_info_bars_of_real_microscopes(real_data, name, y0):
    import tifffile

    from napari_emtransfer.core.data.readers import read_micrograph

    path = real_data / "raw" / name
    bar = read_micrograph(path).info_bar
    assert bar is not None
    assert bar.y0 == y0
    # And from the pixels alone, without what the file says.
    assert Micrograph.inspected("m", tifffile.imread(path)).info_bar == bar
