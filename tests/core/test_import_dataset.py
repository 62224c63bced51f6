"""Import of labelled data sets: real ones whole, and every usual way of getting one wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_emtransfer.core.data.import_dataset import import_dataset, import_folders
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import supported_suffixes
from napari_emtransfer.core.data.splits import check_no_leak, split_by_specimen, split_from_names
from napari_emtransfer.core.errors import LabelError, StorageError

SHAPE = (40, 50)


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p") as made:
        yield made


def grey(seed):
    return np.random.default_rng(seed).integers(0, 255, SHAPE, dtype=np.uint8)


def mask(*values):
    return np.array(values)[np.arange(SHAPE[0] * SHAPE[1]) % len(values)].reshape(SHAPE).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def dataset(root, names=("a", "b"), **description):
    for seed, name in enumerate(names):
        save(root / "images" / f"{name}.png", grey(seed))
        save(root / "masks" / f"{name}.png", mask(0, 1, 2))
    description = {"classes": {"1": "matrix", "2": "pore"}} | description
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_masks_groups_sizes_splits_and_folds(project, tmp_path):
    root = dataset(
        tmp_path / "d",
        names=("a", "b b", "c"),
        groups={"a": "S1", "b b": 7},
        splits={"one": {"train": ["a"], "val": ["b b"], "odd": ["c", "gone"]}},
        folds={"0": ["c"]},
        pixel_size_nm={"a": 2.0, "b b": 4.0, "c": None},
    )
    steps = []
    report = import_dataset(project, root, progress=lambda *step: steps.append(step))
    assert report.labelled == report.micrographs == ("a", "b b", "c")
    assert report.classes == ("matrix", "pore")
    assert report.splits == ("one", "fold 0")
    assert steps == [(1, 3, "a"), (2, 3, "b b"), (3, 3, "c")]
    np.testing.assert_array_equal(project.annotations.read("b b"), mask(0, 1, 2))
    assert [r.specimen for r in project.micrographs()] == ["S1", "7", "c"]
    assert project.settings.working_pixel_size_nm == 3.0
    assert project.named_splits() == {
        "fold 0": {"test": ["c"], "train": ["a", "b b"]},
        "one": {"odd": ["c"], "train": ["a"], "val": ["b b"]},
    }
    assert not [f for f in (tmp_path / "p").rglob("*") if f.suffix in (".png", ".tif")]


def test_classes_are_matched_by_name(project, tmp_path):
    project.set_schema(LabelSchema.from_names(["crack", "Pore"]))
    report = import_dataset(project, dataset(tmp_path / "d"))
    assert report.classes == ("crack", "Pore", "matrix")
    np.testing.assert_array_equal(project.annotations.read("a"), mask(0, 3, 2))


def test_importing_again_changes_nothing_unless_forced(project, tmp_path):
    root = dataset(tmp_path / "d")
    import_dataset(project, root)
    report = import_dataset(project, root)
    assert (report.labelled, report.unchanged, report.skipped) == ((), ("a", "b"), ())
    save(root / "masks" / "a.png", mask(1, 1, 2))
    report = import_dataset(project, root)
    assert report.skipped[0][0] == "a"
    assert "were kept; force" in report.skipped[0][1]
    np.testing.assert_array_equal(project.annotations.read("a"), mask(0, 1, 2))
    assert import_dataset(project, root, force=True).labelled == ("a",)
    np.testing.assert_array_equal(project.annotations.read("a"), mask(1, 1, 2))
    assert len(project.micrographs()) == 2


@pytest.mark.parametrize(
    "written",
    [
        mask(0, 1, 2).astype(np.uint16),
        mask(0, 1, 2).astype(np.int32),
        mask(0, 1, 2).astype(np.float32),
        np.repeat(mask(0, 1, 2)[..., None], 3, axis=2),
    ],
    ids=["16 bit", "32 bit", "float", "rgb"],
)
def test_tif_masks_of_any_type(project, tmp_path, written):
    root = dataset(tmp_path / "d", names=("a",))
    (root / "masks" / "a.png").unlink()
    save(root / "masks" / "a.tif", written)
    assert import_dataset(project, root).labelled == ("a",)
    np.testing.assert_array_equal(project.annotations.read("a"), mask(0, 1, 2))


def test_paletted_one_bit_and_alpha_masks(project, tmp_path):
    root = dataset(tmp_path / "d", names=("pal", "bit", "rgba"), classes={"0": "matrix", "1": "pore", "255": "pore"})
    paletted = Image.fromarray(mask(0, 1, 1))
    paletted.putpalette([255, 0, 0, 0, 255, 0])
    paletted.save(root / "masks" / "pal.png")
    Image.fromarray(mask(0, 1, 1).astype(bool)).save(root / "masks" / "bit.png")
    value = mask(0, 255, 255)
    Image.fromarray(np.dstack([value] * 3 + [np.full(SHAPE, 9, np.uint8)])).save(root / "masks" / "rgba.png")
    report = import_dataset(project, root)
    assert not report.skipped
    for stem in report.micrographs:
        np.testing.assert_array_equal(project.annotations.read(stem), mask(1, 2, 2))


def test_bad_pairs_are_skipped_with_their_reason(project, tmp_path):
    root = dataset(tmp_path / "d", names=("good", "size", "value", "colour", "torn", "image", "none", "twin"))
    save(root / "masks" / "size.png", mask(1, 2)[:30])
    save(root / "masks" / "value.png", mask(0, 1, 2, 200))
    save(root / "masks" / "colour.png", np.random.default_rng(0).integers(0, 3, (*SHAPE, 3), dtype=np.uint8))
    (root / "masks" / "torn.png").write_bytes((root / "masks" / "torn.png").read_bytes()[:60])
    (root / "images" / "image.png").write_bytes(b"\x89PNG and nothing else")
    (root / "masks" / "none.png").unlink()
    save(root / "masks" / "lonely.png", mask(1, 2))
    (root / "images" / "twin.png").write_bytes((root / "images" / "good.png").read_bytes())
    save(root / "masks" / "twin.png", mask(2, 2, 1))
    report = import_dataset(project, root)
    reasons = dict(report.skipped)
    assert report.labelled == ("good",)
    assert "measures 30 × 50 pixels, but the image 40 × 50" in reasons["size"]
    assert "holds 200 (25.00%); known values are 0, 1, 2" in reasons["value"]
    assert "colour image" in reasons["colour"]
    assert "torn" in reasons["torn"]
    assert "image.png" in reasons["image"]
    assert "without labels" in reasons["none"]
    assert reasons["lonely.png"] == "a mask without an image"
    assert "its labels differ" in reasons["good"]  # the twin is the same file under another name
    assert [r.stem for r in project.micrographs()] == ["good", "none"]


def test_when_nothing_can_be_imported_nothing_changes(project, tmp_path):
    root = dataset(tmp_path / "d", classes={"1": "matrix"})
    with pytest.raises(LabelError, match="None of the 2 images could be imported") as fault:
        import_dataset(project, root)
    assert "holds 2 (33" in fault.value.message
    assert "--map 1=matrix,VALUE=NAME" in fault.value.hint
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(LabelError, match="None of the 2 images"):
        import_dataset(project, root)
    assert project.micrographs() == []
    assert project.schema.names == ()


def test_folders_with_other_names_and_a_map(project, tmp_path):
    for seed, (folder, name) in enumerate([("x", "1.tif"), ("y", "1.tif"), ("y", "deep er/2.tif")]):
        save(tmp_path / "pics" / folder / name, grey(seed))
    for place in ("x/1_mask.png", "y/1.png", "y/deep er/mask_2.tif"):
        save(tmp_path / "seg" / place, mask(0, 255, 7))
    mapping = {0: "matrix", 255: "pore", 7: "unlabelled"}
    report = import_folders(project, tmp_path / "pics", tmp_path / "seg", mapping)
    assert report.labelled == ("1", "1 (2)", "2")
    assert report.classes == ("matrix", "pore")
    np.testing.assert_array_equal(project.annotations.read("1 (2)"), mask(1, 2, 0))


def test_masks_may_lie_beside_their_images(project, tmp_path):
    save(tmp_path / "d" / "a.png", grey(0))
    save(tmp_path / "d" / "a_mask.png", mask(1, 2))
    report = import_folders(project, tmp_path / "d", tmp_path / "d", {1: "matrix", 2: "pore"})
    assert (report.micrographs, report.skipped) == (("a",), ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no dataset.json"),
        ("{", "is no JSON"),
        ('{"groups": {}}', "classes"),
        ('{"classes": {"one": "matrix"}}', "classes.one"),
        ('{"classes": {"1": "m"}, "pixel_size_nm": {"a": "big"}}', "pixel_size_nm"),
    ],
)
def test_a_wrong_description_is_named(project, tmp_path, content, words):
    root = dataset(tmp_path / "d")
    (root / "dataset.json").unlink()
    if content is not None:
        (root / "dataset.json").write_text(content)
    with pytest.raises(LabelError, match=words) as fault:
        import_dataset(project, root)
    assert "matrix" in fault.value.hint


def test_a_folder_that_is_no_data_set(project, tmp_path):
    with pytest.raises(LabelError, match="no folder"):
        import_dataset(project, tmp_path / "gone")
    dataset(tmp_path / "outer" / "inner")
    with pytest.raises(LabelError, match="has no folder 'images'") as fault:
        import_dataset(project, tmp_path / "outer")
    assert "inner" in fault.value.hint
    root = dataset(tmp_path / "d", names=("a",))
    (root / "images" / "a.png").unlink()
    with pytest.raises(LabelError, match="There are no images") as fault:
        import_dataset(project, root)
    assert ".png" in fault.value.hint
    assert ".dm4" in supported_suffixes()


def test_a_disk_fault_stops_the_import_at_once(project, tmp_path, monkeypatch):
    def full(*args):
        raise StorageError("Cannot write: the disk is full.")

    monkeypatch.setattr(project.annotations, "write", full)
    with pytest.raises(StorageError):
        import_dataset(project, dataset(tmp_path / "d"))


def test_superalloys(project, real_data):
    report = import_dataset(project, real_data / "nasa_super")
    assert len(report.labelled) == 23
    assert not report.skipped
    assert report.classes == ("matrix", "secondary precipitate", "tertiary precipitate")
    truth = np.asarray(Image.open(real_data / "nasa_super" / "masks" / "spot1_0d_0.png"))
    np.testing.assert_array_equal(project.annotations.read("spot1_0d_0"), truth)
    records, fractions = project.micrographs(), project.labelled()
    for name, parts in project.named_splits().items():
        split = split_from_names(name, parts, records, fractions, project.annotations)
        check_no_leak(split, records)
        assert split.ground == "specimen"
        assert len(split.validation) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "n_classes", "ground", "working_nm"),
    [
        ("polymer_nanocomposite_sem", 28, 2, "specimen", None),
        ("axon_sem", 10, 3, "specimen", 100.0),
        ("graphene_unet", 131, 2, "specimen", None),
        ("creme_316l_loops", 16, 2, "micrograph", None),
    ],
)
def test_whole_real_sets(project, real_data, name, n, n_classes, ground, working_nm):
    report = import_dataset(project, real_data / name)
    assert (len(report.labelled), len(report.classes), report.skipped) == (n, n_classes, ())
    assert project.settings.working_pixel_size_nm == working_nm
    records, fractions = project.micrographs(), project.labelled()
    assert all(fraction > 0.9 for fraction in fractions.values())
    split = split_by_specimen(records, fractions, project.annotations)
    check_no_leak(split, records)
    assert split.ground == ground
