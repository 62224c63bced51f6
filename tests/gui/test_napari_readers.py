import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_emtransfer.gui.readers import get_reader, read_layers


def test_only_our_formats():
    assert get_reader("a.dm4") is read_layers
    assert get_reader(["a.ser", "b.TIF"]) is read_layers
    assert get_reader("a.docx") is None
    assert get_reader(["a.dm4", "a.docx"]) is None
    assert get_reader([]) is None


def test_asking_imports_nothing_heavy():
    heavy = "('numpy', 'qtpy', 'napari', 'dask')"
    code = f"import sys, napari_emtransfer.gui.readers; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    ("name", "nm"),
    [
        ("openNCEM__16_STOimage_1.ser", 0.010012704),
        ("openNCEM__16_STOimage.emi", 0.010012704),
        ("rosettasciio__test_STEM_image.dm3", 0.248538),
        ("rosettasciio__test-MonarcCL_mono-image.dm4", 18325.35),
        ("rosettasciio__HAADFscan.mrc", 5.67913),
        ("openNCEM__Acquisition_18.emd", 0.0122465),
        ("rosettasciio__Zeiss_SEM_1k.tif", 2614.514),
    ],
)
def test_layers_have_their_scale_in_nm(real_data, name, nm):
    from napari.layers import Layer

    pytest.importorskip("rsciio")
    path = str(real_data / "raw" / name)
    ((data, attributes, kind),) = get_reader(path)(path)
    layer = Layer.create(data, attributes, kind)
    assert kind == "image"
    assert layer.scale == pytest.approx([nm, nm], rel=1e-5)
    assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert layer.metadata["micrograph"]["pixel_size_nm"] == pytest.approx(nm, rel=1e-5)
    assert data.dtype.isnative


@pytest.mark.parametrize(
    "name", ["rosettasciio__Hitachi_TM3030Plus.bcf", "rosettasciio__example2_v3.1.hspy", "rosettasciio__test-9.dm4"]
)
def test_without_a_pixel_size_there_is_no_scale(real_data, name):
    pytest.importorskip("rsciio")
    ((data, attributes, _),) = read_layers(str(real_data / "raw" / name))
    assert data.ndim == 2
    assert "scale" not in attributes


def test_a_stack_gets_a_slider(real_data):
    from napari.layers import Layer

    pytest.importorskip("rsciio")
    ((data, attributes, kind),) = read_layers(str(real_data / "raw" / "rosettasciio__fei_example_tem_stack.emd"))
    layer = Layer.create(data, attributes, kind)
    assert layer.data.shape == (2, 3, 3)
    assert layer.scale[1:] == pytest.approx([0.00817288] * 2, rel=1e-5)
    assert not np.array_equal(np.asarray(data[0]), np.asarray(data[1]))


def test_a_users_error_is_one_sentence_in_a_notification(real_data, tmp_path, monkeypatch):
    import napari.utils.notifications as notifications

    shown = []
    monkeypatch.setattr(notifications, "show_error", shown.append)
    tifffile.imwrite(tmp_path / "good.tif", np.arange(6400, dtype=np.uint16).reshape(80, 80))
    spectrum = str(real_data / "raw" / "openNCEM__08_carbon.dm3")
    assert read_layers(spectrum) == [(None,)]
    assert "a spectrum with 2048 channels" in shown[0]
    assert "Traceback" not in shown[0]
    ((data, _, _),) = read_layers([spectrum, str(tmp_path / "good.tif")])
    assert data.shape == (80, 80)
    assert len(shown) == 2


def test_huge_images_stay_lazy(tmp_path):
    import dask.array as da

    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (9000, 9000))[5, 6] = 3
    ((data, _, _),) = read_layers(str(path))
    assert isinstance(data, da.Array)
    assert int(data[5, 6].compute()) == 3
