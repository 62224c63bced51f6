"""Pixel size and instrument of a TIFF: each maker hides them elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import tifffile

from napari_emtransfer.core.data.micrograph import Problem
from napari_emtransfer.core.data.readers.resolution import believable
from napari_emtransfer.core.data.readers.units import pixel_size, to_nm
from napari_emtransfer.core.data.tiles import Window

_INCH: Final = 2
_CENTIMETRE: Final = 3
_DM_UNITS: Final = (65003, 65004)
_DM_SCALES: Final = (65009, 65010)


@dataclass(frozen=True)
class Facts:
    """What a TIFF states about its image."""

    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    info_bar: Window | None = None


def describe(tif: tifffile.TiffFile, series: Any) -> Facts:
    """The first maker's mark that says something; else a plain resolution tag, if it is believable."""
    page = series.keyframe
    for reader in (_zeiss, _fei, _olympus, _tvips, _digitalmicrograph, _jeol):
        facts = reader(page)
        if facts is not None:
            return facts
    return _imagej(tif, page) or _ome(tif) or Facts(_plain(page))


def _zeiss(page: Any) -> Facts | None:
    sem = _tag(page, 34118)
    if not isinstance(sem, Mapping):
        return None
    stated = _quantity_nm(sem, "ap_image_pixel_size") or _quantity_nm(sem, "ap_pixel_size")
    header = sem.get("", ())
    exact = to_nm(float(header[3]), "m") if len(header) > 3 else None  # more digits than the text has
    size = exact if exact and (stated is None or abs(exact / stated - 1) < 0.005) else stated
    found = {
        "voltage_kv": _quantity(sem, "ap_actualkv", {"kV": 1, "V": 1e-3}),
        "magnification": _quantity(sem, "ap_mag", {"X": 1, "K X": 1e3}),
        "working_distance_mm": _quantity(sem, "ap_wd", {"mm": 1, "µm": 1e-3}),
        "detector": _value(sem, "dp_detector_channel") or _value(sem, "dp_detector_type"),
        "instrument": " ".join(str(v) for v in ("Zeiss", _value(sem, "dp_sem")) if v),
        "acquired": " ".join(str(v) for v in (_value(sem, "ap_date"), _value(sem, "ap_time")) if v),
    }
    return Facts(size, _stated(found))


def _fei(page: Any) -> Facts | None:
    fei = _tag(page, 34682) or _tag(page, 34680)
    if not isinstance(fei, Mapping):
        return None
    scan, beam = _section(fei, "Scan", "EScan"), _section(fei, "EBeam", "Beam")
    widths = [float(scan.get(key) or 0) for key in ("PixelHeight", "PixelWidth")]
    size, problems = pixel_size(widths, ["m", "m"]) if all(w > 0 for w in widths) else (None, ())
    found = {
        "voltage_kv": float(beam.get("HV") or 0) / 1e3,
        "working_distance_mm": float(beam.get("WD") or 0) * 1e3,
        "detector": _section(fei, "Detectors").get("Name"),
        "instrument": str(_section(fei, "System").get("SystemType", "")).replace('"', ""),
        "acquired": _section(fei, "PrivateFei").get("TimeOfCreation"),
    }
    return Facts(size, _stated(found), problems, _fei_bar(page, _section(fei, "Image")))


def _fei_bar(page: Any, image: Mapping[str, Any]) -> Window | None:
    """The data bar is what the stored image has beyond the scanned one, at its bottom."""
    scanned = int(image.get("ResolutionY") or 0)
    height, width = page.imagelength, page.imagewidth
    if image.get("ResolutionX") != width or not 0.7 * height < scanned < height:
        return None
    return Window(y0=scanned, x0=0, y1=height, x1=width)


def _olympus(page: Any) -> Facts | None:
    sis = _tag(page, 33560)
    if not isinstance(sis, Mapping) or "pixelsizex" not in sis:
        return None
    size, problems = pixel_size([sis["pixelsizey"], sis["pixelsizex"]], ["m", "m"])
    found = {
        "magnification": sis.get("magnification"),
        "detector": sis.get("cameraname") or _text(page, 272),
        "instrument": _text(page, 271),
        "acquired": str(sis.get("datetime") or ""),
    }
    return Facts(size, _stated(found), problems)


