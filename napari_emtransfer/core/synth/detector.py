"""What a detector makes of an ideal micrograph: blur, shading, contrast, noise in the right order, digits.

Quanta are counted first and blurred afterwards where the detector itself spreads them (a scintillator and its fibres):
such noise is correlated between pixels. What the probe blurs, it blurs before anything is counted, and the noise
stays white.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.signal import lfilter

from napari_emtransfer.core.synth.scan import ScanSettings

Grey = NDArray[np.float64]
Instrument = Literal["sem", "fib-sem", "camera"]
INSTRUMENTS: Final[tuple[Instrument, ...]] = ("sem", "fib-sem", "camera")

_Sigma = Annotated[float, Field(ge=0, le=32, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
# Above this mean a Poisson number and a rounded normal one cannot be told apart, and the normal is four times faster.
_MANY_QUANTA: Final = 400.0
_MAX_STRETCH: Final = 4.0


class DetectorSettings(BaseModel):
    """How the microscope and its detector were set. Grey values are shares of full scale, 0 black and 1 white.

    Parameters
    ----------
    scan
        Faults of the scan; they act on coordinates (`scan.coordinates`), not here.
    probe_blur_px
        Standard deviation of the blur before the counting: probe, defocus, depth of escape.
    inverted
        Polarity: what was bright is dark.
    auto_contrast
        How far contrast and brightness were first turned towards filling 0.1..0.9 with what is in view: 1 is all the
        way, but never more than fourfold.
    contrast, brightness, gamma
        grey → clip((grey − ½)·contrast + ½ + brightness)^gamma.
    vignette
        Share of the signal that is lost in the corners.
    shading
        Change of the signal from one side to the other, in a random direction.
    charging, charging_memory
        Standard deviation of the brightness of rows, and its correlation from one row to the next (AR(1)).
    shadow, shadow_px
        How much of what was bright is missing afterwards along the row, and how far (1/e).
    curtaining, curtain_px
        Standard deviation of the brightness of streaks down the image (ion milling), and their width.
    dose_e_per_px
        Quanta counted in a pixel between black level and white.
    black_level
        Grey value without any quantum.
    noise_psf_px
        Standard deviation of the detector's point spread, after the counting: the noise becomes correlated.
    line_lag_px
        How far (1/e) the amplifier drags a value along its row, after the counting.
    read_noise
        Standard deviation of the electronic noise: white, added last.
    sharpening
        Amount of unsharp masking by the microscope's software.
    info_bar
        Share of the height that an info bar covers at the bottom; 0 without one.
    bits
        Depth of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scan: ScanSettings = ScanSettings()
    probe_blur_px: _Sigma = 0.8
    inverted: bool = False
    auto_contrast: _Share = 0.0
    contrast: float = Field(default=1.0, gt=0, le=10)
    brightness: float = Field(default=0.0, ge=-1, le=1)
    gamma: float = Field(default=1.0, ge=0.1, le=10)
    vignette: _Share = 0.1
    shading: _Share = 0.0
    charging: _Share = 0.0
    charging_memory: float = Field(default=0.7, ge=0, lt=1)
    shadow: _Share = 0.0
    shadow_px: float = Field(default=40.0, ge=1, le=4096)
    curtaining: _Share = 0.0
    curtain_px: float = Field(default=3.0, ge=0.5, le=512)
    dose_e_per_px: float = Field(default=120.0, gt=0, le=1e7)
    black_level: float = Field(default=0.0, ge=0, lt=1)
    noise_psf_px: _Sigma = 0.0
    line_lag_px: _Sigma = 0.0
    read_noise: _Share = 0.01
    sharpening: float = Field(default=0.0, ge=0, le=3)
    info_bar: float = Field(default=0.0, ge=0, le=0.25)
    bits: Literal[8, 16] = 8

    @classmethod
    def draw(cls, rng: Generator, instrument: Instrument | None = None) -> DetectorSettings:
        """Settings that an operator might leave behind; of a random instrument when None."""
        if instrument is None:
            instrument = INSTRUMENTS[int(rng.choice(len(INSTRUMENTS), p=[0.6, 0.15, 0.25]))]
        common = cls(
            inverted=bool(rng.random() < 0.15),
            auto_contrast=float(rng.uniform(0.2, 1)),
            contrast=float(rng.uniform(0.55, 1.15)),
            brightness=float(rng.uniform(-0.1, 0.1)),
            gamma=float(np.exp(rng.normal(0, 0.18))),
            vignette=float(rng.beta(1.2, 6)),
            shading=float(rng.beta(1.2, 10)),
            dose_e_per_px=float(np.exp(rng.uniform(np.log(20), np.log(3000)))),
            black_level=float(rng.uniform(0, 0.08)),
            read_noise=float(rng.uniform(0.002, 0.02)),
            bits=8 if rng.random() < 0.75 else 16,
        )
        own = _draw_camera(rng) if instrument == "camera" else _draw_scanning(rng, milled=instrument == "fib-sem")
        # The dose was drawn per resolved element; with that per pixel, a wide spread would average all noise away.
        per_px = common.dose_e_per_px / max(1.0, 2 * np.pi * own["noise_psf_px"] ** 2)
        return common.model_copy(update=own | {"dose_e_per_px": float(per_px)})

    def nudged(self, rng: Generator) -> DetectorSettings:
        """The same settings as the operator leaves them at the next place: brightness, contrast and focus touched."""
        return self.model_copy(
            update={
                "brightness": float(np.clip(self.brightness + rng.normal(0, 0.02), -1, 1)),
                "contrast": float(np.clip(self.contrast * np.exp(rng.normal(0, 0.05)), 0.05, 10)),
                "probe_blur_px": float(np.clip(self.probe_blur_px * np.exp(rng.normal(0, 0.1)), 0, 32)),
            }
        )

    @property
    def gain(self) -> float:
        """Grey value of one quantum: the variance of a flat field is gain · (mean − black level) + read noise²."""
        return (1 - self.black_level) / self.dose_e_per_px


