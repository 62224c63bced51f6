"""Every instrument file opens with the size that it states; whatever cannot be opened says why."""

import contextlib
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.data.micrograph import Problem
from napari_emtransfer.core.data.readers import StackError, checksum, read_micrograph, supported_suffixes
from napari_emtransfer.core.data.readers.units import is_reciprocal, pixel_size, to_nm
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError, NotAMicrographError, StorageError, UnreadableFileError

# name → pixel size in nm, shape; found by looking at each file's own header, not by our readers.
SINGLE = {
    "openNCEM__16_STOimage.emi": (0.010012704, (1024, 1024)),
    "openNCEM__16_STOimage_1.ser": (0.010012704, (1024, 1024)),
    "openNCEM__Acquisition_18.emd": (0.0122465249, (1024, 1024)),  # dim1, dim2 in [n_m]
    "rosettasciio__128x128-TEM_search.emi": (5.2612142, (128, 128)),
    "rosettasciio__128x128-TEM_search_1.ser": (5.2612142, (128, 128)),
    "rosettasciio__FEI-Helios-Ebeam-16bits.tif": (3372.4, (471, 512)),  # [Scan] PixelWidth 3.3724e-06 m
    "rosettasciio__HAADFscan.mrc": (5.6791313, (16, 16)),  # cell of 908.661 Å over 16 samples
    "rosettasciio__Hitachi_TM3030Plus.bcf": (None, (240, 320)),  # has no DX
    # 3642 px per metre on the camera at 150 000 ×; the file's own ruler: 135.33 px = 247.72 nm.
    # XResolution alone, rounded to 93 dpi, would give 1.8208.
    "rosettasciio__JEOL-SightX-TEM-mag-dummy.tif": (1.830496, (556, 556)),
    "rosettasciio__TVIPS_bin4.tif": (1.4208037, (1024, 1024)),
    "rosettasciio__Zeiss_SEM_1k.tif": (2614.514, (768, 1024)),  # ap_image_pixel_size 2.615 µm
    "rosettasciio__example2_v3.1.hspy": (None, (16, 16)),  # a diffraction pattern
    "rosettasciio__example_image.emd": (None, (3, 3)),  # no units
    "rosettasciio__olympus_SIS.tif": (0.0239279178, (101, 112)),  # behind a coloured preview
    "rosettasciio__test-9.dm4": (None, (2, 2)),  # no units
    "rosettasciio__test-MonarcCL_mono-image.dm4": (18325.3498, (2, 2)),
    "rosettasciio__test_STEM_image.dm3": (0.248538017, (68, 68)),
    "rosettasciio__test_dm_image_um_unit.dm3": (168.674693, (68, 68)),
    "rosettasciio__test_loading_image_saved_with_DM.tif": (168.674693, (68, 68)),
    "rosettasciio__test_loading_image_saved_with_imageJ.tif": (168.674711, (68, 68)),
}
STACKS = {
    "rosettasciio__fei_example_tem_stack.emd": (0.00817288319, (3, 3), 2),
    "rosettasciio__test_stackbuilder_imagestack.dm3": (59.9829033, (2, 16), 3),
}
SPECTRUM = "openNCEM__08_carbon.dm3"
CUTS = (0.0, 1e-5, 1e-3, 0.01, 0.05, 0.2, 0.4, 0.5, 0.7, 0.9, 0.97, 0.999)


@pytest.fixture
def raw(real_data):
    pytest.importorskip("rsciio")
    return real_data / "raw"


def codes(micrograph):
    return [problem.code for problem in micrograph.problems]


