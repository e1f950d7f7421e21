"""The limits of pictures, archives and decode children."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.core.picture_formats import default_formats

MIB = 1 << 20
# How many times `max_pixels` a picture of a format may have, by what a decode child needed in all (of its 1536 MiB).
# libjpeg decodes a JPEG at a fraction of its size: 56 MiB for 248 megapixels, and 622 MiB for 200 megapixels of a
# progressive one, which is held whole as coefficients; the preview in a RAW file is such a JPEG. For 50 megapixels, of
# which 178 MiB are there before: HEIC 628 (1,180 with 10 bits), TIFF 410, JPEG XL 539, JPEG 2000 1,107.
PIXEL_FACTORS = {"jpeg": 5, "raw": 5, "heic": 2, "tiff": 2, "jxl": 2}


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture that is accepted: bytes of the file, pixels in all (see `pixels_of`), pixels a side; and the
    formats that are accepted."""

    max_bytes: int = 96 * MIB
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    formats: frozenset[str] = field(default_factory=default_formats)

    def pixels_of(self, format: str) -> int:
        """The most pixels of a picture of this format."""
        return self.max_pixels * PIXEL_FACTORS.get(format, 1)


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """The largest video that is accepted, and which of its frames become pictures: at most `max_frames`, and
    `max_rate` a second. `seconds` is the time for reading it. With a `refusal`, which says why, none is accepted.

    `keep`: the file of the video stays, so that a person can watch it.
    """

    max_bytes: int = 4096 * MIB
    max_frames: int = 300
    max_rate: float = 1.0
    seconds: float = 300.0
    keep: bool = True
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The largest archive that is accepted: bytes it expands to, members, bytes of one member that is no video."""

    max_bytes: int = 2048 * MIB
    max_members: int = 10_000
    max_member_bytes: int = 96 * MIB
    videos: VideoLimits = field(default_factory=VideoLimits)


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What one task may use: wall seconds, bytes of address space of the child, processor seconds, bytes of each file
    that it writes (a thumbnail, where a task sets no other)."""

    seconds: float = 15.0
    memory: int = 1536 * MIB
    cpu_seconds: int = 10
    file_bytes: int = 64 * MIB
