"""Colour profiles by code: what a HEIC file says with numbers (nclx, ITU-T H.273) as an ICC profile, which LittleCMS
converts to sRGB."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

_D65 = (0.3127, 0.3290)
# By the number of the primaries. Those of BT.709 and of sRGB are the same: no profile is needed.
_PRIMARIES: dict[int, Chromaticities] = {
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601, 525 lines
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_BT709: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
PQ, HLG = 16, 18
_WHITE_NITS = 203.0  # of the white of a diffuse surface in a picture of high dynamic range (ITU-R BT.2408)
_KNEE = 0.8  # above this share of white, brighter light is compressed into what is left
_CURVE_STEPS = 1024
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def find_nclx_profile(nclx: Any) -> bytes | None:
    """The ICC profile for the colours that `nclx_profile` of a HEIC file names; None for sRGB and what is unknown."""
    if not isinstance(nclx, dict):
        return None
    primaries, transfer = nclx.get("color_primaries"), nclx.get("transfer_characteristics")
    if not isinstance(primaries, int) or not isinstance(transfer, int):
        return None
    if primaries not in _PRIMARIES and transfer not in _CURVES:
        return None
    return build_profile(primaries, transfer)


@cache
def build_profile(primaries: int, transfer: int) -> bytes:
    """An ICC profile (version 2, matrix and curves) for numbers of H.273; for unknown ones those of sRGB."""
    matrix = _adapt_to_d50(_PRIMARIES.get(primaries, _BT709))
    curve = _pack_curve(_CURVES.get(transfer, _srgb)(np.linspace(0, 1, _CURVE_STEPS)))
    name = f"primaries {primaries}, transfer {transfer}".encode()
    desc = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(1 + 4 + 4 + 2 + 1 + 67)
    tags = [(b"desc", desc), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", _pack_xyz(_D50))]
    tags += [(name, _pack_xyz(matrix[:, n])) for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _pack_profile(tags)


def _pack_profile(tags: list[tuple[bytes, bytes]]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(4 * 7)
    head += b"".join(struct.pack(">i", round(one * 65536)) for one in _D50)
    return head.ljust(128, b"\0") + table + body


def _pack_xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(float(one) * 65536)) for one in values)


def _pack_curve(values: Curve) -> bytes:
    steps = np.clip(np.round(values * 65535), 0, 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(steps)) + steps.tobytes()


def _adapt_to_d50(primaries: Chromaticities) -> npt.NDArray[np.float64]:
    """The XYZ of red, green and blue as columns, adapted from D65 to D50 (Bradford)."""
    columns = np.array([_to_xyz(one) for one in primaries]).T
    white = np.array(_to_xyz(_D65))
    matrix = columns * np.linalg.solve(columns, white)
    gains = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ matrix
    return adapted


def _to_xyz(place: tuple[float, float]) -> tuple[float, float, float]:
    x, y = place
    return x / y, 1.0, (1 - x - y) / y


def _srgb(code: Curve) -> Curve:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def _pq(code: Curve) -> Curve:
    """SMPTE ST 2084, as a share of diffuse white, with brighter light compressed."""
    power = code ** (1 / 78.84375)
    nits = 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return _compress(nits / _WHITE_NITS)


def _hlg(code: Curve) -> Curve:
    """ARIB STD-B67: 75 % is diffuse white."""
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _compress(scene**1.2 / 0.2045)


def _compress(light: Curve) -> Curve:
    """Leave light below the knee as it is, and bring all that is brighter below 1."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * over / (1 + over))


_CURVES: dict[int, Callable[[Curve], Curve]] = {
    4: lambda code: code**2.2,
    5: lambda code: code**2.8,
    8: lambda code: code,
    PQ: _pq,
    HLG: _hlg,
}
