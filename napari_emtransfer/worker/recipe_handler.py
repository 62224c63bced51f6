"""Pretrain a network on synthetic micrographs by a recipe: in pieces if need be, to a file of weights and its card."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from napari_emtransfer.core.data.storage import storage_faults, write_atomic, write_text
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.events import IterationEnded, NoticePosted, RunStarted
from napari_emtransfer.core.nn import devices, store
from napari_emtransfer.core.nn.pretraining import Pretraining, Report
from napari_emtransfer.core.recipe import PretrainRecipe
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.pretrain_handler import LIBRARIES, check_target
from napari_emtransfer.worker.protocol import RecipeRequest

TRAINED_ON: Final = "No real micrograph was seen: it learnt from random abstract materials, made while it learnt."
LICENCE: Final = "BSD-3-Clause"
# So much of the time spent waiting for micrographs is worth a word.
_SLOW: Final = 0.1
_MOST_WORKERS: Final = 16
# Losses and accuracy at the end are means over the last so many reports: a single one says little.
_LAST_REPORTS: Final = 10


def pretrain_by_recipe(request: RecipeRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Train by `request.recipe` to its end, write `request.out` and a card; → what the command line prints.

    A pretraining that is cancelled, or whose minutes are over, leaves its state beside `out` and writes no weights: its
    rates have not come down yet. The state stays when the recipe is done, for a longer one to go on from.

    Raises
    ------
    WeightsError
        When `out` exists or is no .safetensors, or there is no state where one is to be gone on from.
    EMTransferError
        When the state does not go with the recipe, or the loss became infinite.
    StorageError
        When nothing can be written to the folder of `out`.
    """
    check_target(request.out)
    pretraining = _prepared(request)
    recipe, state = request.recipe, state_path(request.out)
    log = _Log(log_path(request.out), pretraining.step)
    device = devices.describe(pretraining.device)
    details = {"recipe": recipe.model_dump(mode="json"), "state": str(state), "log": str(log.path)}
    first = pretraining.step
    emit(RunStarted(run_id=request.run_id, n_steps=recipe.steps, first_step=first, device=device, details=details))
    deadline = math.inf if request.minutes is None else time.monotonic() + 60 * request.minutes
    speaker = _Speaker(request.run_id, recipe, emit, log)
    pretraining.fit(speaker.report, lambda: control.should_stop() or time.monotonic() > deadline, state=state)
    result = _result(request, pretraining, log) | {"device": device}
    if pretraining.step < recipe.steps:
        if control.cancelled:
            raise Cancelled(result)
        return result
    _write(request, pretraining, result)
    return result | {"weights": str(request.out), "sha256": store.sha256_of(request.out)}


def state_path(out: Path) -> Path:
    """Where a pretraining that writes `out` keeps what it needs to go on."""
    return out.with_name(out.name + ".state")


def log_path(out: Path) -> Path:
    """Where it writes a line of JSON for each of its reports."""
    return out.with_name(out.name + ".log.jsonl")


def n_generating(device: str, n_cores: int) -> int:
    """Processes that make micrographs: on a CPU one, which the network outruns nowhere; an accelerator wants many."""
    return 1 if device == "cpu" else max(1, min(_MOST_WORKERS, n_cores - 1))


