"""Every verb through the entry point: its JSON, its exit code, and what it says to someone who got it wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer
from skimage.io import imsave

from napari_emtransfer.cli import main
from napari_emtransfer.cli.manage import expand_paths
from napari_emtransfer.cli.output import Outcome, jsonable
from napari_emtransfer.cli.verb import RunFailedError, add_verb
from napari_emtransfer.core.data.project import Project

SHORT_TRAINING = ("--iterations", "4", "--crop", "64", "--batch-size", "2", "--threads", "1", "--device", "cpu")


@pytest.fixture
def emtransfer(capsys):
    """Run one verb in this process → (exit code, JSON of the last line or None, stdout, stderr)."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        result = json.loads(out) if "--json" in words else None
        return left.value.code, result, out, err

    return run


def write_dataset(folder: Path, n_images: int = 3, *, seed: int = 0) -> Path:
    """Bright squares (class 2) on a dark matrix (class 1), one specimen each."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(n_images):
        truth = np.ones((128, 128), np.uint8)
        for y, x in rng.integers(8, 96, (6, 2)):
            truth[y : y + 20, x : x + 20] = 2
        image = 60 + 100 * (truth == 2) + rng.normal(0, 10, truth.shape)
        tifffile.imwrite(folder / "images" / f"m{i}.tif", image.clip(0, 255).astype(np.uint8))
        imsave(folder / "masks" / f"m{i}.png", truth, check_contrast=False)
    stems = [f"m{i}" for i in range(n_images)]
    description = {
        "classes": {"1": "matrix", "2": "square"},
        "groups": {stem: f"specimen {stem}" for stem in stems},
        "splits": {"first": {"train": stems[:-2], "val": stems[-2:-1], "test": stems[-1:]}},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture
def labelled_project(tmp_path, dataset, emtransfer):
    project = tmp_path / "project"
    assert emtransfer("init", project)[0] == 0
    assert emtransfer("import", project, dataset)[0] == 0
    return project


@pytest.fixture(scope="module")
def trained_project(tmp_path_factory, dataset):
    """A project with one run, made by the program itself."""
    project = tmp_path_factory.mktemp("trained") / "project"
    for words in (
        ["init", str(project)],
        ["import", str(project), str(dataset)],
        ["train", str(project), "--split", "first", *SHORT_TRAINING],
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
    return project


# --- init, add, import ---------------------------------------------------------------------------------------------


def test_init_creates_a_project_with_its_classes(tmp_path, emtransfer):
    code, result, _, _ = emtransfer("init", tmp_path / "p", "--class", "matrix", "--class", "pore", "--json")
    assert (code, result) == (0, {"project": str(tmp_path / "p"), "classes": ["matrix", "pore"]})
    with Project.open(tmp_path / "p") as project:
        assert project.schema.names == ("matrix", "pore")


def test_init_refuses_an_existing_project(tmp_path, emtransfer):
    emtransfer("init", tmp_path / "p", "--class", "matrix")
    code, result, _, err = emtransfer("init", tmp_path / "p", "--class", "pore", "--json")
    assert code == 1
    assert set(result) == {"error", "hint"}
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    with Project.open(tmp_path / "p") as project:
        assert project.schema.names == ("matrix",)


def test_init_refuses_two_classes_of_one_name(tmp_path, emtransfer):
    code, _, _, err = emtransfer("init", tmp_path / "p", "--class", "a", "--class", "a")
    assert code == 1
    assert "unique" in err


def test_add_registers_a_folder_and_a_pattern(tmp_path, dataset, emtransfer):
    emtransfer("init", tmp_path / "p")
    words = (dataset / "images", "--specimen", "A7", "--domain", "bse", "--pixel-size-nm", "2.5", "--json")
    code, result, _, _ = emtransfer("add", tmp_path / "p", *words)
    assert code == 0
    assert [m["stem"] for m in result["micrographs"]] == ["m0", "m1", "m2"]
    assert {(m["specimen"], m["domain"], m["pixel_size_nm"]) for m in result["micrographs"]} == {("A7", "bse", 2.5)}

    emtransfer("init", tmp_path / "q")
    code, result, _, _ = emtransfer("add", tmp_path / "q", dataset / "images" / "m[01].tif", "--json")
    assert [m["stem"] for m in result["micrographs"]] == ["m0", "m1"]


def test_add_reports_the_bad_file_and_keeps_the_good_one(tmp_path, dataset, emtransfer):
    bad = tmp_path / "notes.tif"
    bad.write_text("no image")
    emtransfer("init", tmp_path / "p")
    code, result, _, err = emtransfer("add", tmp_path / "p", bad, dataset / "images" / "m0.tif", "--json")
    assert code == 1
    assert [m["stem"] for m in result["micrographs"]] == ["m0"]
    assert [f["path"] for f in result["failures"]] == [str(bad)]
    assert "notes.tif" in err


@pytest.mark.parametrize("words", [["missing.tif"], ["*.nothing"], ["no/such/folder"]])
def test_add_says_which_path_does_not_exist(tmp_path, emtransfer, words):
    emtransfer("init", tmp_path / "p")
    code, _, out, err = emtransfer("add", tmp_path / "p", *words)
    assert code == 1
    assert words[0] in err
    assert "Traceback" not in out + err


def test_add_takes_an_emi_and_its_ser_as_one_image(tmp_path):
    for name in ("a.emi", "a_1.ser", "b_1.ser", "c.tif"):
        (tmp_path / name).touch()
    assert [p.name for p in expand_paths([str(tmp_path)])] == ["a.emi", "b_1.ser", "c.tif"]


def test_add_says_that_a_folder_holds_no_image(tmp_path, emtransfer):
    emtransfer("init", tmp_path / "p")
    (tmp_path / "empty").mkdir()
    code, _, _, err = emtransfer("add", tmp_path / "p", tmp_path / "empty")
    assert code == 1
    assert "no image" in err


def test_import_reads_a_labelled_data_set(tmp_path, dataset, emtransfer):
    emtransfer("init", tmp_path / "p")
    code, result, _, _ = emtransfer("import", tmp_path / "p", dataset, "--json")
    assert code == 0
    assert result["classes"] == ["matrix", "square"]
    assert sorted(result["micrographs"]) == ["m0", "m1", "m2"]
    with Project.open(tmp_path / "p") as project:
        assert project.annotations.labelled_fraction("m0") == 1.0
        assert set(project.named_splits()) == {"first"}


def test_import_maps_the_values_of_plain_masks(tmp_path, dataset, emtransfer):
    emtransfer("init", tmp_path / "p")
    folders = ("--images", dataset / "images", "--masks", dataset / "masks")
    code, result, _, _ = emtransfer("import", tmp_path / "p", *folders, "--map", "1=steel,2=pore", "--json")
    assert (code, result["classes"]) == (0, ["steel", "pore"])


def test_import_wants_a_data_set_or_folders(tmp_path, dataset, emtransfer):
    emtransfer("init", tmp_path / "p")
    assert emtransfer("import", tmp_path / "p")[0] == 2
    assert emtransfer("import", tmp_path / "p", dataset, "--images", dataset)[0] == 2


@pytest.mark.parametrize("text", ["matrix", "0=a,0=b", "x=a", "0="])
def test_import_explains_a_bad_map(tmp_path, dataset, emtransfer, text):
    emtransfer("init", tmp_path / "p")
    folders = ("--images", dataset / "images", "--masks", dataset / "masks")
    code, _, _, err = emtransfer("import", tmp_path / "p", *folders, "--map", text)
    assert code == 1
    assert "0=matrix,255=pore" in err


@pytest.mark.parametrize("verb", [["add", "x.tif"], ["import", "x"], ["train"], ["predict"], ["evaluate"]])
def test_a_missing_project_is_named_by_every_verb(tmp_path, emtransfer, verb):
    missing = tmp_path / "nowhere"
    code, result, _, err = emtransfer(verb[0], missing, *verb[1:], "--json")
    assert code == 1
    assert "nowhere" in result["error"]
    assert err.count("\n") == 1


# --- train, predict, evaluate ----------------------------------------------------------------------------------------


def test_train_reports_what_is_promised(labelled_project, emtransfer):
    code, result, out, _ = emtransfer("train", labelled_project, *SHORT_TRAINING, "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert {"run", "mean_iou", "iou", "iterations", "seconds", "device"} <= set(result)
    assert set(result["iou"]) == {"matrix", "square"}
    assert result["iterations"] == 4


def test_an_illegal_augmentation_that_is_allowed_is_recorded(tmp_path, dataset, emtransfer):
    project = tmp_path / "maps"
    emtransfer("init", project, "--modality", "ebsd")
    emtransfer("import", project, dataset)
    words = ("--augment", "extended", "--allow-illegal", "rotation", *SHORT_TRAINING, "--json")
    code, result, *_ = emtransfer("train", project, *words)
    assert code == 0
    run = project / "runs" / result["run"]
    assert json.loads((run / "config.json").read_text())["illegal_augment"] == ["rotation"]
    assert "rotation" in (run / "card.md").read_text()


def test_evaluate_and_predict_a_run(trained_project, tmp_path, emtransfer):
    code, result, _, _ = emtransfer("evaluate", trained_project, "--on", "test", "--json", "--threads", "1")
    assert code == 0
    assert {"mean_iou", "iou", "ci95", "confusion", "n_specimens"} <= set(result)
    assert result["n_specimens"] == 1
    assert sum(map(sum, result["confusion"])) == 128 * 128

    words = ("predict", trained_project, "m0", "--out", tmp_path / "masks", "--json", "--threads", "1")
    code, result, _, _ = emtransfer(*words)
    assert code == 0
    assert {"predictions", "megapixels", "seconds"} <= set(result)
    (mask,) = [p for p in map(Path, result["predictions"]) if "m0" in p.name and "entropy" not in p.name]
    assert tifffile.imread(mask).shape == (128, 128)


def test_predict_takes_a_file_outside_the_project(trained_project, tmp_path, emtransfer):
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, np.random.default_rng(1).integers(0, 255, (70, 90), np.uint8))
    words = ("predict", trained_project, other, "--out", tmp_path / "masks", "--uncertainty", "none", "--json")
    code, result, _, _ = emtransfer(*words)
    assert code == 0
    assert tifffile.imread(result["predictions"][0]).shape == (70, 90)
    assert set(np.unique(tifffile.imread(result["predictions"][0]))) <= {1, 2}


def test_people_get_a_table(trained_project, emtransfer):
    code, _, out, _ = emtransfer("evaluate", trained_project, "--threads", "1")
    assert code == 0
    assert "mean IoU" in out
    assert "square" in out
    assert "held out" in out


def test_train_without_labels_says_so(tmp_path, dataset, emtransfer):
    emtransfer("init", tmp_path / "p", "--class", "matrix", "--class", "square")
    emtransfer("add", tmp_path / "p", dataset / "images")
    code, _, _, err = emtransfer("train", tmp_path / "p", *SHORT_TRAINING)
    assert code == 1
    assert "label" in err.lower()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "fifth"], "first"),  # the split that exists
        (["--train", "m9"], "m9"),
        (["--iterations", "0"], "--iterations"),
        (["--crop", "100"], "--crop"),
        (["--encoder", "resnet81"], "resnet18"),
        (["--device", "cuda:77"], "cpu"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--resume", "0099"], "0099"),
        (["--allow-illegal", "rotate"], "rotation"),
    ],
)
def test_train_explains_a_wrong_value(labelled_project, emtransfer, words, said):
    code, _, out, err = emtransfer("train", labelled_project, "--threads", "1", *words)
    assert code == 1
    assert said in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("words", [["--run", "0099"], ["--on", "m9"]])
def test_evaluate_explains_a_wrong_value(trained_project, emtransfer, words):
    code, _, _, err = emtransfer("evaluate", trained_project, *words)
    assert code == 1
    assert words[1] in err


def test_predict_without_a_model_says_so(labelled_project, emtransfer):
    code, _, _, err = emtransfer("predict", labelled_project)
    assert code == 1
    assert "train" in err.lower()


def test_predict_explains_an_unknown_name(trained_project, emtransfer):
    code, _, _, err = emtransfer("predict", trained_project, "m9")
    assert code == 1
    assert "m9" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c_banks_the_work_and_resume_goes_on(labelled_project, emtransfer):
    words = ["train", str(labelled_project), *SHORT_TRAINING, "--iterations", "120", "--json"]
    command = [sys.executable, "-c", "from napari_emtransfer.cli import main; main()", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(labelled_project.glob("runs/*/last.safetensors")):
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    result = json.loads(out)
    assert result["cancelled"]
    with Project.open(labelled_project) as project:
        (record,) = project.runs()
        assert record.status == "cancelled"
        assert project.run(record.id).has_checkpoint

    code, result, _, _ = emtransfer("train", labelled_project, "--resume", record.id, "--json")
    assert (code, result["run"], result["iterations"]) == (0, record.id, 120)


# --- what all verbs share --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["polish"], ["train"], ["train", "p", "--strategy", "magic"], ["init", "p", "--no"]])
def test_wrong_usage_is_exit_2(emtransfer, words):
    code, _, out, err = emtransfer(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert out == ""
    assert set(emtransfer(*words, "--json")[1]) == {"error", "hint"}


def test_help_names_every_verb(emtransfer):
    code, _, out, _ = emtransfer("--help")
    assert code == 0
    assert all(verb in out for verb in ("init", "add", "import", "train", "predict", "evaluate", "doctor", "demo"))


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path, emtransfer):
    assert "Traceback" not in emtransfer("train", tmp_path)[3]
    assert "Traceback" in emtransfer("train", tmp_path, "--debug")[3]


def test_stdout_is_one_json_object_even_beside_a_library_that_prints(capsys):
    def chatty() -> Outcome:
        sys.stdout.write("downloading weights\n")
        return Outcome({"iou": float("nan"), "shape": np.array([1, 2])}, "")

    app = typer.Typer()
    add_verb(app, "chatty", chatty)
    add_verb(app, "other", chatty)
    assert app(["chatty", "--json"], standalone_mode=False) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"iou": None, "shape": [1, 2]}
    assert "downloading" in err


def test_a_fault_of_ours_is_one_line_too(capsys):
    def broken() -> None:
        raise ZeroDivisionError("division by zero")

    def failed() -> None:
        raise RunFailedError("It died.", "Resume it.", "Traceback of the worker")

    app = typer.Typer()
    add_verb(app, "broken", broken)
    add_verb(app, "failed", failed)
    assert app(["broken"], standalone_mode=False) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert app(["failed", "--debug"], standalone_mode=False) == 1
    assert "Traceback of the worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        (np.float32("nan"), None),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        ({1: (True, None)}, {"1": [True, None]}),
        (Path("a"), "a"),
    ],
)
def test_jsonable(value, expected):
    assert jsonable(value) == expected


@pytest.mark.slow
def test_doctor_finds_a_working_program(emtransfer):
    pytest.importorskip("napari")
    pytest.importorskip("qtpy.QtCore")
    code, result, _, _ = emtransfer("doctor", "--json")
    levels = {check["name"]: check["level"] for check in result["checks"]}
    assert set(levels) == {"versions", "formats", "weights", "disk", "plugin", "torch", "window"}
    assert levels["torch"] == "ok"
    assert result["ok"] == (code == 0) == ("fault" not in levels.values())


def test_doctor_survives_a_child_that_crashes(monkeypatch):
    from napari_emtransfer.cli import doctor

    monkeypatch.setattr(doctor, "_probe", lambda *_: (None, "segmentation fault"))
    check = doctor.check_torch()
    assert (check.level, bool(check.remedy)) == ("fault", True)


def test_the_installed_command_answers():
    environment = dict(os.environ, PYTHONWARNINGS="error::SyntaxWarning")
    command = [sys.executable, "-c", "from napari_emtransfer.cli import main; main()", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode == 0
    assert result.stdout.startswith("napari-emtransfer ")


@pytest.fixture
def fake_window(tmp_path, monkeypatch):
    """In the place of the window: a module that prints and ends as it is told."""
    from napari_emtransfer.cli import diagnose

    def answer(line, code):
        (tmp_path / "fake_player.py").write_text(f"import sys\nprint({line!r})\nsys.exit({code})\n")

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr(diagnose, "PLAYER", "fake_player")
    return answer


def test_demo_passes_on_what_the_window_says(fake_window, emtransfer):
    played = {"mean_iou": 0.5, "ground": "every pixel", "screenshots": ["a.png"], "seconds": 1}
    fake_window(json.dumps(played), 0)
    code, result, _, _ = emtransfer("demo", "--headless", "--json")
    assert (code, result) == (0, played)

    fake_window('{"error": "It did not train.", "hint": "Try again."}', 1)
    code, result, _, err = emtransfer("demo", "--headless", "--json")
    assert (code, result) == (1, {"error": "It did not train.", "hint": "Try again."})
    assert err == "error: It did not train. Try again.\n"

    fake_window("", -11)
    assert "245" in emtransfer("demo", "--headless")[3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a screen")
def test_demo_without_a_screen_names_headless(monkeypatch, emtransfer):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, _, _, err = emtransfer("demo")
    assert code == 1
    assert "--headless" in err