def _tvips(page: Any) -> Facts | None:
    tvips = _tag(page, 37706)
    if not isinstance(tvips, Mapping) or not tvips.get("PixelSizeX"):
        return None
    size, problems = pixel_size([float(tvips["PixelSizeY"]), float(tvips["PixelSizeX"])], ["nm", "nm"])
    found = {
        "voltage_kv": float(tvips.get("TemHighTension") or 0) / 1e3,
        "magnification": tvips.get("TemMagnification"),
        "detector": tvips.get("CameraType"),
        "instrument": "TVIPS",
    }
    return Facts(size, _stated(found), problems)


def _digitalmicrograph(page: Any) -> Facts | None:
    units, scales = [_tag(page, c) for c in _DM_UNITS], [_tag(page, c) for c in _DM_SCALES]
    if any(v is None for v in (*units, *scales)):
        return None
    size, problems = pixel_size([float(s) for s in reversed(scales)], [str(u) for u in reversed(units)])
    return Facts(size, {"instrument": "DigitalMicrograph"}, problems)


def _jeol(page: Any) -> Facts | None:
    """SightX: the pixel on the camera over the magnification.

    The resolution tag rounds the camera's pixel to whole dots per inch (93 for 92.5); the XML beside it has
    it to four digits, and the lengths that SightX itself prints follow from those.
    """
    text = _text(page, 270)
    if "<TemReporter" not in text:
        return None
    per_metre, magnification = _element(text, "Horizontal"), _element(text, "SelectorValue")
    resolution = _resolution(page)
    camera_nm = 1e9 / per_metre if per_metre else resolution
    size = camera_nm / magnification if camera_nm and magnification else None
    found = {
        "voltage_kv": (_element(text, "AccVoltage") or 0) / 1e3,
        "magnification": magnification,
        "instrument": " ".join(t for t in (_text(page, 271), _text(page, 272)) if t),
        "acquired": _text(page, 306),
    }
    return Facts(to_nm(size, "nm") if size else None, _stated(found))


def _imagej(tif: tifffile.TiffFile, page: Any) -> Facts | None:
    info, resolution = tif.imagej_metadata, page.tags.get(282)
    if not info or not info.get("unit") or resolution is None or not resolution.value[0]:
        return None
    per_pixel = [tag.value[1] / tag.value[0] for tag in (page.tags.get(283, resolution), resolution)]
    size, problems = pixel_size(per_pixel, [str(info["unit"])] * 2)
    return Facts(size, {"software": "ImageJ"}, problems)


def _ome(tif: tifffile.TiffFile) -> Facts | None:
    found = re.search(r"<Pixels\b[^>]*>", tif.ome_metadata or "")
    if found is None:
        return None
    stated = dict(re.findall(r'(\w+)="([^"]*)"', found.group()))
    if "PhysicalSizeX" not in stated or "PhysicalSizeY" not in stated:
        return None
    scales = [float(stated[f"PhysicalSize{axis}"]) for axis in "YX"]
    size, problems = pixel_size(scales, [stated.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"])
    return Facts(size, {}, problems)


def _plain(page: Any) -> float | None:
    return believable(_resolution(page))


def _resolution(page: Any) -> float | None:
    """Edge of a pixel in nm by XResolution and ResolutionUnit, believable or not."""
    resolution, unit = _tag(page, 282), _tag(page, 296)
    if not resolution or not resolution[0] or not resolution[1]:
        return None
    length = {_INCH: "inch", _CENTIMETRE: "cm"}.get(int(unit or 0))
    return to_nm(resolution[1] / resolution[0], length) if length else None


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _text(page: Any, code: int) -> str:
    value = _tag(page, code)
    return value.strip() if isinstance(value, str) else ""


def _section(fei: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((fei[name] for name in names if isinstance(fei.get(name), Mapping)), {})


def _element(xml: str, name: str) -> float | None:
    found = re.search(rf"<{name}>([\d.eE+-]+)</{name}>", xml)
    return float(found.group(1)) if found and float(found.group(1)) > 0 else None


def _value(sem: Mapping[str, Any], key: str) -> Any:
    entry = sem.get(key, ())
    return entry[1] if len(entry) > 1 else None


def _quantity(sem: Mapping[str, Any], key: str, units: Mapping[str, float]) -> float | None:
    """Zeiss writes (name, value, unit) with a unit that grows with the value."""
    entry = sem.get(key, ())
    return float(entry[1]) * units[entry[2]] if len(entry) > 2 and entry[2] in units else None


def _quantity_nm(sem: Mapping[str, Any], key: str) -> float | None:
    entry = sem.get(key, ())
    return to_nm(float(entry[1]), str(entry[2])) if len(entry) > 2 else None


def _stated(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value}
