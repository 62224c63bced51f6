"""The model card of a run: what a reader needs to judge the figure, and what `emtransfer train --replay` repeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region, Split
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.events import NoticePosted, StageBegan
from napari_emtransfer.core.legality import verdict
from napari_emtransfer.core.rates import resolve_normalization, resolve_strategy
from napari_emtransfer.core.recommend import rule_book
from napari_emtransfer.worker import provenance, replay
from napari_emtransfer.worker.provenance import Provenance, provenance_of

_NORMS = {
    "source": "statistics of the weights, kept",
    "train": "statistics of each batch",
    "adabn": "measured once on this project's micrographs, then frozen",
    "mix": "half those of the weights, half those measured on this project's micrographs, then frozen",
}


def write_card(project: Project, run: Run, config: TrainConfig, split: Split, result: dict[str, Any]) -> None:
    """Write `card.md` into the run's folder; `result` is that of the training handler, `config` what was trained with.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    made_of = provenance_of(run) or provenance.record(project, run, config, split)
    parts = (
        _score(run, project, result),
        _data(made_of, split, result),
        _start(made_of, run, _adapted_to(project, made_of, split)),
        _training(made_of, run),
        _budget(made_of, result),
        _replay(run, result),
    )
    write_text(run.root / "card.md", "\n".join(line for part in parts for line in part) + "\n")


def _score(run: Run, project: Project, result: dict[str, Any]) -> Iterator[str]:
    yield f"# Run {run.id} of {project.settings.name}"
    yield ""
    yield f"Mean IoU {_shown(result['mean_iou'])}{_interval(result)}."
    yield ""
    yield f"Ground: {result['ground']}. {result['note']}"
    yield ""
    yield from (f"- {name}: {_shown(value)}" for name, value in result["iou"].items())
    specimens = result.get("per_specimen") or {}
    if len(specimens) > 1:
        yield "- per specimen: " + ", ".join(f"{name} {_shown(value)}" for name, value in specimens.items())
    folds = result.get("folds")
    if folds:
        yield f"- per fold: {folds if isinstance(folds, str) else ', '.join(_fold(fold) for fold in folds)}"
    yield f"- calibration: {_calibration(result)}"
    yield ""


def _data(made_of: Provenance, split: Split, result: dict[str, Any]) -> Iterator[str]:
    yield "## Data"
    yield f"- hash of pixels and labels: {made_of.data_hash}"
    n_validation = sum(len(fold.held_out) for fold in split.folds) or len(split.validation)
    yield f"- split: {split.name}, {len(split.train)} training and {n_validation} validation regions"
    yield f"- training: {_micrographs(split.train)}"
    yield from (f"- {name}: {_micrographs(regions)}" for name, regions in _held_out(split))
    yield f"- labelled fraction of the validation ground: {result['labelled_fraction']:.3f}"
    size = made_of.working_pixel_size_nm
    yield f"- working pixel size: {'native' if size is None else f'{size:g} nm'}; modality: {made_of.modality}"
    yield f"- classes: {', '.join(made_of.classes)}"
    yield ""


def _held_out(split: Split) -> Iterator[tuple[str, tuple[Region, ...]]]:
    if split.validation:
        yield "validation", split.validation
    for number, fold in enumerate(split.folds):
        yield f"fold {number} holds out", fold.held_out
        if fold.selection:
            yield f"fold {number} chooses its checkpoint on", fold.selection
    if split.test:
        yield "test", split.test


def _start(made_of: Provenance, run: Run, adapted_to: str) -> Iterator[str]:
    config = made_of.config
    yield "## Start"
    parent = f" (run {run.record.parent})" if run.record.parent else ""
    known = made_of.parent_sha256
    checksum = f", sha256 {known}" if known else ", no file of their own to take a checksum of"
    yield f"- started from: {config.weights}{parent}{checksum if config.weights != 'none' else ''}"
    yield f"- network: {config.architecture} with the encoder {config.encoder}"
    yield f"- strategy: {resolve_strategy(config)}"
    if made_of.reason:
        yield f"- why: {made_of.reason}"
        followed = (rule for rule in rule_book().rule if rule.reason in made_of.reason)
        yield from (f"- rule: {rule.id}; source: {rule.source}" for rule in followed)
    norms = resolve_normalization(config)
    yield f"- normalisation of the encoder: {norms} ({_NORMS[norms]})"
    if adapted_to:
        yield f"- adapted to: {adapted_to}"
    yield ""


