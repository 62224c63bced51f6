"""All pretrained weights that the program knows, as one table; no torch here, so that a list costs nothing.

Names: "none" · a bundled or an imported file by its own name · "imagenet:ENCODER", "micronet:ENCODER" (MicroNet from a
random start) and "image-micronet:ENCODER" (ImageNet, then MicroNet). Without the encoder a family stands for the
encoder that is trained.

Sources
-------
MicroNet: Stuckner, Harder, Smith, npj Comput. Mater. 8, 200 (2022). File names, versions and accuracies (top-1, in per
cent, on MicroNet's own validation images) are those of github.com/nasa/pretrained-microscopy-models (README;
`util.get_pretrained_microscopynet_url` for the addresses; `pretraining.py` for the normalisation, which is that of the
same encoder's ImageNet weights).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_emtransfer.core.config import Architecture
from napari_emtransfer.core.errors import WeightsError

Family = Literal["none", "bundled", "imported", "imagenet", "micronet", "image-micronet"]
Triple = tuple[float, float, float]

BUNDLED_DIR: Final = Path(__file__).parents[2] / "weights"
_MICRONET_URL: Final = "https://nasa-public-data.s3.amazonaws.com/microscopy_segmentation_models/"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Row):
    """Normalisation of intensities in 0…1 before the network: (value − mean) / std, per colour channel."""

    mean: Triple
    std: Triple

    @property
    def per_channel(self) -> bool:
        """True when the channels are treated differently: then a plain sum over them is not exact."""
        return len(set(self.mean)) > 1 or len(set(self.std)) > 1


IMAGENET: Final = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF: Final = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_DPN: Final = Preprocessing(mean=(124 / 255, 117 / 255, 104 / 255), std=(1 / (0.0167 * 255),) * 3)
PREPROCESSINGS: Final[Mapping[str, Preprocessing | None]] = {"same": None, "imagenet": IMAGENET, "half": HALF}


class WeightsEntry(_Row):
    """One set of weights.

    `preprocessing` is what three-channel weights were trained behind; None for one channel, or where all channels are
    treated alike. `encoder_learning_rate`, and `learning_rate` of decoder and head, are the rates that measured best
    for these weights, None where nobody has.
    `architecture` is that of the decoder which the file holds too; None where it holds an encoder alone.
    """

    name: str
    family: Family
    encoder: str | None = None
    architecture: Architecture | None = None
    source: str = ""
    licence: str = ""
    url: str | None = None
    file_name: str | None = None
    sha256: str | None = None
    verification: str = ""
    channels: Literal[1, 3] = 3
    preprocessing: Preprocessing | None = None
    accuracy: float | None = None
    encoder_learning_rate: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    notes: str = ""


# Encoders of segmentation-models-pytorch with ImageNet weights on its hub (any of timm's works too, by its name).
_IMAGENET_ENCODERS: Final = """
resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d dpn68 dpn68b dpn92 dpn98 dpn107 dpn131
vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn senet154 se_resnet50 se_resnet101 se_resnet152
se_resnext50_32x4d se_resnext101_32x4d densenet121 densenet169 densenet201 densenet161 inceptionresnetv2 inceptionv4
efficientnet-b0 efficientnet-b1 efficientnet-b2 efficientnet-b3 efficientnet-b4 efficientnet-b5 efficientnet-b6
efficientnet-b7 mobilenet_v2 xception mit_b0 mit_b1 mit_b2 mit_b3 mit_b4 mit_b5 mobileone_s0 mobileone_s1 mobileone_s2
mobileone_s3 mobileone_s4
""".split()  # noqa: SIM905
_IMAGENET_5K: Final = frozenset({"dpn68b", "dpn92", "dpn107"})

# encoder → (top-1 of micronet, top-1 of image-micronet); None where there is no such checkpoint.
_MICRONET: Final[Mapping[str, tuple[float | None, float | None]]] = {
    "densenet121": (88.1, 81.2),
    "densenet161": (87.8, 86.0),
    "densenet169": (89.3, 83.8),
    "densenet201": (88.4, 83.7),
    "dpn107": (84.6, 86.2),
    "dpn131": (84.6, 82.8),
    "dpn68": (77.7, 65.9),
    "dpn68b": (69.0, 52.1),
    "dpn92": (74.2, 69.8),
    "dpn98": (85.5, 84.0),
    "efficientnet-b0": (83.9, 92.8),
    "efficientnet-b1": (84.1, 93.3),
    "efficientnet-b2": (84.6, 93.7),
    "efficientnet-b3": (84.9, 93.9),
    "efficientnet-b4": (84.5, 94.5),
    "efficientnet-b5": (83.1, 93.9),
    "efficientnet-b6": (None, 92.6),
    "efficientnet-b7": (None, 92.6),
    "inceptionresnetv2": (90.9, 92.1),
    "inceptionv4": (93.6, 93.7),
    "mobilenet_v2": (83.8, 80.6),
    "resnet101": (77.3, 86.3),
    "resnet152": (85.6, 85.1),
    "resnet18": (79.8, 81.2),
    "resnet34": (77.3, 90.2),
    "resnet50": (76.6, 90.3),  # micronet: version 1.1; 1.0 has 62.0
    "resnext101_32x8d": (87.6, None),  # their address rule gives one and the same file for both
    "resnext50_32x4d": (69.0, 91.1),
    "se_resnet101": (93.4, 93.2),
    "se_resnet152": (92.9, 93.4),
    "se_resnet50": (93.2, 93.2),
    "se_resnext101_32x4d": (93.9, 94.5),
    "se_resnext50_32x4d": (93.7, 93.6),
    "senet154": (94.0, 93.7),
    "vgg11_bn": (76.8, 89.1),
    "vgg13_bn": (77.9, 90.6),
    "vgg16_bn": (71.5, 90.2),
    "xception": (93.8, 93.4),
}

# Published, but broken: among 54 classes, chance is 1.9 %.
_BROKEN: Final[Mapping[str, float]] = {"image-micronet:vgg11": 1.4, "image-micronet:vgg13": 2.0}

NONE: Final = WeightsEntry(name="none", family="none", source="random initialisation", notes="Train from scratch.")


def entries() -> list[WeightsEntry]:
    """The whole table but for imported files, which `store` knows."""
    families: tuple[Family, Family] = ("micronet", "image-micronet")
    micronet = [
        micronet_entry(family, encoder, accuracy)
        for encoder, accuracies in _MICRONET.items()
        for family, accuracy in zip(families, accuracies, strict=True)
        if accuracy is not None
    ]
    return [NONE, *bundled_entries(), *(imagenet_entry(e) for e in _IMAGENET_ENCODERS), *micronet]


def source_preprocessing(encoder: str) -> Preprocessing:
    """What ImageNet weights of segmentation-models-pytorch, and MicroNet after them, were trained behind."""
    if encoder.startswith(("inception", "xception")):
        return HALF
    return _DPN if encoder.startswith("dpn") else IMAGENET


def imagenet_entry(encoder: str) -> WeightsEntry:
    """The row of an encoder of segmentation-models-pytorch, or of timm, whose own table has the rest."""
    known = encoder in _IMAGENET_ENCODERS
    tag = "imagenet-5k" if encoder in _IMAGENET_5K else "imagenet"
    return WeightsEntry(
        name=f"imagenet:{encoder}",
        family="imagenet",
        encoder=encoder,
        source="ImageNet, through the hub of segmentation-models-pytorch" if known else "ImageNet, through timm",
        licence="stated by the source, differs between encoders",
        url=f"https://huggingface.co/smp-hub/{encoder}.{tag}/resolve/main/model.safetensors" if known else None,
        file_name=f"{encoder.replace('/', '_')}.safetensors",
        verification="by the hub's client; the revision is pinned" if known else "by the hub's client",
        preprocessing=source_preprocessing(encoder) if known else None,
    )


def micronet_entry(family: Family, encoder: str, accuracy: float | None) -> WeightsEntry:
    """The row of a MicroNet encoder.

    Version rule of the source: 1.1 for resnet50 from a random start, 1.0 for all others.
    """
    version = "1.1" if (family, encoder) == ("micronet", "resnet50") else "1.0"
    stem = "resnext101" if encoder == "resnext101_32x8d" else encoder
    kind = "microscopynet" if family == "micronet" else "imagenet-microscopynet"
    file_name = f"{stem}_pretrained_{kind}_v{version}.pth.tar"
    return WeightsEntry(
        name=f"{family}:{encoder}",
        family=family,
        encoder=encoder,
        source=f"MicroNet {version} (NASA), " + ("from a random start" if family == "micronet" else "after ImageNet"),
        licence="MIT (of the source's repository)",
        url=_MICRONET_URL + file_name,
        file_name=file_name,
        verification="no checksum is published: length, tensors only, all of the encoder's; its sum is then kept",
        preprocessing=source_preprocessing(encoder),
        accuracy=accuracy,
    )


def bundled_entries(folder: Path = BUNDLED_DIR) -> list[WeightsEntry]:
    """Rows of the weights that came with the program, from `model_card.json` beside them: {"weights": [row, …]}.

    Raises
    ------
    WeightsError
        When the card does not hold such rows, or names a file that is not there.
    """
    card = folder / "model_card.json"
    if not card.is_file():
        return []
    try:
        rows = [
            WeightsEntry.model_validate({"family": "bundled", **r})
            for r in json.loads(card.read_text(encoding="utf-8"))["weights"]
        ]
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"The model card {str(card)!r} cannot be read: {error}", "Install the program again."
        ) from error
    absent = [r.file_name for r in rows if r.file_name is None or not (folder / r.file_name).is_file()]
    if absent:
        raise WeightsError(f"The bundled weights {absent[0]!r} are missing.", "Install the program again.")
    return rows


def find(name: str, encoder: str | None = None, *, imported: Iterable[WeightsEntry] = ()) -> WeightsEntry:
    """The row called `name`; a family alone ("micronet") means its weights for `encoder`.

    Raises
    ------
    WeightsError
        When there is none, or it is a checkpoint that is known to be broken.
    """
    wanted = f"{name}:{encoder}" if name in get_args(Family)[3:] and encoder is not None else name
    _refuse_broken(wanted)
    # What is bundled by a name goes before what was imported under it by an earlier version.
    table = {row.name: row for row in [*imported, *entries()]}
    if wanted in table:
        return table[wanted]
    family, _, rest = wanted.partition(":")
    if family == "imagenet" and rest:
        return imagenet_entry(rest.removeprefix("tu-"))
    raise WeightsError(f"There are no weights {wanted!r}.", _suggest(wanted, list(table)))


def _refuse_broken(name: str) -> None:
    if name in _BROKEN:
        raise WeightsError(
            f"The published checkpoint {name!r} is broken: {_BROKEN[name]} % right among 54 classes.",
            f"Use {name}_bn, or imagenet:{name.partition(':')[2]}.",
        )


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    if near:
        return f"Close to it: {', '.join(near)}."
    return "Use none, imagenet, micronet, image-micronet, a name of `emtransfer weights list`, or the path of a file."
