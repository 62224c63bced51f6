"""What the Queue tab says: where the loop stands, ways to choose tiles, what controls have shown. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

from napari_emtransfer.gui.widgets import interval_text, iou_text, sentence_case

if TYPE_CHECKING:
    from napari_emtransfer.core.active.stopping import StopAdvice
    from napari_emtransfer.session.queue_state import QueueState

Facts = Mapping[str, Any]
"""What was known after one ranking (`core.active.rounds`), as it lies in the database."""

ACQUISITIONS: Final[dict[str, str]] = {
    "default": "Typical tiles until a model has scored them, then uncertain tiles of each class and random ones.",
    "random": "Any tile that is not labelled yet, all with the same chance.",
    "foreground-random": "By chance, two of three from tiles in which more than the commonest class is predicted.",
    "typiclust": "Typical tiles, each of another kind of structure. Needs no model.",
    "entropy": "The tiles that the model is most unsure of (entropy).",
    "margin": "The tiles on which the two likeliest classes are closest to each other (margin).",
    "bald": "The tiles that the members of a committee of models disagree on most (BALD).",
    "kcenter": "The tiles that are least like anything labelled or queued so far.",
    "entropy+kcenter": "Of the most uncertain tiles those that are least alike.",
    "clasp": "Half uncertain tiles of each class in turn, half random ones with more than the commonest class.",
}


CRITERIA: Final[dict[str, str]] = {
    "target": "the width of the phase fractions' intervals",
    "slope": "the slope of the learning curve",
    "stability": "the stability of the predictions",
}


def acquisition_text(name: str, resolved: str) -> str:
    """One sentence on a way to choose tiles, and what it stands for now where that is another one."""
    said = ACQUISITIONS.get(name, "")
    return f"{said} Now: {resolved}." if resolved not in ("", name) else said


def status_text(state: QueueState) -> str:
    """Where the loop stands, in a line."""
    if state.phase == "off":
        return "Open a project; the tiles worth labelling next then stand here."
    waiting, n_aside = state.waiting, len(state.entries) - len(state.waiting)
    n_controls = sum(entry.control for entry in waiting)
    parts = []
    if waiting:
        kind = "a random control" if n_controls == 1 else "random controls"
        controls = f", {n_controls} of them {kind}" if n_controls else ""
        parts.append(f"{_tiles(len(waiting))} queued{controls}")
    elif state.phase == "ranking":
        parts.append("Looking for the tiles worth labelling next")
    elif state.ranked and state.n_tiles:
        parts.append("No tile waits: all are done, skipped or put aside")
    else:
        parts.append("Nothing is queued yet: Rank now proposes tiles")
    parts += [f"{n_aside} put aside"] if n_aside else []
    parts += [f"scored {_scored(state)}"] if state.n_tiles and state.phase != "ranking" else []
    return " · ".join(parts)


def iou_sentence(facts: Facts | None) -> str:
    """The IoU on random controls with its interval and on what ground it stands; else what it takes."""
    if facts is None:
        return "After the first ranking the IoU on random tiles stands here."
    control = facts.get("control")
    if not control or control.get("mean_iou") is None:
        return missing_controls(facts)
    score = f"IoU {iou_text(control['mean_iou'])} {interval_text(interval_of(control))}".strip()
    return f"{score} on {_sentence(control.get('ground') or 'random tiles')}"


def missing_controls(facts: Facts | None) -> str:
    """What has to be labelled before there is an IoU to draw."""
    if why := ((facts or {}).get("control") or {}).get("ground"):
        return f"Nothing can be measured: {why}"
    n = int((facts or {}).get("n_control") or 0)
    so_far = {0: "No random control is", 1: "One random control is"}.get(n, f"{n} random controls are")
    return f"{so_far} labelled yet; the IoU is measured on these alone. They come by themselves, framed in blue."


def difference_sentence(facts: Facts | None) -> str:
    """Whether the chosen tiles teach more than as many random ones, with the interval of the difference."""
    found = (facts or {}).get("chosen_minus_random")
    if not found or found.get("difference") is None:
        return "Whether choosing beats chance cannot be told yet: it takes a few labelled tiles of both kinds."
    difference, low, high = found["difference"], found.get("low"), found.get("high")
    if low is not None and low > 0:
        verdict = "Chosen tiles teach more than random ones"
    elif high is not None and high < 0:
        verdict = "Chosen tiles teach less than random ones"
    else:
        verdict = "Chosen and random tiles cannot be told apart yet"
    interval = "" if low is None or high is None else f" [{low:+.2f} to {high:+.2f}]"
    text = f"{verdict}: {difference:+.2f} IoU{interval}, tested on {found.get('n_tiles', 0)} random tiles."
    return text.replace("-", "−")


def advice_text(advice: StopAdvice | None) -> str:
    """Whether to go on, with the numbers that say so, and by which criterion."""
    if advice is None:
        return "Whether to go on is said here after the first ranking."
    named = CRITERIA.get(advice.criterion or "")
    return f"{advice.sentence} This is said by {named}." if named else advice.sentence


def advice_tip(advice: StopAdvice | None) -> str:
    """What each criterion says, as rich text."""
    lines = "".join(
        f"<li>{sentence_case(CRITERIA[one.criterion])}: {escape(one.sentence)}</li>"
        for one in (advice.evidence if advice else ())
    )
    return (
        "<p>Judged by random controls and by predictions, never by tiles that were chosen. Kappa says how far two "
        f"rankings predict the same, beyond what chance would do; 1 is all the same.</p><ul>{lines}</ul>"
    )


def rest_text(n: int) -> str:
    """How many queued tiles are not shown."""
    return f"and {_tiles(n)} more" if n > 0 else ""


def phase_rows(facts: Facts | None, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(class, share with its 95 % interval, IoU on random controls) of each class; nothing where none is known."""
    phases, control = (facts or {}).get("phases") or {}, (facts or {}).get("control") or {}
    iou = control.get("iou") or {}
    return [(name, _share(phases.get(name)), iou_text(iou.get(name))) for name in names] if phases else []


def phases_sentence(facts: Facts | None) -> str:
    """On what the shares stand; else what is missing."""
    if not (facts or {}).get("phases"):
        return "Known as soon as a random control is labelled."
    return sentence_case((facts or {}).get("phases_ground") or "")


def interval_of(found: Mapping[str, Any]) -> tuple[float, float] | None:
    """(low, high) of a measured value, where it has an interval."""
    low, high = found.get("low"), found.get("high")
    return None if low is None or high is None else (low, high)


def _share(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    interval = interval_of(found)
    bounds = f"\n[{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * found['fraction']:.1f} %{bounds}"


def _tiles(n: int) -> str:
    return f"{n:,} tile{'s' * (n != 1)}"


def _scored(state: QueueState) -> str:
    return f"{state.n_scored:,} of {state.n_tiles:,}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
