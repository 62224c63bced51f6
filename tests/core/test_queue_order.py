"""The random permutation, the sample it gives, and where controls stand among chosen tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_emtransfer.core.active import queue
from napari_emtransfer.core.active.pool import Choice
from napari_emtransfer.core.data.queue_records import QueueEntry


def cells(n_micrographs=3, rows=4, columns=5):
    n = rows * columns
    names = [queue.control_name(f"checksum{i}", None, f"{rows}x{columns}") for i in range(n_micrographs)]
    places = np.repeat(np.arange(n_micrographs), n)
    index = np.tile(np.arange(n), n_micrographs)
    return names, places, index // columns, index % columns


def test_the_permutation_is_the_same_whatever_else_is_in_the_project():
    names, places, rows, columns = cells()
    order = queue.control_order(names, places, rows, columns)
    assert sorted(order) == list(range(60))
    shuffled = np.random.default_rng(0).permutation(60)
    again = queue.control_order(names, places[shuffled], rows[shuffled], columns[shuffled])
    assert (shuffled[again] == order).all()
    fewer = places != 1
    without = np.flatnonzero(fewer)[queue.control_order(names, places[fewer], rows[fewer], columns[fewer])]
    assert without.tolist() == [t for t in order if places[t] != 1]
    assert (queue.control_order(names, places, rows, columns, seed=1) != order).any()


def test_every_tile_is_as_likely_to_be_early():
    """Over many projects the first ten of 60 tiles hold each tile in about one of six."""
    _, places, rows, columns = cells()
    counts = np.zeros(60)
    for project in range(600):
        names = [f"{project}-{i}" for i in range(3)]
        counts[queue.control_order(names, places, rows, columns)[:10]] += 1
    expected, deviation = 100, np.sqrt(600 * (1 / 6) * (5 / 6))
    assert abs(counts - expected).max() < 4.5 * deviation
    assert np.std(counts) == pytest.approx(deviation, rel=0.35)


def mask(n, *indices):
    values = np.zeros(n, np.bool_)
    values[list(indices)] = True
    return values


def test_the_sample_is_the_prefix_up_to_the_last_control_that_was_asked_for():
    order = np.array([4, 2, 0, 1, 3])
    none = mask(5)
    sample = queue.control_sample(order, mask(5, 4, 2, 1), none, mask(5, 4, 2))
    assert (sample.tiles.tolist(), sample.n_missing) == ([4, 2], 0)
    # 0 was not labelled: 1 comes after it. 2 was chosen, not asked for, and counts because a control came after it.
    sample = queue.control_sample(order, mask(5, 4, 2, 0, 1), none, mask(5, 4, 0))
    assert sample.tiles.tolist() == [4, 2, 0]  # not 1, which was chosen and only happens to follow
    sample = queue.control_sample(order, mask(5, 4, 0), mask(5, 2), mask(5, 4, 2, 0))
    assert (sample.tiles.tolist(), sample.n_missing) == ([4, 0], 1)
    assert not len(queue.control_sample(order, mask(5, 4), none, none).tiles)
    assert queue.control_sample(order, ~none, none, mask(5, 3)).tiles.tolist() == order.tolist()


def test_the_sample_is_unbiased_although_difficult_tiles_are_labelled_first():
    """Chosen tiles are those of the highest value; the mean over the sample is still that over all tiles."""
    rng = np.random.default_rng(2)
    n, means, naive = 60, [], []
    for _ in range(600):
        value = rng.random(n)
        order, labelled, asked = rng.permutation(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        by_value = iter(np.argsort(-value))
        for step in range(1, 21):
            if step % 4 == 0:
                (tile,) = queue.next_controls(order, labelled, 1)
                asked[tile] = True
            else:
                tile = next(t for t in by_value if not labelled[t])
            labelled[tile] = True
        sample = queue.control_sample(order, labelled, np.zeros(n, np.bool_), asked)
        means.append(value[sample.tiles].mean())
        naive.append(value[labelled].mean())
    assert np.mean(naive) > 0.75
    # A fourth of all tiles is chosen here, far more than in any project, and still what is left is small.
    assert np.mean(means) == pytest.approx(0.5, abs=0.02)
    assert np.std(means) > 0.08


def test_next_controls_pass_over_what_is_closed():
    order = np.array([4, 2, 0, 1, 3])
    assert queue.next_controls(order, mask(5, 4, 0), 2).tolist() == [2, 1]
    assert queue.next_controls(order, ~mask(5), 2).tolist() == []


def entry(row, *, control=False, **changes):
    values = {"score": 1.0, "reason": "uncertain", "acquisition": "entropy", "model": "m", "query_round": 1}
    return QueueEntry(stem="a", grid="9x9", row=row, column=0, control=control, **(values | changes))


def test_every_fifth_entry_is_a_control_also_when_the_queue_is_replaced_after_each_tile():
    row, history, waiting = iter(range(1000)), [], []
    for step in range(40):
        since = queue.since_control(history)
        n = queue.n_controls(8, 5, since) - sum(e.control for e in waiting)
        controls = [entry(next(row), control=True) for _ in range(n)]
        chosen = [entry(next(row)) for _ in range(8 - len(controls))]
        waiting = queue.merged(waiting, chosen, controls, every=5, since=since)
        history.append(replace(waiting.pop(0), state="done", position=step))
    assert [e.control for e in history] == [False, False, False, False, True] * 8
    # The controls come in the order in which they were drawn: none is lost when chosen ones are replaced.
    drawn = [e.row for e in history if e.control]
    assert drawn == sorted(drawn)


@pytest.mark.parametrize(
    ("n", "since", "expected"), [(8, 0, 1), (8, 4, 2), (4, 0, 0), (5, 0, 1), (1, 7, 1), (10, 1, 2)]
)
def test_as_many_controls_are_asked_for_as_have_a_place(n, since, expected):
    assert queue.n_controls(n, 5, since) == expected
    chosen, controls = [entry(i) for i in range(n - expected)], [entry(50 + i, control=True) for i in range(expected)]
    order = queue.interleaved(chosen, controls, every=5, since=since)
    assert len(order) == n
    places = [i for i, e in enumerate(order) if e.control]
    assert places == list(range(max(0, 4 - since), n, 5))


def test_what_was_on_the_screen_stays_first_and_no_tile_comes_twice():
    shown, control = entry(1, number=7, seconds=3.0), entry(2, number=8, control=True)
    replaced = entry(3, number=9)
    new = [entry(1), entry(2), entry(4)]
    order = queue.merged([replaced, shown, control], new, [entry(4, control=True)], every=5, since=0)
    assert [(e.row, e.number, e.control) for e in order] == [(1, 7, False), (2, 8, True), (4, 0, True)]


def test_a_deferred_control_counts_so_that_the_next_one_does_not_come_at_once():
    history = [entry(i, state="done", position=i) for i in range(4)]
    history.append(entry(4, control=True, state="deferred", position=4))
    assert queue.since_control(history) == 0
    assert queue.since_control([*history, entry(5, state="skipped", position=5), entry(6, position=6)]) == 1


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(0, 1.0, "uncertain-class", 1), "uncertain Widmanstätten"),
        (Choice(0, 1.0, "uncertain"), "uncertain"),
        (Choice(0, 0.0, "uncertain-class"), "uncertain"),
        (Choice(0, 1.0, "unlike"), "unlike anything labelled"),
        (Choice(0, None, "control"), "random control"),
        (Choice(0, None, "random"), "random"),
        (Choice(0, None, "typical"), "typical of many unlabelled tiles"),
        (Choice(0, None, "foreground", 1), "random, among tiles with Widmanstätten"),
    ],
)
def test_reasons_are_words(choice, words):
    assert queue.words(choice, ("matrix", "Widmanstätten")) == words


def test_choices_become_entries():
    choices = [Choice(5, None, "control"), Choice(6, 0.7, "uncertain-class", 0, 0.25)]
    made = queue.new_entries(
        choices, lambda i: ("a", "3x3", i // 3, i % 3), ("matrix",), query_round=4, acquisition="clasp", model="m"
    )
    assert [(e.row, e.column, e.control, e.score, e.probability) for e in made] == [
        (1, 2, True, None, None),
        (2, 0, False, 0.7, 0.25),
    ]
    assert [(e.class_name, e.reason, e.number, e.query_round) for e in made][1] == ("matrix", "uncertain matrix", 0, 4)


def test_a_control_that_somebody_clicked_on_counts_from_when_it_was_labelled():
    control = entry(1, control=True, state="done", position=8, ended="2026-01-01T10:00")
    later = [entry(i, state="done", position=i, ended=f"2026-01-01T10:0{i}") for i in (2, 3, 4)]
    assert queue.since_control([*later, control]) == 3
    aside = entry(9, control=True, state="deferred", position=9)
    assert queue.since_control([*later, control, aside]) == 0
