"""Put the weights of a finished `emtransfer pretrain RECIPE` into the package, with their row in its model card.

    python resources/bundle_weights.py FILE.safetensors [--encoder-learning-rate 3e-3] [--learning-rate 3e-3] [--note …]

FILE and FILE's .md are copied to napari_emtransfer/weights/ under the name of the recipe; a row of the same name is
replaced. Commit the folder afterwards: once for each set of weights, for git never forgets the old ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import EMTransferError, WeightsError
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.registry import BUNDLED_DIR, WeightsEntry
from napari_emtransfer.core.nn.tensors import read_metadata, read_tensors
from napari_emtransfer.core.nn.weights import load_weights

MAX_MB = 12.0


def bundle(
    path: Path,
    folder: Path = BUNDLED_DIR,
    *,
    encoder_rate: float | None = None,
    rate: float | None = None,
    note: str = "",
) -> WeightsEntry:
    """Copy `path` into `folder` and write its row; → the row.

    Raises
    ------
    WeightsError
        When the file is not of a pretraining by recipe, is too large for a wheel, or does not fit its own network.
    """
    tensors, said = read_tensors(path), read_metadata(path)
    rates = {"encoder_learning_rate": encoder_rate, "learning_rate": rate}
    row = _row(path, said, rates, note)
    _check(path, tensors, row)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / str(row.file_name))
    if path.with_suffix(".md").is_file():
        shutil.copyfile(path.with_suffix(".md"), folder / f"{row.name}.md")
    card = folder / "model_card.json"
    rows = json.loads(card.read_text(encoding="utf-8"))["weights"] if card.is_file() else []
    kept = [r for r in rows if r["name"] != row.name]
    shown = row.model_dump(mode="json", exclude_defaults=True, exclude={"family"}) | {"channels": row.channels}
    write_text(card, json.dumps({"weights": [*kept, shown]}, indent=1) + "\n")
    return row


def _row(path: Path, said: dict[str, str], rates: dict[str, float | None], note: str) -> WeightsEntry:
    try:
        record: dict[str, Any] = json.loads(said["pretraining"])
        name = record["recipe"]["name"]
        return WeightsEntry.model_validate(
            {
                "name": name,
                "family": "bundled",
                "encoder": said[store.ENCODER_KEY],
                "architecture": said[store.ARCHITECTURE_KEY],
                "source": "synthetic micrographs alone, by resources/pretraining.toml",
                "licence": said["licence"],
                "file_name": f"{name}.safetensors",
                "sha256": store.sha256_of(path),
                "verification": "its checksum is in the program",
                "channels": 1,
                **rates,
                "notes": " ".join(filter(None, [said[store.NOTES_KEY], note])),
            }
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path.name!r} does not say that it was pretrained by a recipe: {error}.",
            "Give what `emtransfer pretrain RECIPE.toml --out FILE` wrote.",
        ) from error


def _check(path: Path, tensors: dict[str, torch.Tensor], row: WeightsEntry) -> None:
    size = path.stat().st_size / 1e6
    if size > MAX_MB:
        raise WeightsError(f"{path.name!r} has {size:.1f} MB; a wheel bears {MAX_MB:g}.", "Take a smaller encoder.")
    broken = [k for k, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    # A variance that half precision rounds to 0 would blow its channel up.
    broken += [k for k, t in tensors.items() if k.endswith("running_var") and bool((t <= 0).any())]
    if broken:
        raise WeightsError(f"{path.name!r} holds numbers of no use in {broken[0]}.", "Look at the log of its training.")
    config = ModelConfig(architecture=row.architecture or "Unet", encoder=row.encoder or "", n_classes=2)
    load_weights(build_model(config), path)


def main() -> None:
    """Take the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoder-learning-rate", type=float, help="the rate that measured best for these weights")
    parser.add_argument("--learning-rate", type=float, help="that of decoder and head")
    parser.add_argument("--note", default="", help="what was measured, for the list of weights")
    args = parser.parse_args()
    try:
        row = bundle(args.file, encoder_rate=args.encoder_learning_rate, rate=args.learning_rate, note=args.note)
    except EMTransferError as error:
        sys.exit(f"{error.message} {error.hint}")
    sys.stdout.write(f"{BUNDLED_DIR / str(row.file_name)}: {row.model_dump_json(indent=1)}\n")


if __name__ == "__main__":
    main()