def _draw_scanning(rng: Generator, *, milled: bool) -> dict[str, Any]:
    return {
        "scan": ScanSettings.draw(rng),
        "probe_blur_px": float(rng.uniform(0.5, 1.6)),
        "charging": float(rng.uniform(0.004, 0.03) if rng.random() < 0.35 else 0),
        "charging_memory": float(rng.uniform(0, 0.95)),
        "shadow": float(rng.uniform(0.05, 0.3) if rng.random() < 0.2 else 0),
        "shadow_px": float(rng.uniform(10, 120)),
        "curtaining": float(rng.uniform(0.01, 0.06)) if milled else 0.0,
        "curtain_px": float(rng.uniform(1, 8)),
        # Many files were rescaled or averaged after the scan; then even a scanned image has correlated noise.
        "noise_psf_px": float(rng.choice([0.0, rng.uniform(0.3, 0.8), rng.uniform(0.8, 1.9)], p=[0.55, 0.3, 0.15])),
        "line_lag_px": float(rng.uniform(0.3, 1.7) if rng.random() < 0.3 else 0),
        "sharpening": float(rng.uniform(0.2, 1.0) if rng.random() < 0.15 else 0),
        "info_bar": float(rng.uniform(0.05, 0.1) if rng.random() < 0.1 else 0),
    }


def _draw_camera(rng: Generator) -> dict[str, Any]:
    return {
        "probe_blur_px": float(rng.uniform(0.3, 1.0)),
        "noise_psf_px": float(rng.uniform(0.4, 1.9)),
        "bits": 16 if rng.random() < 0.6 else 8,
    }


def expose(grey: Grey, settings: DetectorSettings, rng: Generator) -> NDArray[np.float32]:
    """Ideal grey values (H, W), about 0..1 → micrograph float32 (H, W) in 0..1, in steps of its bit depth.

    The info bar is not drawn here (see `data_bar.draw_data_bar`), the scan acts on coordinates before.
    """
    signal = _signal(grey, settings, rng)
    image = _digitised_analogue(_counted(signal, settings, rng), settings, rng)
    levels = 2**settings.bits - 1
    return (np.round(np.clip(image, 0, 1) * levels) / levels).astype(np.float32)


