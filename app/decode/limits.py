"""The limits of pictures, archives and decode children."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture that is accepted: bytes of the file, pixels in all, pixels a side."""

    max_bytes: int = 32 * MIB
    max_pixels: int = 50_000_000
    max_side: int = 16_384


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The largest archive that is accepted: bytes it expands to, members, bytes of one member."""

    max_bytes: int = 2048 * MIB
    max_members: int = 10_000
    max_member_bytes: int = 32 * MIB


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What one task may use: wall seconds, bytes of address space of the child, processor seconds."""

    seconds: float = 15.0
    memory: int = 1536 * MIB
    cpu_seconds: int = 10
