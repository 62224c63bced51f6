"""The sentences that stand beside an IoU and say what it was measured on."""

from __future__ import annotations

from collections.abc import Iterable

OPTIMISM = "expect optimism on new specimens"
ONLY_SYNTHETIC = "synthetic micrographs only – tells nothing about real ones"
REAL_ALL_TRAINED = (
    "synthetic micrographs only, because the labels on real ones are too few to hold a part out – tells nothing about "
    "real ones; paint every class in two places that lie apart"
)


def specimen_note(specimens: Iterable[str], n_micrographs: int) -> str:
    """Whole specimens are held out."""
    return f"held out: {listed(specimens)} ({count_micrographs(n_micrographs)})"


def micrograph_note(n_specimens: int) -> str:
    """Micrographs are held out, but specimens are on both sides."""
    if n_specimens == 1:
        return f"held out: other fields of view of the same specimen – {OPTIMISM}"
    return (
        "held out: other micrographs, but no whole specimen, because training would lose a class – "
        f"{OPTIMISM}; label every class in two specimens"
    )


def trained_on_note(n_synthetic: int) -> str:
    """Held out is real ground; synthetic micrographs are trained on besides."""
    verb = "is" if n_synthetic == 1 else "are"
    return f"all of it real, while {n_synthetic} synthetic micrograph{'s' * (n_synthetic != 1)} {verb} trained on"


def synthetic_note(n_synthetic: int, n_micrographs: int) -> str:
    """What synthetic micrographs among held-out ones mean; "" where there are none."""
    if not n_synthetic:
        return ""
    if n_synthetic == n_micrographs:
        return ONLY_SYNTHETIC
    return f"{n_synthetic} of these {n_micrographs} micrographs synthetic, so the figure is not one of real ones alone"


def listed(specimens: Iterable[str]) -> str:
    """Specimens by name, a few of many."""
    names = sorted(specimens)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"specimen{'s' * (len(names) > 1)} {shown}"


def count_micrographs(n: int) -> str:
    """How many micrographs, in words."""
    return f"{n} micrograph{'s' * (n != 1)}"


def block_note(n_micrographs: int, gap_px: int) -> str:
    """Blocks of the very micrographs that are trained on are held out."""
    return (
        f"held out: separate blocks of the same micrograph{'s' * (n_micrographs > 1)}, {gap_px} px apart – "
        "tells little about other micrographs and nothing about other specimens"
    )


def folds_note(n_folds: int, n_specimens: int, *, by_specimen: bool, clean: bool) -> str:
    """Every specimen is held out by one fold; `clean` where the checkpoints were chosen on others."""
    way = "leave-one-specimen-out" if n_folds == n_specimens else f"{n_folds} folds"
    note = f"held out: each of {n_specimens} specimens once, measured by the network that never saw it ({way})"
    if not by_specimen:
        note = (
            f"held out: each micrograph once, by one of {n_folds} folds of the data set, whose specimens are on both "
            f"sides – {OPTIMISM}"
        )
    chosen = (
        "the checkpoint of each fold was chosen on specimens that it was neither trained nor measured on"
        if clean
        else "the best checkpoint of each fold was chosen on that same ground, which makes the figure a little too good"
    )
    return f"{note}; {chosen}; the mean of the networks, which is the run's model, was not measured itself"
