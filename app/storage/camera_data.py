"""What a row keeps of the camera data of its picture and of the files beside it.

What a client sent stays: the words of a picture become its caption and tags only where it has none, and once. The time
of a sidecar stays too, on the clock of the camera where both mean one moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.core.errors import Validation
from app.core.types import AnswerWarning, CameraData, Image
from app.decode.camera_data import camera_data_from_json, camera_data_of, time_of
from app.decode.taken_time import join_taken_times
from app.storage.attributes import ImageAttributes, MetadataLimits, check_metadata, fit_attributes
from app.storage.sql import Connection
from app.storage.tables import images

EXPOSURE = "exif"  # the entry of metadata


@dataclass(frozen=True, slots=True)
class CameraDataPolicy:
    """What of the camera data a server keeps beside time, camera, lens and words: exposure (in metadata), place."""

    keep_exposure: bool = False
    keep_location: bool = False

    def apply(self, data: CameraData | None) -> CameraData | None:
        if data is None:
            return None
        if not self.keep_location:
            data = replace(data, latitude=None, longitude=None)
        return data if self.keep_exposure else replace(data, exposure={})


def read_sidecar_data(value: Any) -> CameraData | None:
    """The camera data of a line of a manifest; None for a line without, or one that a client wrote wrongly."""
    try:
        return None if value is None else camera_data_from_json(value)
    except ValueError:
        return None


def record_camera_data(
    c: Connection,
    key: int,
    data: CameraData,
    policy: CameraDataPolicy,
    limits: MetadataLimits,
    *,
    again: bool = False,
) -> list[AnswerWarning]:
    """Write what the bytes of a picture say into its row; returns what did not fit.

    `again`: also give the exposure to a picture whose data were read before, whose caption and tags stay as they are.
    """
    found = images.get_by_keys(c, [key]).get(key)
    if found is None:
        return []
    said = policy.apply(data) or CameraData()
    is_new = not images.is_camera_read(c, key)
    columns = _join_columns(found, said, policy)
    warnings: list[AnswerWarning] = []
    if is_new:
        words, warnings = _fit_words(found, said, limits)
        columns |= words
    if (is_new or again) and said.exposure and EXPOSURE not in found.metadata:
        metadata = {**found.metadata, EXPOSURE: dict(said.exposure)}
        try:
            check_metadata(metadata, limits)
            columns["metadata"] = metadata
        except Validation as error:
            warnings.append(AnswerWarning("left_out", f"the exposure of the picture: {error.detail}", "metadata"))
    images.set_camera_data(c, key, columns)
    return warnings


def _join_columns(row: Image, said: CameraData, policy: CameraDataPolicy) -> dict[str, Any]:
    had = policy.apply(camera_data_of(row)) or CameraData()
    time = join_taken_times(time_of(had), time_of(said))
    place = had if had.latitude is not None else said
    return {
        "taken_at": time.wall if time else None,
        "taken_offset": time.offset if time else None,
        "camera": said.camera or had.camera,
        "lens": said.lens or had.lens,
        "latitude": place.latitude,
        "longitude": place.longitude,
    }


def _fit_words(row: Image, said: CameraData, limits: MetadataLimits) -> tuple[Mapping[str, Any], list[AnswerWarning]]:
    """The caption and tags of the picture, where its row has none."""
    caption = None if row.caption else said.caption
    fit, warnings = fit_attributes(ImageAttributes(caption=caption, tags=() if row.tags else said.tags), limits)
    words: dict[str, Any] = {}
    if fit.caption:
        words["caption"] = fit.caption
    if fit.tags:
        words["tags"] = fit.tags
    return words, warnings