def grey(shape=(70, 90), dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


# ---- what microscopes write


@pytest.mark.parametrize("name", SINGLE)
def test_instrument_files(raw, name):
    expected, shape = SINGLE[name]
    micrograph = read_micrograph(raw / name)
    assert micrograph.shape == shape
    assert micrograph.pixel_size_nm == (None if expected is None else pytest.approx(expected, rel=1e-6))
    assert micrograph.name == Path(name).stem
    pixels = micrograph.read()
    assert pixels.shape == shape
    assert pixels.dtype == np.float32
    assert ("no_pixel_size" in codes(micrograph)) == (expected is None and "hspy" not in name)


@pytest.mark.parametrize("name", STACKS)
def test_stacks_ask_for_the_frame(raw, name):
    expected, shape, n_frames = STACKS[name]
    with pytest.raises(StackError, match=f"holds {n_frames} image") as caught:
        read_micrograph(raw / name)
    assert caught.value.n_frames == n_frames
    frames = [read_micrograph(raw / name, frame=i) for i in range(n_frames)]
    assert {f.shape for f in frames} == {shape}
    assert [f.pixel_size_nm for f in frames] == pytest.approx([expected] * n_frames, rel=1e-6)
    assert not np.array_equal(frames[0].read(), frames[-1].read())
    with pytest.raises(StackError, match="no frame 99"):
        read_micrograph(raw / name, frame=99)


def test_every_raw_file_is_tested(raw):
    names = {f.name for f in raw.iterdir() if f.suffix != ".tsv"}
    assert names == {*SINGLE, *STACKS, SPECTRUM}


def test_a_spectrum_says_how_many_channels(raw):
    with pytest.raises(NotAMicrographError, match="a spectrum with 2048 channels"):
        read_micrograph(raw / SPECTRUM)


def test_a_diffraction_pattern_has_no_pixel_size(raw):
    micrograph = read_micrograph(raw / "rosettasciio__example2_v3.1.hspy")
    assert codes(micrograph) == ["diffraction"]


def test_pixels_are_those_of_the_file(raw):
    path = raw / "rosettasciio__olympus_SIS.tif"
    with tifffile.TiffFile(path) as tif:
        np.testing.assert_array_equal(read_micrograph(path).read(), tif.pages[1].asarray())
    ser = read_micrograph(raw / "openNCEM__16_STOimage_1.ser").read()
    np.testing.assert_array_equal(ser, read_micrograph(raw / "openNCEM__16_STOimage.emi").read())


def test_berkeley_emd_is_not_mirrored(raw):
    import h5py

    path = raw / "openNCEM__Acquisition_18.emd"
    with h5py.File(path) as file:
        assert file["data/single/dim1"].attrs["name"] == b"Y"
        np.testing.assert_array_equal(read_micrograph(path).read(), file["data/single/data"])


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("rosettasciio__Zeiss_SEM_1k.tif", {"voltage_kv": 25.0, "detector": "HE-SE2", "magnification": 105.0}),
        ("rosettasciio__FEI-Helios-Ebeam-16bits.tif", {"voltage_kv": 5.0, "detector": "ETD"}),
        ("rosettasciio__test_STEM_image.dm3", {"voltage_kv": 200.0, "magnification": 225000.0, "mode": "STEM"}),
        ("openNCEM__Acquisition_18.emd", {"voltage_kv": 200.0, "instrument": "TEAM 0.5"}),
        ("openNCEM__16_STOimage.emi", {"voltage_kv": 80.0, "acquired": "Tue Oct 18 18:18:46 2011"}),
        ("rosettasciio__HAADFscan.mrc", {"voltage_kv": 300.0, "detector": "HAADF"}),
    ],
)
def test_metadata(raw, name, stated):
    import json

    metadata = read_micrograph(raw / name).metadata
    assert stated.items() <= metadata.items()
    assert json.loads(json.dumps(metadata)) == metadata


def test_emi_without_its_ser(raw, tmp_path):
    path = shutil.copy(raw / "openNCEM__16_STOimage.emi", tmp_path / "a.emi")
    with pytest.raises(UnreadableFileError, match=r"a_1\.ser"):
        read_micrograph(path)


# ---- files that are not what they should be