def _prepared(request: RecipeRequest) -> Pretraining:
    """The pretraining at its beginning, or where its state left it."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = devices.resolve_device(request.compute.device)
    n_workers = n_generating(device.type, n_cores)
    # Micrographs want a core too: two programs on one core each take more than twice as long.
    devices.set_threads(request.compute.threads or max(1, n_cores - n_workers))
    devices.keep_freed_memory()
    state = state_path(request.out)
    if request.resume and not state.is_file():
        raise WeightsError(
            f"There is no state {str(state)!r} to go on from.", "Leave out --resume, or name the --out of before."
        )
    pretraining = Pretraining(request.recipe, device=request.compute.device, n_workers=n_workers)
    if request.resume is not False and state.is_file():
        pretraining.resume(state)
    return pretraining


class _Log:
    """A line of JSON per report; of a pretraining that goes on, lines after its state are of steps done again."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        self.lines = [line for line in _read(path) if line["step"] <= first_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, report: Report) -> None:
        """Append one report."""
        line: dict[str, float] = {"step": report.step, "loss": report.loss, **report.parts, "rate": report.rate}
        line |= {"seconds_per_step": report.seconds_per_step, "waited": report.waited}
        self.lines.append(line)
        with storage_faults(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def last(self, name: str) -> float | None:
        """Mean of one entry over the last reports; None where there is none."""
        values = [line[name] for line in self.lines[-_LAST_REPORTS:] if name in line]
        return sum(values) / len(values) if values else None

    @property
    def waited(self) -> float | None:
        """Share of all the time that went by waiting for micrographs; None where no log is left."""
        before = [0, *(line["step"] for line in self.lines)]
        seconds = [
            (line["step"] - b) * line["seconds_per_step"] for line, b in zip(self.lines, before[:-1], strict=True)
        ]
        waits = [s * line["waited"] for s, line in zip(seconds, self.lines, strict=True)]
        return sum(waits) / sum(seconds) if self.lines else None


def _read(path: Path) -> Iterator[dict[str, float]]:
    """Whole lines only: a kill may have torn the last one."""
    if not path.is_file():
        return
    with storage_faults(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and {"step", "seconds_per_step", "waited"} <= found.keys():
            yield found


class _Speaker:
    """Turns reports into lines of the log and events; says once that making micrographs holds up the trainer."""

    def __init__(self, run_id: str, recipe: PretrainRecipe, emit: Emit, log: _Log) -> None:
        self._run_id, self._recipe, self._emit, self._log = run_id, recipe, emit, log
        self._n_reports, self._told = 0, False

    def report(self, report: Report) -> None:
        """One report of the trainer."""
        self._log.add(report)
        self._n_reports += 1
        self._emit(
            IterationEnded(
                run_id=self._run_id,
                iteration=report.step,
                loss=report.loss,
                learning_rates={"network": report.rate},
                seconds_left=(self._recipe.steps - report.step) * report.seconds_per_step,
            )
        )
        # The first report also counts how long the processes took to start.
        if self._n_reports > 1 and report.waited > _SLOW and not self._told:
            self._told = True
            said = f"The network waits for micrographs during {100 * report.waited:.0f} % of the time."
            hint = "The result is the same; on a machine with more free cores it comes sooner."
            self._emit(NoticePosted(run_id=self._run_id, message=said, hint=hint))


def _result(request: RecipeRequest, pretraining: Pretraining, log: _Log) -> dict[str, Any]:
    recipe = request.recipe
    return {
        "weights": None,
        "name": recipe.name,
        "architecture": recipe.architecture,
        "encoder": recipe.encoder,
        "objective": recipe.objective,
        "iterations": pretraining.step,
        "n_steps": recipe.steps,
        "complete": pretraining.step == recipe.steps,
        "seconds": pretraining.seconds,
        "waited": log.waited,
        "loss": log.last("loss"),
        "accuracy": log.last("accuracy"),
        "state": str(state_path(request.out)),
        "log": str(log.path),
    }


def _write(request: RecipeRequest, pretraining: Pretraining, result: dict[str, Any]) -> None:
    """Encoder and decoder in half precision as safetensors, which say what they are, and a card for people."""
    recipe, out = request.recipe, request.out
    versions = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    recorded = {
        "recipe": recipe.model_dump(mode="json"),
        "iterations": pretraining.step,
        "seconds": pretraining.seconds,
        "device": result["device"],
        "threads": torch.get_num_threads(),
        "versions": versions,
        "trained_on": TRAINED_ON,
        "licence": LICENCE,
        **{name: result[name] for name in ("loss", "accuracy", "waited")},
    }
    said = {
        store.ENCODER_KEY: recipe.encoder,
        store.ARCHITECTURE_KEY: recipe.architecture,
        store.NOTES_KEY: _summary(recorded, recipe),
        "licence": LICENCE,
        "pretraining": json.dumps(recorded),
    }
    tensors = pretraining.weights()
    with storage_faults(out):
        write_atomic(out, save(tensors, metadata=said))
    size = {"sha256": store.sha256_of(out), "n_parameters": sum(t.numel() for t in tensors.values())}
    write_text(out.with_suffix(".md"), "\n".join(_card(recorded | size, recipe, out)) + "\n")


def _summary(recorded: dict[str, Any], recipe: PretrainRecipe) -> str:
    return (
        f"Pretrained by the recipe {recipe.name!r} ({recipe.objective}, {recorded['iterations']} steps). {TRAINED_ON}"
    )


def _card(recorded: dict[str, Any], recipe: PretrainRecipe, out: Path) -> Iterator[str]:
    yield f"# {out.name}: {recipe.architecture} with {recipe.encoder}, encoder and decoder"
    yield ""
    yield _summary(recorded, recipe)
    yield "Fine-tune it whole, or take its features as they are; its own head is not part of the file."
    yield ""
    yield f"- objective: {recipe.objective}; seed {recipe.seed}; {recipe.stages[-1].episodes} episodes per step at last"
    yield f"- {recorded['iterations']} steps in {recorded['seconds']:.0f} s on {recorded['device']}"
    if recorded["waited"] is not None:
        yield f"- waiting for micrographs: {100 * recorded['waited']:.1f} % of the time"
    if recorded["loss"] is not None:
        yield f"- loss at the end: {recorded['loss']:.4f} (mean of the last {_LAST_REPORTS} reports of the log)"
    if recorded["accuracy"] is not None:
        yield f"- pixels of unseen queries that the ridge classifier gets right at the end: {recorded['accuracy']:.3f}"
    yield f"- {recorded['n_parameters']} numbers in half precision, one grey channel in"
    yield f"- sha256 {recorded['sha256']}"
    yield f"- licence: {LICENCE}"
    yield f"- versions: {', '.join(f'{n} {v}' for n, v in recorded['versions'].items())}"
    yield f"- made again by: emtransfer pretrain RECIPE.toml --out {out.name}, with this recipe"
    yield ""
    yield "```json"
    yield recipe.model_dump_json(indent=1)
    yield "```"
