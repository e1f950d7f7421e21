"""Camera data of pictures that are stored already."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from app.api.dependencies import CameraDataDep, CollectionDep, ThreadsDep
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router

router = new_router("/v1/camera-data", "camera-data")


@router.post("", status_code=202)
async def read_camera_data(
    service: CameraDataDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    again: Annotated[
        bool, Query(description="Also of pictures whose camera data were read before, as after a change of a setting.")
    ] = False,
) -> JobOut:
    """Read the camera data of pictures that an older version has stored. A job does it, and decodes no vectors anew."""
    return JobOut.of(await threads.writes.run(service.start, collection, again))