def _signal(grey: Grey, settings: DetectorSettings, rng: Generator) -> Grey:
    """What would be counted on average (H, W)."""
    image = gaussian_filter(grey, settings.probe_blur_px) if settings.probe_blur_px else grey
    image = 1 - image if settings.inverted else image
    image = _filled(image, settings.auto_contrast)
    image = np.clip((image - 0.5) * settings.contrast + 0.5 + settings.brightness, 0, 1)
    if settings.gamma != 1:
        image = image**settings.gamma
    image = image * _illumination(grey.shape, settings, rng)
    rows = settings.charging * _streaks(grey.shape[0], settings.charging_memory, rng)
    image = image + rows[:, None]
    if settings.shadow:
        image = image - settings.shadow * _trail(image - image.mean(), settings.shadow_px)
    return np.asarray(image)


def _filled(image: Grey, share: float) -> Grey:
    low, high = np.percentile(image[::4, ::4], (1, 99))
    steeper = min(0.8 / max(high - low, 1e-6), _MAX_STRETCH)
    return np.asarray(image + share * ((image - (low + high) / 2) * steeper + 0.5 - image))


def _illumination(shape: tuple[int, ...], settings: DetectorSettings, rng: Generator) -> Grey:
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 - settings.vignette * (y**2 + x**2) / 2 + settings.shading * (y * np.sin(angle) + x * np.cos(angle)) / 2
    return np.asarray(light * _curtain(shape, settings, rng))


def _curtain(shape: tuple[int, ...], settings: DetectorSettings, rng: Generator) -> Grey:
    """Streaks down the image that change slowly on the way, strong here and faint there: (H, W), or a scalar 1."""
    height, width = shape
    fine, coarse = rng.normal(size=(2, 2, width))
    if not settings.curtaining:
        return np.ones(())
    fine = gaussian_filter1d(fine, settings.curtain_px / 2, axis=1, mode="wrap")
    coarse = gaussian_filter1d(coarse, min(10 * settings.curtain_px, width / 8), axis=1, mode="wrap")
    streaks = _standardised(_standardised(fine) * np.exp(_standardised(coarse)))
    turn = np.linspace(0, np.pi / 2, height)[:, None]
    return np.asarray(1 + settings.curtaining * (np.cos(turn) * streaks[0] + np.sin(turn) * streaks[1]))


def _standardised(rows: Grey) -> Grey:
    """Rows (n, W) with mean 0 and variance 1 each."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / (centred.std(axis=1, keepdims=True) + 1e-12))


def _streaks(n: int, memory: float, rng: Generator) -> Grey:
    """AR(1) with variance 1, (n,)."""
    drive = rng.normal(size=n)
    drive[1:] *= np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], drive))


def _trail(image: Grey, length_px: float) -> Grey:
    """Mean over what came before in the row, forgotten over `length_px`; (H, W)."""
    keep = np.exp(-1 / length_px)
    return np.asarray(lfilter([0.0, 1 - keep], [1.0, -keep], np.maximum(image, 0), axis=1))


def _counted(signal: Grey, settings: DetectorSettings, rng: Generator) -> Grey:
    mean = np.clip(signal - settings.black_level, 0, None) / settings.gain
    if settings.dose_e_per_px > _MANY_QUANTA:
        counts = np.round(mean + np.sqrt(mean) * rng.standard_normal(mean.shape))
    else:
        counts = rng.poisson(mean).astype(float)
    return np.asarray(settings.black_level + settings.gain * counts)


def _digitised_analogue(image: Grey, settings: DetectorSettings, rng: Generator) -> Grey:
    """What amplifier and camera add after the counting (H, W)."""
    if settings.noise_psf_px:
        image = gaussian_filter(image, settings.noise_psf_px)
    if settings.line_lag_px:
        keep = np.exp(-1 / settings.line_lag_px)
        start = image[:, :1] * keep  # as if the row had always had its first value
        image, _ = lfilter([1 - keep], [1.0, -keep], image, axis=1, zi=start)
    image = image + settings.read_noise * rng.standard_normal(image.shape)
    if settings.sharpening:
        image = image + settings.sharpening * (image - gaussian_filter(image, 1.0))
    return np.asarray(image)