@pytest.mark.parametrize("name", [*SINGLE, *STACKS, SPECTRUM])
def test_truncated_files_are_refused(raw, tmp_path, name):
    """Cut anywhere: a user's error, or exactly the micrograph of the whole file (only padding was lost)."""
    data = (raw / name).read_bytes()
    whole = None if name == SPECTRUM else open_any(raw / name)
    if name.endswith(".emi"):
        for ser in raw.glob(f"{Path(name).stem}_*.ser"):
            shutil.copy(ser, tmp_path)
    path = tmp_path / name
    for cut in CUTS:
        path.write_bytes(data[: int(cut * len(data))])
        try:
            micrograph = open_any(path)
        except EMTransferError:
            continue
        assert whole is not None
        assert cut >= 0.5
        assert micrograph.pixel_size_nm == whole.pixel_size_nm
        np.testing.assert_array_equal(micrograph.read(), whole.read())


def open_any(path):
    try:
        return read_micrograph(path)
    except StackError as error:
        return read_micrograph(path, frame=error.n_frames - 1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_bytes_never_surprise(tmp_path_factory, data):
    """Headers with random bytes changed: opens, or a user's error; nothing else, and no huge allocation."""
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(sorted(WRITERS)))
    path = folder / f"a{suffix}"
    WRITERS[suffix](path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(EMTransferError):
        open_any(path).read(Window(y0=0, x0=0, y1=1, x1=1))


def write_mrc(path, array=None):
    import mrcfile

    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(grey(dtype=np.int16) if array is None else array)
        mrc.voxel_size = 2.5


def write_picture(path):
    from PIL import Image

    Image.fromarray(grey(dtype=np.uint8)).save(path)


WRITERS = {
    ".tif": lambda path: tifffile.imwrite(path, grey()),
    ".tiff": lambda path: tifffile.imwrite(path, grey(), compression="zlib"),
    ".mrc": write_mrc,
    ".npy": lambda path: np.save(path, grey()),
    ".png": write_picture,
    ".jpg": write_picture,
}


@pytest.mark.parametrize("suffix", sorted(supported_suffixes() - {".zarr"}))
def test_an_empty_file_says_so(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(UnreadableFileError, match=r"is empty \(0 bytes\)"):
        read_micrograph(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"nothing\.tif' cannot be opened"):
        read_micrograph(tmp_path / "nothing.tif")
    with pytest.raises(UnreadableFileError, match="is a folder"):
        read_micrograph(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.dm3", b"PK\3\4" + bytes(100), "really a ZIP archive"),
        ("a.tif", b"%PDF-1.7 and more", "really a PDF document"),
        ("a.dm4", b"\x01\x02\x03" * 50, "does not begin like a .dm4 file"),
        ("notes.txt", b"temper 2 h at 600 C\n", "a text file"),
        ("a.xyz", bytes(range(128, 256)), "unknown format"),
    ],
)
def test_renamed_files_say_what_they_are(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=says):
        read_micrograph(path)


def test_known_formats_open_under_any_name(tmp_path, raw):
    tifffile.imwrite(tmp_path / "a.tif", grey())
    renamed = (tmp_path / "a.tif").rename(tmp_path / "a.dm3")
    np.testing.assert_array_equal(read_micrograph(renamed).read(), grey())
    dm3 = shutil.copy(raw / "rosettasciio__test_STEM_image.dm3", tmp_path / "b.tif")
    assert read_micrograph(dm3).pixel_size_nm == pytest.approx(0.248538, rel=1e-5)


@pytest.mark.parametrize("missing", ["rsciio", "h5py"])
def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch, missing):
    path = tmp_path / "a.dm3"
    path.write_bytes(struct.pack(">II", 3, 20) + bytes(100))
    for name in [n for n in sys.modules if n == missing or n.startswith(f"{missing}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UnreadableFileError, match=r'pip install "napari-emtransfer\[formats\]"'):
        read_micrograph(path)


# ---- spectra, 4D-STEM, colour, complex numbers


def write_ncem(path, array, units, names="abcd"):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/set")
        group.attrs["emd_group_type"] = 1
        group["data"] = array
        for i, (n, unit) in enumerate(zip(array.shape, units, strict=True), start=1):
            dim = group.create_dataset(f"dim{i}", data=np.arange(n) * 0.5)
            dim.attrs["name"], dim.attrs["units"] = names[i - 1], unit


@pytest.mark.parametrize(
    ("shape", "units", "says"),
    [
        ((3, 4, 8, 9), ["[n_m]"] * 2 + ["[n_m^-1]"] * 2, "4D-STEM set: 3 × 4 scan positions"),
        ((5, 6, 100), ["[n_m]", "[n_m]", "[eV]"], r"spectrum image \(5 × 6 spectra with 100 channels"),
    ],
)
def test_data_cubes_are_refused_with_what_they_are(tmp_path, shape, units, says):
    pytest.importorskip("rsciio")
    write_ncem(tmp_path / "a.emd", np.random.default_rng(0).random(shape), units)
    with pytest.raises(NotAMicrographError, match=says):
        read_micrograph(tmp_path / "a.emd")


def test_berkeley_stack_keeps_its_frames(tmp_path):
    pytest.importorskip("rsciio")
    stack = np.random.default_rng(0).random((4, 20, 30))
    write_ncem(tmp_path / "a.emd", stack, ["[s]", "[n_m]", "[n_m]"], names=("time", "y", "x"))
    with pytest.raises(StackError, match="4 image"):
        read_micrograph(tmp_path / "a.emd")
    micrograph = read_micrograph(tmp_path / "a.emd", frame=2)
    assert micrograph.pixel_size_nm == pytest.approx(0.5)
    np.testing.assert_allclose(micrograph.read(), stack[2], rtol=1e-6)


def test_another_hdf5_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = grey()
    with pytest.raises(UnreadableFileError, match=r"(?i)HDF5|hdf5"):
        read_micrograph(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_colour(tmp_path, suffix):
    from PIL import Image

    one = grey(dtype=np.uint8)
    equal, alpha = np.dstack([one] * 3), np.dstack([one] * 3 + [one // 2])
    photo = np.dstack([one, one // 2, one])
    save = np.save if suffix == ".npy" else lambda path, array: Image.fromarray(array).save(path)
    for name, array in {"equal": equal, "alpha": alpha}.items():
        save(tmp_path / f"{name}{suffix}", array)
        np.testing.assert_array_equal(read_micrograph(tmp_path / f"{name}{suffix}").read(), one)
    save(tmp_path / f"photo{suffix}", photo)
    with pytest.raises(NotAMicrographError, match="colour image: its red, green and blue channels differ"):
        read_micrograph(tmp_path / f"photo{suffix}")


def test_grey_jpeg_saved_in_colour(tmp_path):
    from PIL import Image

    one = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (70, 1))
    Image.fromarray(np.dstack([one] * 3)).save(tmp_path / "a.jpg", quality=80)
    assert np.abs(read_micrograph(tmp_path / "a.jpg").read() - one).max() < 8


def test_complex_and_text_are_refused(tmp_path):
    np.save(tmp_path / "wave.npy", np.ones((9, 9), np.complex64))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "line.npy", np.arange(50))
    np.save(tmp_path / "none.npy", np.empty((0, 5)))
    for name, says in {
        "wave": "complex",
        "text": "no grey values",
        "line": "50 channels",
        "none": "without pixels",
    }.items():
        with pytest.raises(EMTransferError, match=says):
            read_micrograph(tmp_path / f"{name}.npy")


# ---- TIFF


@pytest.mark.parametrize(
    ("compression", "dtype"),
    [(c, d) for c in (None, "zlib") for d in (np.uint8, np.uint16, np.float32, np.int16)]
    + [(c, d) for c in ("tiff_lzw", "packbits") for d in (np.uint8, np.uint16, np.float32)],
)
def test_tiff_types_and_compressions(tmp_path, compression, dtype):
    path, array = tmp_path / "a.tif", grey(dtype=dtype)
    if compression in ("tiff_lzw", "packbits"):  # tifffile writes these with imagecodecs only
        from PIL import Image

        Image.fromarray(array).save(path, compression=compression)
    else:
        tifffile.imwrite(path, array, compression=compression)
    np.testing.assert_array_equal(read_micrograph(path).read(), array)


def test_tiff_layouts(tmp_path):
    array = grey((300, 260))
    tifffile.imwrite(tmp_path / "tiles.tif", array, tile=(64, 64))
    tifffile.imwrite(tmp_path / "big.tif", array, bigtiff=True, byteorder=">")
    tifffile.imwrite(tmp_path / "inverse.tif", array, photometric="miniswhite")
    for name in ("tiles", "big"):
        np.testing.assert_array_equal(read_micrograph(tmp_path / f"{name}.tif").read(), array)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "inverse.tif").read(), 65535 - array.astype(float))


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}, {"compression": "zlib"}])
def test_tiff_stacks(tmp_path, options):
    stack = grey((4, 70, 90))
    tifffile.imwrite(tmp_path / "a.tif", stack, **options, photometric="minisblack")
    with pytest.raises(StackError) as caught:
        read_micrograph(tmp_path / "a.tif")
    assert caught.value.n_frames == 4
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.tif", frame=2).read(), stack[2])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((4e5, 4e5), "CENTIMETER", 25.0),
        ((2.54e7, 2.54e7), "INCH", 1.0),
        ((72, 72), "INCH", None),
        ((300, 300), "INCH", None),
        ((118, 118), "CENTIMETER", None),
        ((1, 1), "NONE", None),
    ],
)
def test_plain_resolution_only_when_believable(tmp_path, resolution, unit, expected):
    tifffile.imwrite(tmp_path / "a.tif", grey(), resolution=resolution, resolutionunit=unit, metadata=None)
    assert read_micrograph(tmp_path / "a.tif").pixel_size_nm == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("unit", "nm"), [("nm", 1), ("um", 1e3), ("µm", 1e3), ("Å", 0.1), ("mm", 1e6), ("pm", 1e-3)])
