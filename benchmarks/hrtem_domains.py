"""The published domain tables of HRTEM transfer learning, in small: networks of one defocus or dose, tested on others.

    python -m benchmarks.hrtem_domains --rows rows.jsonl [--seeds 0 1] [--iterations 200]

Rangel DaCosta, Oill & Scott (EM000010, 2025) trained thousands of U-Nets on synthetic CdSe nanoparticles. Two patterns
stand out in their tables: whatever a network was trained on, the domain in focus is the hardest to be tested on; and
networks trained at a low dose fail at a high one, while those of a high dose lose less at a low one. A third one, that
the network trained in focus generalises best, is asked too. Here a small network learns each domain from 64
micrographs of 256² (0.4 Å per pixel, 10 nm wide) by the program's own Trainer, from scratch, and is tested on 8
micrographs of every domain; all domains show the same specimens, those of test are others.
Class-mean IoU and cross-entropy in nats per pixel.

Rows are appended as they are done and not computed again. The last line holds the tables (rows: trained on; columns:
tested on; means over the seeds) and whether the patterns are there. With 150 iterations and two seeds the first two
are; the third is not: a network that is shown only particles in focus has hardly learnt them by then.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import finish, say, standardized, whole
from benchmarks._rows import Rows
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.labels import to_targets
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate
from napari_emtransfer.core.synth.hrtem import CLASSES, Prepared, micrograph, prepare
from napari_emtransfer.core.synth.hrtem_series import Domain

SHAPE = (256, 256)
PIXEL_SIZE_ANGSTROM = 0.4
N_TRAIN, N_VALIDATION, N_TEST = 64, 4, 8
DEFOCI = (-10, -5, 0, 5, 10)
DOSES = (25, 75, 300, 3000)
SERIES = {
    "defocus": tuple(Domain(f"{d:+d} nm", defocus_nm=d) for d in DEFOCI),
    "dose": tuple(Domain(f"{d} e/Å²", dose_e_per_a2=d) for d in DOSES),
}


def images(prepared: list[Prepared], domain: Domain, seed: int) -> list[TrainingImage]:
    """Every specimen as the domain shows it."""
    rng = np.random.default_rng([seed, 3])
    made = [micrograph(one, domain.imaging(rng, PIXEL_SIZE_ANGSTROM)) for one in prepared]
    return [TrainingImage(standardized(one.image), to_targets(one.mask)) for one in made]


def specimens(n: int, first: int) -> list[Prepared]:
    """Exit waves of as many specimens, for all domains; the seeds begin at `first`."""
    domain = Domain("any")
    found = []
    for seed in range(first, first + n):
        settings = domain.settings(np.random.default_rng([seed, 4]), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
        found.append(prepare(SHAPE, seed=seed, settings=settings))
    return found


def train(domain: Domain, waves: list[Prepared], seed: int, args: argparse.Namespace) -> Path:
    """A network of one domain → its best checkpoint in a temporary folder."""
    config = TrainConfig(
        strategy="scratch",
        encoder=args.encoder,
        iterations=args.iterations,
        crop_px=args.crop,
        validate_every=max(1, args.iterations // 4),
        learning_rate=args.learning_rate,
        compute=ComputeConfig(device="cpu", seed=seed, threads=1),
    )
    shown = images(waves, domain, seed)
    folder = Path(tempfile.mkdtemp(prefix="hrtem-domains-"))
    held_out = [whole(pair) for pair in shown[N_TRAIN:]]
    context = RunContext("run", CLASSES, folder)
    trainer = Trainer(initial_model(config, len(CLASSES)), config, shown[:N_TRAIN], held_out, context)
    trainer.fit(lambda _: None)
    return folder / "best.safetensors"


def test(checkpoint: Path, domains: tuple[Domain, ...], waves: list[Prepared]) -> dict[str, dict[str, float]]:
    """Domain → class-mean IoU and cross-entropy of one network."""
    model, config = Checkpoint.load(checkpoint).build(), PredictConfig(halo_px=64, compute=ComputeConfig(device="cpu"))
    found = {}
    for domain in domains:
        regions = [whole(pair) for pair in images(waves, domain, 99)]
        result = validate(model, regions, config, torch.device("cpu"))
        found[domain.name] = {"iou": round(float(result.mean_iou), 4), "loss": round(float(result.loss), 4)}
    return found


def compete(name: str, seed: int, args: argparse.Namespace, rows: Rows) -> None:
    """Every domain's network of one series and one seed."""
    missing = [domain for domain in SERIES[name] if not rows.find(name, seed, domain.name)]
    if not missing:
        return
    say(f"{name}, seed {seed}")
    waves = specimens(N_TRAIN + N_VALIDATION, 1000 * (seed + 1))
    unseen = specimens(N_TEST, 900)
    for domain in missing:
        checkpoint = train(domain, waves, seed, args)
        tested = test(checkpoint, SERIES[name], unseen)
        rows.add(cell=name, seed=seed, arm=domain.name, iterations=args.iterations, tested=tested)


def table(rows: Rows, name: str, measure: str) -> list[list[float]]:
    """Rows: trained on; columns: tested on; mean over the seeds."""
    names = [domain.name for domain in SERIES[name]]
    found = []
    for trained in names:
        of = [row["tested"] for row in rows.all if row["cell"] == name and row["arm"] == trained]
        found.append([round(float(np.mean([one[tested][measure] for one in of])), 3) for tested in names] if of else [])
    return found


def patterns(rows: Rows) -> dict[str, Any]:
    """What the published tables show, asked of these: by loss, as there. Empty until all rows are there."""
    if not all(all(table(rows, name, "loss")) for name in SERIES):
        return {}
    defocus, dose = np.array(table(rows, "defocus", "loss")), np.array(table(rows, "dose", "loss"))
    zero = DEFOCI.index(0)
    off = [i for i in range(len(DEFOCI)) if i != zero]
    return {
        "in_focus_is_the_hardest_column_by_the_median_network": bool(np.median(defocus, axis=0).argmax() == zero),
        "in_focus_network_loses_least_elsewhere": bool(
            np.argmin([np.delete(one, [zero, i]).mean() for i, one in enumerate(defocus)]) == zero
        ),
        "in_focus_is_hardest_for_networks_of_other_foci": [bool(defocus[i].argmax() == zero) for i in off],
        "loss_in_focus_over_others": round(float(defocus[off, zero].mean() / defocus[off][:, off].mean()), 2),
        "low_dose_network_at_high_dose": float(dose[0, -1]),
        "high_dose_network_at_high_dose": float(dose[-1, -1]),
        "low_dose_network_at_low_dose": float(dose[0, 0]),
        "low_dose_network_is_worse_at_high_dose_than_at_its_own": bool(dose[0, -1] > dose[0, 0]),
        "low_dose_network_is_the_worst_at_high_dose": bool(dose[:, -1].argmax() == 0),
    }


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of results, added to")
    parser.add_argument("--series", nargs="*", default=list(SERIES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--encoder", default="tu-mobilenetv3_small_100")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print one JSON object."""
    args = arguments()
    torch.set_num_threads(1)
    rows = Rows(args.rows)
    for seed in args.seeds:
        for name in args.series:
            compete(name, seed, args, rows)
    tables = {f"{name}_{measure}": table(rows, name, measure) for name in SERIES for measure in ("loss", "iou")}
    domains = {name: [domain.name for domain in SERIES[name]] for name in SERIES}
    finish({"benchmark": "hrtem_domains", "domains": domains, **tables, "patterns": patterns(rows)})


if __name__ == "__main__":
    main()
