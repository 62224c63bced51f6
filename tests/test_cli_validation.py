"""Folds, ensembles, orientations and calibration on the command line, and the settings of a training as options."""

from __future__ import annotations

import inspect

import pytest
import typer
from test_cli import SHORT_TRAINING, emtransfer, write_dataset  # noqa: F401
from typer.testing import CliRunner

from napari_emtransfer.cli import compute, train_options
from napari_emtransfer.cli.output import Outcome
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.import_dataset import import_dataset
from napari_emtransfer.core.data.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the labelled data set of `test_cli`, imported."""
    root = tmp_path_factory.mktemp("cli")
    folder = write_dataset(root / "data", 3)
    with Project.create(root / "project", classes=["matrix", "square"]) as made:
        import_dataset(made, folder)
    return root / "project"


def test_folds_ensemble_and_orientations_through_the_entry_point(project, emtransfer, tmp_path):  # noqa: F811
    words = (*SHORT_TRAINING, "--encoder", "tu-test_resnet", "--folds", "leave-one-out", "--iterations", "2", "--json")
    code, result, _, err = emtransfer("train", project, *words)
    assert code == 0, err
    assert len(result["folds"]) == 3
    assert result["iterations"] == 6
    assert "calibration" in result
    code, found, _, err = emtransfer("evaluate", project, "--tta", "--json")
    assert code == 0, err
    assert found["n_specimens"] == 3
    assert len(found["symmetries"]) == 8
    code, _, out, err = emtransfer("evaluate", project)
    assert code == 0, err
    for said in ("class-wise ECE", "with temperature", "Calibration: temperature", "specimen"):
        assert said in out
    options = ("--out", tmp_path / "masks", "--uncertainty", "disagreement", "--json")
    code, predicted, _, err = emtransfer("predict", project, "m0", *options)
    assert code == 0, err
    assert (tmp_path / "masks" / "m0_disagreement.tif").is_file()
    assert predicted["temperature"] == pytest.approx(result["calibration"]["temperature"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--folds", "9"], "9 folds need as many labelled specimens, but there are 3"),
        (["--folds", "some"], "--folds is 'some'"),
        (["--folds", "1"], "2 or more"),
        (["--allow-illegal", "melting"], "melting"),
        (["--weights", "x.safetensors", "--encoder-learning-rate", "0.001"], "--encoder-learning-rate 0.0001"),
        (["--label-smoothing", "0.7"], "--label-smoothing is 0.7"),
        (["--folds", "2", "--validation", "m0"], "without --folds"),
    ],
)
def test_wrong_settings_are_explained(project, emtransfer, words, said):  # noqa: F811
    with Project.open(project) as opened:
        n_runs = len(opened.runs())
    code, _, _, err = emtransfer("train", project, *SHORT_TRAINING, *words)
    assert code == 1
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    if words[0] in ("--weights", "--allow-illegal", "--label-smoothing"):
        with Project.open(project) as opened:
            assert len(opened.runs()) == n_runs  # refused before a run was made


def test_an_unknown_run_in_an_ensemble_is_named(project, emtransfer):  # noqa: F811
    code, _, _, err = emtransfer("predict", project, "--ensemble", "0099")
    assert code == 1
    assert "0099" in err


def test_every_option_reaches_the_configuration_and_keeps_its_default(monkeypatch):
    """One value other than the default for each field that has an option."""
    given = {
        "--folds": ("3", 3),
        "--freeze": ("encoder", "encoder"),
        "--normalization": ("mix", "mix"),
        "--encoder-learning-rate": ("1e-4", 1e-4),
        "--class-weights": ("balanced", "balanced"),
        "--label-smoothing": ("0.05", 0.05),
        "--l2-sp": ("1e-3", 1e-3),
        "--schedule": ("poly", "poly"),
        "--patience": ("4", 4),
        "--allow-illegal": ("quarter-turn", ("quarter-turn",)),
        "--train": ("a", ("a",)),
        "--crop": ("64", 64),
        "--shrink": ("0.7", 0.7),
    }
    seen = []

    @train_options.taking_train_options
    def verb(settings: dict) -> Outcome:
        seen.append(TrainConfig(**settings))
        return Outcome({}, "", 0)

    app = typer.Typer()
    app.command()(verb)
    words = [word for option, (text, _) in given.items() for word in (option, text)]
    result = CliRunner().invoke(app, [*words, "--confirm-uniform-rate"])
    assert result.exit_code == 0, result.output
    fields = {option.name or f"--{option.field.replace('_', '-')}": option.field for option in train_options._OPTIONS}
    assert {fields[o]: getattr(seen[0], fields[o]) for o in given} == {
        fields[o]: value for o, (_, value) in given.items()
    }
    assert seen[0].confirm_uniform_rate
    assert CliRunner().invoke(app, []).exit_code == 0
    assert seen[1] == TrainConfig()


def test_the_verb_has_no_option_that_does_nothing():
    """Every option of `train` is a field of the configuration, or is used by the verb itself."""
    own = {"project", "resume", "replay", "device", "seed", "threads"}
    parameters = set(inspect.signature(compute.train).parameters)
    assert {p for p in parameters if not p.startswith("option_")} == own
    assert {p.removeprefix("option_") for p in parameters - own} <= set(TrainConfig.model_fields)