def _adapted_to(project: Project, made_of: Provenance, split: Split) -> str:
    """Micrographs, or how many of how many where they are too many, but none of a specimen that is held out."""
    of = {record.stem: record.specimen for record in project.micrographs()}
    others = (region for regions in split.other.values() for region in regions)
    hidden = {of.get(r.micrograph) for r in (*split.validation, *split.test, *others)}
    stems = [stem for stem in made_of.adaptation if of.get(stem) not in hidden]
    most = provenance.MAX_ADAPTATION_VIEWS
    named = ", ".join(stems) if len(stems) <= most else f"{most} of {len(stems)} micrographs, evenly chosen"
    return f"{named}, each fold without what it holds out" if split.folds and stems else named


def _training(made_of: Provenance, run: Run) -> Iterator[str]:
    config = made_of.config
    yield "## Training"
    yield f"- augmentation: {config.augment}"
    for name in config.illegal_augment:
        yield f"- allowed by hand, though not legal here: {name} ({_reason(made_of, name)})"
    yield f"- crops of {config.crop_px} px, {config.batch_size} in a batch; {config.schedule} schedule"
    yield f"- class weights {config.class_weights}, label smoothing {config.label_smoothing:g}, L2-SP {config.l2_sp:g}"
    events = run.events()
    notices = dict.fromkeys(e.message for e in events if isinstance(e, NoticePosted))
    yield from (f"- note: {message}" for message in notices)
    yield ""
    for stage in _first_of_each(e for e in events if isinstance(e, StageBegan)):
        yield from _stage_table(stage)


def _stage_table(stage: StageBegan) -> Iterator[str]:
    yield f"Stage {stage.stage} of {stage.n_stages}, {stage.name}, from iteration {stage.iteration}: {stage.reason}"
    yield ""
    yield "| part | parameters | learning rate | weight decay |"
    yield "|---|---|---|---|"
    for group in stage.groups:
        rate = "frozen" if group.learning_rate == 0 else f"{group.learning_rate:g}"
        yield f"| {group.part} | {group.n_parameters} | {rate} | {group.weight_decay:g} |"
    yield ""


def _first_of_each(stages: Iterable[StageBegan]) -> list[StageBegan]:
    """Each stage once: folds go through the same ones, and a resumed run announces its own again."""
    first: dict[int, StageBegan] = {}
    for stage in stages:
        first.setdefault(stage.stage, stage)
    return list(first.values())


def _budget(made_of: Provenance, result: dict[str, Any]) -> Iterator[str]:
    config = made_of.config
    yield "## Budget"
    limit = "" if config.minutes is None else f" or {config.minutes:g} min"
    yield f"- asked for {config.iterations} iterations{limit}"
    yield f"- {result['iterations']} iterations in {result['seconds']:.0f} s on {result['device']}"
    folds = result.get("folds") or ()
    best = ", ".join(str(fold["best_iteration"]) for fold in folds) if folds else result["best_iteration"]
    yield f"- best checkpoint: iteration {best}{' of the folds' * bool(folds)}; ended: {result['ended']}"
    threads = "" if made_of.threads is None else f", {made_of.threads} processor threads"
    yield f"- seed: {config.compute.seed}{threads}, precision {config.compute.precision}"
    yield f"- versions: {', '.join(f'{name} {number}' for name, number in made_of.versions.items())}"
    yield ""
    yield "```json"
    yield config.model_dump_json(indent=1)
    yield "```"
    yield ""


def _replay(run: Run, result: dict[str, Any]) -> Iterator[str]:
    yield "## Replay"
    of = replay.replayed_run(run)
    if of is not None:
        yield f"- this run repeats {of}. {result.get('replay', {}).get('words', '')}".rstrip()
    yield f"- to repeat it: `emtransfer train PROJECT --replay {run.id}`; labels and split lie frozen in its folder"


def _reason(made_of: Provenance, transform: str) -> str:
    try:
        return verdict(made_of.modality, transform).reason
    except EMTransferError as error:
        return error.message


def _calibration(result: dict[str, Any]) -> str:
    found = result.get("calibration")
    if not found:
        return "not measured"
    before, after = _shown(found.get("ece_before")), _shown(found.get("ece"))
    return f"class-wise ECE {before} as trained, {after} with temperature; {found['note']}"


def _fold(fold: Any) -> str:
    if not isinstance(fold, dict):
        return _shown(fold)
    return f"{_shown(fold.get('mean_iou'))} ({', '.join(fold.get('held_out', ())) or 'held out'})"


def _shown(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3f}"


def _interval(result: dict[str, Any]) -> str:
    if result["ci95"] is None:
        return f" ({result['ci_method']})"
    low, high = result["ci95"]
    return f" (95 % interval {low:.3f} to {high:.3f}, {result['ci_method']})"


def _micrographs(regions: Iterable[Region]) -> str:
    return ", ".join(r.micrograph + (f" {r.window.slices}" if r.window else "") for r in regions)
