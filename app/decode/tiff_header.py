"""Headers of TIFF files, and of the RAW files of cameras, most of which are built like them.

Sources: TIFF 6.0, BigTIFF, DNG 1.7, ISO 14496-12 (CR3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from app.core.errors import ImageCorrupt
from app.decode.header_reader import Box, ParsedHeader, Size, count_steps, iter_boxes, largest, read_at

MAX_PAGES = 1_000  # that are counted
MAX_ENTRIES = 4_096  # of one directory that are read
MAX_SUB_IFDS = 16
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORF_MAGICS = (b"IIRO", b"IIRS", b"MMOR")
RAF_MAGIC = b"FUJIFILMCCD-RAW"
NEW_SUBFILE_TYPE, WIDTH, HEIGHT, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 256, 257, 262, 330, 50706
_WANTED = frozenset({NEW_SUBFILE_TYPE, WIDTH, HEIGHT, PHOTOMETRIC, SUB_IFDS, DNG_VERSION})
_OF_SENSORS = frozenset({32803, 34892})  # colour filter array, linear raw
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class _Directory:
    """The wanted numbers of an image file directory (IFD), and where the next one is."""

    values: dict[int, tuple[int, ...]] = field(default_factory=dict)
    next: int = 0

    @property
    def size(self) -> Size:
        return (self.values.get(WIDTH, (0,))[0], self.values.get(HEIGHT, (0,))[0])

    @property
    def is_raw(self) -> bool:
        """Whether a camera wrote it: a DNG, the values of a sensor, or a small picture with the others below it."""
        is_small = bool(self.values.get(NEW_SUBFILE_TYPE, (0,))[0] & 1) and SUB_IFDS in self.values
        return DNG_VERSION in self.values or self.values.get(PHOTOMETRIC, (0,))[0] in _OF_SENSORS or is_small


class _Reader:
    """The directories of one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        head = read_at(file, 0, 16)
        self.order = "<" if head[:2] == b"II" else ">"
        self.is_big = head[2:4] in (b"+\0", b"\0+")
        self.first: int = struct.unpack_from(self.order + ("8xQ" if self.is_big else "4xI"), head)[0]
        self._count = self.order + ("Q" if self.is_big else "H")
        self._link = self.order + ("Q" if self.is_big else "I")
        self._entry = 20 if self.is_big else 12

    def read(self, position: int) -> _Directory:
        """One directory with its wanted numbers. Raises struct.error, ImageCorrupt."""
        count, start = self._open(position)
        if count > MAX_ENTRIES:
            raise ImageCorrupt("a directory of the TIFF file is too long")
        data = read_at(self._file, start, count * self._entry)
        values = {}
        for at in range(0, count * self._entry, self._entry):
            tag, kind = struct.unpack_from(self.order + "HH", data, at)
            if tag in _WANTED and kind in _TYPES:
                values[tag] = self._read_values(kind, data[at + 4 : at + self._entry])
        return _Directory(values, self._read_link(start + count * self._entry))

    def skip(self, position: int) -> int:
        """The place of the directory after the one at `position`; 0 after the last."""
        count, start = self._open(position)
        return self._read_link(start + count * self._entry)

    def _open(self, position: int) -> tuple[int, int]:
        size = struct.calcsize(self._count)
        return struct.unpack(self._count, read_at(self._file, position, size))[0], position + size

    def _read_link(self, position: int) -> int:
        data = read_at(self._file, position, struct.calcsize(self._link))
        return struct.unpack(self._link, data)[0] if len(data) == struct.calcsize(self._link) else 0

    def _read_values(self, kind: int, rest: bytes) -> tuple[int, ...]:
        """The first values of an entry, whose count and value (or place of the values) are in `rest`."""
        count: int = struct.unpack_from(self._link, rest)[0]
        inline = rest[struct.calcsize(self._link) :]
        shape = f"{self.order}{max(1, min(count, MAX_SUB_IFDS))}{_TYPES[kind]}"
        size = struct.calcsize(f"{self.order}{_TYPES[kind]}") * count
        if size > len(inline):
            inline = read_at(self._file, struct.unpack(self._link, inline)[0], struct.calcsize(shape))
        return struct.unpack_from(shape, inline)


def parse_tiff(file: IO[bytes]) -> ParsedHeader:
    """A TIFF with its pages, or a RAW file built like one, with the size of its largest picture."""
    reader = _Reader(file)
    first = reader.read(reader.first)
    head = read_at(file, 0, 10)
    if head[8:10] == b"CR" or head[:4] in ORF_MAGICS or first.is_raw:
        return ParsedHeader(_largest_of_raw(reader, first), format="raw")
    return ParsedHeader(first.size, pages=_count_pages(reader, first), format="tiff")


def _count_pages(reader: _Reader, first: _Directory) -> int:
    """The directories of the chain that are there; the file may end before the last."""
    seen, position = {reader.first}, first.next
    while position and position not in seen and len(seen) < MAX_PAGES:
        try:
            following = reader.skip(position)
        except (struct.error, OverflowError, OSError):
            break
        seen.add(position)
        position = following
    return len(seen)


def _largest_of_raw(reader: _Reader, first: _Directory) -> Size:
    directories = [first]
    places = [*first.values.get(SUB_IFDS, ()), first.next]
    for position in places[: MAX_SUB_IFDS + 1]:
        while position and len(directories) < 2 * MAX_SUB_IFDS:
            try:
                directories.append(reader.read(position))
            except (struct.error, ImageCorrupt, OverflowError, OSError):
                break
            position = directories[-1].next
    return largest([one.size for one in directories])


def parse_raf(file: IO[bytes]) -> int:
    """Where the JPEG of a RAF file of Fujifilm begins."""
    start: int = struct.unpack(">I", read_at(file, 84, 4))[0]
    return start


def parse_cr3(file: IO[bytes]) -> ParsedHeader:
    """The largest picture that the tracks of a CR3 file of Canon describe."""
    end = file.seek(0, os.SEEK_END)
    steps = count_steps("boxes")
    sizes = [
        struct.unpack(">HH", read_at(file, box.start + 24, 4))
        for box in _walk(file, Box(b"", 0, end), steps)
        if box.name == b"CRAW"
    ]
    if not sizes:
        raise ImageCorrupt("the CR3 file does not say its size")
    return ParsedHeader(largest(sizes), format="raw")


# The boxes that lead to the description of a track, and the bytes of each before the boxes in it.
_PATH = {b"": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8}


def _walk(file: IO[bytes], parent: Box, steps: Iterator[None]) -> Iterator[Box]:
    for box in iter_boxes(file, parent.start + _PATH[parent.name], parent.end, steps, "CR3"):
        yield box
        if box.name in _PATH:
            yield from _walk(file, box, steps)
        if box.name == b"moov":
            return  # pixel data follows, which may be cut off; that is for the decoder to see