def test_ome_and_imagej_units(tmp_path, unit, nm):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(
        tmp_path / "o.ome.tif", grey(), metadata=metadata | {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": unit}
    )
    assert read_micrograph(tmp_path / "o.ome.tif").pixel_size_nm == pytest.approx(0.5 * nm)
    if unit.isascii():
        tifffile.imwrite(tmp_path / "i.tif", grey(), imagej=True, resolution=(2, 2), metadata={"unit": unit})
        assert read_micrograph(tmp_path / "i.tif").pixel_size_nm == pytest.approx(0.5 * nm)


def test_units():
    assert to_nm(1e-5, "inch") == pytest.approx(254)
    assert to_nm(2e-9, "m") == pytest.approx(2)
    assert to_nm(3, "furlong") is None
    assert to_nm(float("nan"), "nm") is None
    assert is_reciprocal("1/nm")
    assert is_reciprocal("1 / nm")
    assert is_reciprocal("nm^-1")
    assert is_reciprocal("mrad")
    assert not is_reciprocal("nm")
    size, problems = pixel_size([1.0, 1.0], ["m", "m"])
    assert size is None
    assert [p.code for p in problems] == ["doubtful_pixel_size"]
    size, problems = pixel_size([2.0, 8.0], ["nm", "nm"])
    assert size == pytest.approx(4)
    assert isinstance(problems[0], Problem)
    assert problems[0].code == "anisotropic"


# ---- MRC, NumPy, Zarr


def test_mrc(tmp_path):
    write_mrc(tmp_path / "a.mrc")
    micrograph = read_micrograph(tmp_path / "a.mrc")
    assert micrograph.pixel_size_nm == pytest.approx(0.25)
    np.testing.assert_array_equal(micrograph.read(), grey())
    write_mrc(tmp_path / "s.mrc", grey((3, 70, 90), np.float32))
    with pytest.raises(StackError, match="3 image"):
        read_micrograph(tmp_path / "s.mrc")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr(tmp_path, zarr_format):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(70, 90), chunks=(32, 32), dtype="uint16", zarr_format=zarr_format
    )
    array[:] = grey()
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.zarr").read(), grey())


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_opens_at_full_resolution(tmp_path, version):
    group = zarr.open_group(tmp_path / "o.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    data = grey((1, 2, 64, 48))
    for level, step in (("0", 1), ("1", 2)):
        group.create_array(level, data=np.ascontiguousarray(data[..., ::step, ::step]))
    axes = [{"name": "t"}, {"name": "c"}] + [{"name": n, "unit": "micrometer"} for n in "yx"]
    datasets = [
        {"path": p, "coordinateTransformations": [{"type": "scale", "scale": [1, 1, s, s]}]}
        for p, s in (("0", 0.004), ("1", 0.008))
    ]
    content = {"multiscales": [{"axes": axes, "datasets": datasets, "version": version}]}
    group.attrs.update(content if version == "0.4" else {"ome": content})
    with pytest.raises(StackError):
        read_micrograph(tmp_path / "o.zarr")
    micrograph = read_micrograph(tmp_path / "o.zarr", frame=1)
    assert micrograph.pixel_size_nm == pytest.approx(4)
    np.testing.assert_array_equal(micrograph.read(), data[0, 1])


def test_zarr_with_a_broken_chunk(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(32, 32), dtype="uint16")
    array[:] = grey((64, 64))
    chunk = tmp_path / "a.zarr" / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(UnreadableFileError):
        read_micrograph(tmp_path / "a.zarr")


# ---- laziness


def sparse_tiff(path):
    values = tifffile.memmap(path, shape=(16384, 16384), dtype=np.uint8)
    values[-1, -1] = 7
    values.flush()


def sparse_mrc(path):
    import mrcfile

    mrcfile.new_mmap(path, shape=(16384, 16384), mrc_mode=0).close()
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")


def sparse_npy(path):
    values = np.lib.format.open_memmap(path, "w+", np.uint8, (16384, 16384))
    values[-1, -1] = 7
    values.flush()


def sparse_zarr(path):
    zarr.create_array(path, shape=(16384, 16384), chunks=(512, 512), dtype="uint8")[-1, -1] = 7


@pytest.mark.parametrize(
    ("suffix", "write"), [(".tif", sparse_tiff), (".mrc", sparse_mrc), (".npy", sparse_npy), (".zarr", sparse_zarr)]
)
def test_huge_files_are_opened_without_being_read(tmp_path, suffix, write):
    import tracemalloc

    path = tmp_path / f"a{suffix}"
    write(path)
    tracemalloc.start()
    micrograph = read_micrograph(path)
    corner = micrograph.read(Window(y0=16380, x0=16380, y1=16384, x1=16384))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert micrograph.shape == (16384, 16384)
    assert corner[-1, -1] == 7
    assert peak < 30e6


# ---- names and checksums


def test_checksum_follows_the_content(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 3_000_000)
    shutil.copy(one, two)
    assert checksum(one) == checksum(two)
    two.write_bytes(b"x" * 2_999_999 + b"y")
    assert checksum(one) != checksum(two)
    with pytest.raises(StorageError, match="cannot be read"):
        checksum(tmp_path / "three")


def test_checksum_of_a_zarr_folder(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(32, 32), dtype="uint8")
    before = checksum(tmp_path / "a.zarr")
    array[0, 0] = 1
    assert checksum(tmp_path / "a.zarr") != before


def test_supported_suffixes():
    wanted = {
        ".dm3",
        ".dm4",
        ".emd",
        ".ser",
        ".emi",
        ".mrc",
        ".bcf",
        ".hspy",
        ".tif",
        ".tiff",
        ".png",
        ".jpg",
        ".npy",
        ".zarr",
    }
    assert wanted <= supported_suffixes()
