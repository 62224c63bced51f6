import json

import numpy as np
import pytest

from napari_emtransfer.core.evaluate.boundary import boundary_counts
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.evaluate.report import Evaluation, summarize


def matrix(hits: int) -> ConfusionMatrix:
    return ConfusionMatrix(np.array([[hits, 100 - hits], [0, 100]], np.int64))


def evaluation(per_specimen, **changes) -> Evaluation:
    words = {"ground": "specimen", "note": "", "labelled_fraction": 1.0, "micrographs": ["m"]}
    return summarize(per_specimen, ["matrix", "pore"], **{**words, **changes})


def test_numbers_come_from_the_accumulated_matrix_not_from_means():
    small = ConfusionMatrix(np.array([[1, 9], [0, 0]], np.int64))
    result = evaluation({"a": matrix(90), "b": small})
    total = matrix(90) + small
    assert result.mean_iou == pytest.approx(total.mean_iou())
    assert result.mean_iou != pytest.approx(np.mean([matrix(90).mean_iou(), small.mean_iou()]), abs=0.01)
    assert result.confusion == total.counts.tolist()


def test_one_specimen_says_why_there_is_no_interval():
    result = evaluation({"a": matrix(90)})
    assert result.ci95 is None
    assert "1 specimen" in result.ci_method


def test_few_specimens_show_their_values_and_many_do_not():
    few = evaluation({"a": matrix(90), "b": matrix(70)})
    assert "t-interval" in few.ci_method
    assert f"{matrix(70).mean_iou():.3f}" in few.ci_method
    many = evaluation({str(i): matrix(90 + i) for i in range(6)})
    assert many.ci_method == "cluster bootstrap over 6 specimens"
    assert many.ci95[0] <= many.mean_iou <= many.ci95[1]


def test_specimens_without_labels_do_not_count():
    result = evaluation({"a": matrix(90), "empty": ConfusionMatrix.zeros(2)})
    assert result.n_specimens == 1
    assert list(result.per_specimen) == ["a"]


def test_nothing_measured_is_none_and_json_safe():
    result = evaluation({"a": ConfusionMatrix.zeros(2)})
    assert result.mean_iou is None
    assert result.iou == {"matrix": None, "pore": None}
    assert "NaN" not in json.dumps(result.model_dump())
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_boundary_by_class():
    mask = np.ones((10, 10), np.uint8)
    mask[:, 5:] = 2
    result = evaluation({"a": matrix(90)}, boundary=boundary_counts(mask, mask, 2))
    assert result.boundary_iou == {"matrix": 1.0, "pore": 1.0}


def test_a_figure_from_strokes_says_so_and_a_figure_from_tiles_does_not():
    sparse = evaluation({"a": matrix(90)}, note="Held out.", labelled_fraction=0.034)
    assert sparse.note.startswith("Held out. Measured on the 3 % ")
    assert evaluation({"a": matrix(90)}, note="Held out.", labelled_fraction=0.9).note == "Held out."
