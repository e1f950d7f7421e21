"""A client of Sightline: load pictures, and find them by words or by a picture."""

from sightline_client.aio.client import AsyncClient
from sightline_client.call import UNSET
from sightline_client.errors import ApiError, ConnectionFailed, JobFailed, NotSightline, SightlineError
from sightline_client.folder import UploadProgress, UploadReport
from sightline_client.models import Filter, Hit, Image, Job, QueryPart, SearchResult, Text, Upload
from sightline_client.pictures import NamedPicture, Picture
from sightline_client.sync.client import Client

__all__ = [
    "UNSET",
    "ApiError",
    "AsyncClient",
    "Client",
    "ConnectionFailed",
    "Filter",
    "Hit",
    "Image",
    "Job",
    "JobFailed",
    "NamedPicture",
    "NotSightline",
    "Picture",
    "QueryPart",
    "SearchResult",
    "SightlineError",
    "Text",
    "Upload",
    "UploadProgress",
    "UploadReport",
]
