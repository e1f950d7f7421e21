"""Reads a video: pictures of it where its content changes, written into a folder with a manifest, as an archive is.

Runs in a decode child of its own. FFmpeg (by PyAV, the extra `video`) gets an open file and the names of the demuxer
and the decoders that it may use; it can open nothing else, so that no playlist inside a file leads anywhere.

It decodes as little as finds the changes. Where a video can be entered anew at least once a second (keyframes; phones
write such videos), those frames alone; elsewhere, every frame that others build on. A video that takes too long for its
length is read with more and more left out, see `_Schedule`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.core.clock import format_time
from app.core.errors import ImageTooLarge, SightlineError, UnsupportedMediaType, VideoCorrupt, from_os_error
from app.core.files import atomic_write
from app.decode.left_out import LEFT_OUT_FILE, LeftOut
from app.decode.limits import PictureLimits, VideoLimits
from app.decode.video_header import NO_PICTURES, VideoHeader, check_frame_size, read_video_header

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Small = npt.NDArray[np.float32]

MANIFEST = "manifest.jsonl"
VIDEO_INFO = "video.json"  # beside the manifest: the fields of `VideoInfo`
EXTRA = "videos need the extra `video`: pip install 'sightline-search[video]'"
SWITCHED_OFF = "this server takes no videos (SIGHTLINE_VIDEO)"
NO_FRAMES = "the video holds no frame that can be decoded"

DEMUXERS = {"mp4": "mov", "mov": "mov", "webm": "matroska", "mkv": "matroska"}
DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video", "mpeg1video"),
    *("h263", "mjpeg", "prores", "dnxhd", "ffv1", "png", "qtrle", "cinepak", "rpza", "svq1", "svq3", "rawvideo", "vvc"),
)
MAX_STREAMS = 100
PROBE_BYTES = 5_000_000
BUFFER_BYTES = 1 << 18
BIG_FRAME = 3840 * 2304  # pixels; above them one thread decodes, as each thread holds frames of its own
FRAME_SIDE = 1280  # pixels of the longer side of a picture that is made of a frame
JPEG_QUALITY = 85
DENSE_SECONDS = 1.05  # between keyframes that are read alone
LOOK_SECONDS = 0.24  # between frames that are compared
SMALL = (64, 36)  # pixels of what is compared
LEAST_CHANGE = 7.0  # of 255; noise and compression stay below it
MOST_CHANGE = 20.0  # that is asked for where everything moves
CALM = 2.0  # times the usual change between two looks
PATIENT_SECONDS = 10.0  # after which a change counts that is usual in this video
STRONGEST = 1 / 40  # of the small picture: where it changes most, so that an object of a tenth of the height counts
STRONGEST_SHARE = 0.25
SPEED = 10.0  # seconds of the video in one second of processor time, at least
BUDGET_SHARE = 0.6  # of the time limit, for what is planned
SLACK_SECONDS = 10.0
HARD_SHARE = 0.85  # of the time limit, after which reading ends
ENDS_EARLY = 5.0  # seconds before the end that the file states
MAX_SECONDS = 1e7  # a later time is a lie
YEARS = range(1971, 2200)  # of a date that is believed: 1904 and 1970 are what clocks and programs write for none
PQ, HLG = 16, 18  # transfers of HDR: SMPTE ST 2084, ARIB STD-B67
BT709, UNSPECIFIED = 1, 2
HD = 720  # lines from which colours that a video does not name are those of BT.709, and not of BT.601
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video that was read. `taken_at` and `taken_offset` are as in `Image`, for its first frame."""

    format: str
    codec: str
    width: int
    height: int
    duration_ms: int
    taken_at: str | None = None
    taken_offset: int | None = None


def is_installed() -> bool:
    """Whether the extra is."""
    return importlib.util.find_spec("av") is not None


def why_refused(*, is_on: bool) -> str | None:
    """Why this process accepts no videos; None if it does."""
    if not is_on:
        return SWITCHED_OFF
    return None if is_installed() else EXTRA


def expand_video(path: Path, folder: Path, name: str, digest: str, limits: VideoLimits, pictures: PictureLimits) -> str:
    """Write pictures of the video at `path` into `folder` as JPEGs: the first frame, and those that differ.

    Beside them are `manifest.jsonl`, with a line for each in order of time (name, file, source, video_id, t_ms,
    taken_at, taken_offset), `video.json` (VideoInfo) and LEFT_OUT_FILE with warnings. `digest` is the id of the video.
    Raises VideoCorrupt, UnsupportedMediaType, ImageTooLarge, and the errors of the disk; it leaves no pictures then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb", buffering=0) as file:
            header = read_video_header(file, limits, pictures)
            return _expand(file, header, folder, name, digest, limits, pictures)
    except SightlineError:
        raise
    except ImportError as error:
        raise UnsupportedMediaType(EXTRA) from error
    except MemoryError as error:
        raise ImageTooLarge(
            "the video needs more memory than a decode child may have (SIGHTLINE_DECODE_MEMORY)"
        ) from error
    except Exception as error:
        if type(error) is OSError and error.errno is not None:  # those of FFmpeg are of its own types
            raise from_os_error(error) from error
        raise VideoCorrupt("the video is cut off or damaged") from error


def _expand(
    file: IO[bytes],
    header: VideoHeader,
    folder: Path,
    name: str,
    digest: str,
    limits: VideoLimits,
    pictures: PictureLimits,
) -> str:
    reader = _Reader(file, header, limits, pictures)
    writer = _Frames(folder, digest, limits.max_frames, limits.max_rate, Renderer(reader.pixel_ratio))
    left_out = LeftOut()
    try:
        with reader:
            for frame, seconds in reader.read():
                writer.offer(frame, seconds)
            if not writer.chosen:
                raise reader.why_nothing()
            info = reader.describe(writer.size)
        for warning in reader.list_warnings(name):
            left_out.warn(*warning)
        _write_lists(folder, name, digest, writer, info, left_out)
    except BaseException:
        writer.discard()
        raise
    return MANIFEST


def _write_lists(folder: Path, name: str, digest: str, writer: _Frames, info: VideoInfo, left_out: LeftOut) -> None:
    base = datetime.fromisoformat(info.taken_at) if info.taken_at else None
    lines = []
    for n, one in enumerate(writer.chosen, start=1):
        moment = base + timedelta(seconds=one.seconds) if base else None
        line = {
            "n": n,
            "name": f"{name} {format_time(one.seconds)}",
            "file": one.file,
            "error": None,
            "source": name,
            "video_id": digest,
            "t_ms": round(one.seconds * 1000),
            "taken_at": moment.isoformat(timespec="milliseconds") if moment else None,
            "taken_offset": info.taken_offset if moment else None,
        }
        lines.append(json.dumps(line) + "\n")
    with atomic_write(folder / VIDEO_INFO, durable=False) as out:
        json.dump(asdict(info), out)
    if left_out:
        with atomic_write(folder / LEFT_OUT_FILE, durable=False) as out:
            json.dump(left_out.to_json(), out)
    with atomic_write(folder / MANIFEST, durable=False) as out:  # last: with it the folder counts as complete
        out.writelines(lines)


class _Schedule:
    """How much time may be spent by now. Behind it, less of the video is decoded."""

    def __init__(self, seconds: float, length: int) -> None:
        self._began, self._worked = time.monotonic(), time.process_time()
        self._budget, self._hard = BUDGET_SHARE * seconds, HARD_SHARE * seconds
        self._length = max(1, length)
        self.is_behind = self.is_far_behind = self.is_over = False

    def update(self, position: int | None, seconds: float) -> None:
        """`position` is that in the file, which cannot lie about how much is left; `seconds` that in the video."""
        spent, worked = time.monotonic() - self._began, time.process_time() - self._worked
        share = min(1.0, (position or 0) / self._length)
        late = max(spent - self._budget * share, worked - max(0.0, seconds) / SPEED)
        self.is_behind = late > SLACK_SECONDS
        self.is_far_behind = late > 2 * SLACK_SECONDS
        self.is_over = spent > self._hard


class _Reader:
    """The frames of the first picture stream of one file, with their times in seconds from its start."""

    def __init__(self, file: IO[bytes], header: VideoHeader, limits: VideoLimits, pictures: PictureLimits) -> None:
        import av

        av.logging.set_level(None)
        self._header, self._pictures = header, pictures
        self._length = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._schedule = _Schedule(limits.seconds, self._length)
        options = {
            "protocol_whitelist": "none",
            "codec_whitelist": ",".join(DECODERS),  # no sound, whatever the file holds
            "max_streams": str(MAX_STREAMS),
            "probesize": str(PROBE_BYTES),
            "max_pixels": str(pictures.max_pixels),
            "threads": "1",
        }
        self._errors: tuple[type[Exception], ...] = (av.error.FFmpegError, ValueError, EOFError)
        try:
            self._container: InputContainer = av.open(
                file,
                "r",
                format=DEMUXERS[header.format],
                options=options,
                metadata_errors="replace",
                buffer_size=BUFFER_BYTES,
                io_open=_refuse_to_open,
            )
        except self._errors as error:
            raise VideoCorrupt("the video is cut off or damaged") from error
        self._stream = self._choose_stream()
        stated, base = self._stream.duration, self._stream.time_base
        self._stated = float(stated * base) if stated and base else (self._container.duration or 0) / MICROSECONDS
        self._faults = 0
        self._last = 0.0  # seconds of the last packet
        self._size = (0, 0)
        self._ended_by: str | None = None
        self._origin: float | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def _choose_stream(self) -> VideoStream:
        from av.stream import Disposition

        streams = [one for one in self._container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            self._container.close()
            raise UnsupportedMediaType(NO_PICTURES)
        stream = streams[0]
        context = stream.codec_context
        if context is None or context.name not in DECODERS:
            name = context.name if context is not None else "an unknown one"
            self._container.close()
            raise UnsupportedMediaType(f"no decoder is allowed for the pictures of this video ({name})")
        check_frame_size(context.width, context.height, self._pictures)
        is_big = context.width * context.height > BIG_FRAME
        context.thread_count = 1 if is_big else 2
        context.thread_type = "SLICE" if is_big else "FRAME"
        context.options = {"max_pixels": str(self._pictures.max_pixels)}
        context.skip_frame = "NONREF"
        return stream

    @property
    def pixel_ratio(self) -> float:
        """The width of a pixel by its height."""
        ratio = self._stream.codec_context.sample_aspect_ratio
        return float(ratio) if ratio and 0.25 <= ratio <= 4 else 1.0

    def read(self) -> Iterator[tuple[VideoFrame, float]]:
        """Some of the frames, in the order of their times."""
        last = -math.inf
        for packet in self._choose_packets():
            for frame in self._decode(packet):
                seconds = self._time_of(frame.pts)
                if seconds is None or seconds < last or seconds > MAX_SECONDS:
                    continue
                last = seconds
                check_frame_size(frame.width, frame.height, self._pictures)
                yield frame, seconds

    def _time_of(self, pts: int | None) -> float | None:
        base = self._stream.time_base
        if pts is None or base is None:
            return None
        seconds = float(pts * base)
        if self._origin is None:
            start = self._stream.start_time
            self._origin = seconds if start is None else float(start * base)
        return max(0.0, seconds - self._origin)

    def _decode(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except self._errors:
            self._faults += 1
            return []

    def _demux(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except MemoryError:
                raise
            except self._errors:
                self._faults += 1
                self._ended_by = "damage"
                return
            if packet.size == 0:  # the mark of the end
                return
            seconds = self._time_of(packet.pts if packet.pts is not None else packet.dts)
            if seconds is not None:
                self._last = max(self._last, seconds)
            self._schedule.update(packet.pos, self._last)
            if self._schedule.is_over:
                self._ended_by = "time"
                return
            yield packet

    def _choose_packets(self) -> Iterator[Packet[Any] | None]:
        """What is given to the decoder: of each group of pictures all packets, the keyframe alone, or nothing.

        A group is decoded whole if it lasts long; that is known once it has lasted DENSE_SECONDS, and until then its
        packets wait.
        """
        waiting: list[Packet[Any]] = []
        begins = 0.0
        is_whole, is_first = False, True
        for packet in self._demux():
            if packet.is_keyframe:
                yield from waiting[:1]
                waiting, begins, is_whole = [], self._last, False
                if is_first or not self._schedule.is_far_behind:
                    waiting.append(packet)
                is_first = False
            elif is_whole:
                yield packet
            elif waiting:
                waiting.append(packet)
                if self._last - begins > DENSE_SECONDS and not self._schedule.is_behind:
                    yield from waiting
                    waiting, is_whole = [], True
                elif self._schedule.is_behind:
                    yield waiting[0]
                    waiting = []
        yield from waiting
        yield None

    def why_nothing(self) -> SightlineError:
        """The error for a video of which no frame came."""
        if self._ended_by == "time":
            return VideoCorrupt("no frame of the video could be decoded in time (SIGHTLINE_VIDEO_SECONDS)")
        return VideoCorrupt(NO_FRAMES if not self._faults else f"{NO_FRAMES}: it is cut off or damaged")

    def describe(self, size: tuple[int, int]) -> VideoInfo:
        """`size` is that of an upright frame."""
        taken_at, offset = read_taken_at({**self._stream.metadata, **self._container.metadata})
        codec = self._stream.codec_context.name.removeprefix("lib").removesuffix("-vp9").replace("dav1d", "av1")
        return VideoInfo(self._header.format, codec, *size, round(self._last * 1000), taken_at, offset)

    def list_warnings(self, name: str) -> Iterator[tuple[str, str]]:
        """Code and sentence of each warning."""
        until = format_time(self._last)
        if self._ended_by == "time":
            yield (
                "video_cut",
                f"{name} was read until {until} only: it takes longer than SIGHTLINE_VIDEO_SECONDS allows",
            )
        elif self._ended_by == "damage":
            yield "video_cut", f"{name} is damaged or cut off; it was read until {until}"
        elif self._stated - self._last > ENDS_EARLY:
            yield "video_cut", f"{name} ends at {until}, although it states {format_time(self._stated)}"
        elif self._faults:
            yield "video_damaged", f"{name} is damaged: {self._faults:,} parts of it could not be decoded"


def _refuse_to_open(url: str, flags: int, options: dict[str, Any]) -> IO[bytes]:
    raise PermissionError("a video opens no other file")


def read_taken_at(metadata: dict[str, str]) -> tuple[str | None, int | None]:
    """The time at which a video begins, by its own metadata: wall time, and its minutes east of UTC."""
    for name in ("com.apple.quicktime.creationdate", "creation_time", "DATE_RECORDED", "DateTimeOriginal"):
        try:
            moment = datetime.fromisoformat(metadata.get(name, "").strip().replace("Z", "+00:00"))
        except ValueError:
            continue
        if moment.year not in YEARS:
            continue
        offset = moment.utcoffset()
        minutes = None if offset is None else round(offset.total_seconds() / 60)
        return moment.replace(tzinfo=None).isoformat(timespec="milliseconds"), minutes
    return None, None


@dataclass(slots=True)
class _Chosen:
    """A frame that became a picture."""

    file: str
    seconds: float
    change: float  # from the one before
    is_sudden: bool  # it changed within a moment


@dataclass(slots=True)
class _Frames:
    """Chooses frames and writes them: the first, and each that differs from the one before it that was chosen."""

    folder: Path
    digest: str
    max_frames: int
    max_rate: float
    renderer: Renderer
    chosen: list[_Chosen] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    _count: int = 0
    _looked: float = -math.inf
    _usual: float = 0.0  # change between two looks
    _last_look: Small | None = None
    _last_chosen: Small | None = None

    def offer(self, frame: VideoFrame, seconds: float) -> None:
        """Make a picture of a frame if it shows something else than the last picture."""
        waited = seconds - self.chosen[-1].seconds if self.chosen else math.inf
        is_due = waited >= self._least_gap(seconds)
        if self._last_look is None or self._last_chosen is None:
            self._last_look = small = self.renderer.shrink(frame)
            self._looked = seconds
            self._choose(frame, seconds, small, math.inf, is_sudden=True)
            return
        is_look = seconds - self._looked >= LOOK_SECONDS
        if not (is_look or is_due):
            return
        small = self.renderer.shrink(frame)
        threshold = min(max(LEAST_CHANGE, CALM * self._usual), MOST_CHANGE)
        step = measure_change(self._last_look, small)
        if is_look:
            self._usual += 0.1 * (min(step, MOST_CHANGE) - self._usual)
            self._last_look, self._looked = small, seconds
        is_sudden = step >= threshold
        change = measure_change(self._last_chosen, small)
        if is_due and (change >= threshold or (change >= LEAST_CHANGE and waited >= PATIENT_SECONDS)):
            self._choose(frame, seconds, small, change, is_sudden=is_sudden)
        elif is_sudden and not is_due and not self.chosen[-1].is_sudden:
            self._drop(len(self.chosen) - 1)  # it came of slow change, and stands in the way of this one
            self._choose(frame, seconds, small, change, is_sudden=True)

    def _least_gap(self, seconds: float) -> float:
        """Seconds between two pictures; more once there are as many as allowed, each of which then ousts another."""
        gap = 1.0 / self.max_rate
        return gap if len(self.chosen) < self.max_frames else max(gap, seconds / (2 * self.max_frames))

    def _choose(self, frame: VideoFrame, seconds: float, small: Small, change: float, *, is_sudden: bool) -> None:
        self._count += 1
        one = _Chosen(f"{self._count:06d}", seconds, change, is_sudden)
        self.size = self.size if self.chosen else self.renderer.upright_size(frame)
        image = self.renderer.render(frame)
        # The comment makes the bytes of each frame of each video its own: deleting one video must not take another's.
        comment = f"Sightline: video {self.digest}, {round(seconds * 1000)} ms".encode()
        with open(self.folder / one.file, "xb") as file:
            image.save(file, "JPEG", quality=JPEG_QUALITY, comment=comment)
        self.chosen.append(one)
        self._last_chosen = small
        if len(self.chosen) > self.max_frames:
            self._drop_least()

    def _drop_least(self) -> None:
        """Drop the picture that is missed least: it differs little from the one before, and has others close to it."""
        times = [one.seconds for one in self.chosen]
        worth = [
            self.chosen[n].change
            * ((times[n + 1] if n + 1 < len(times) else 2 * times[n] - times[n - 1]) - times[n - 1])
            for n in range(1, len(times))
        ]
        if not worth:
            return
        self._drop(1 + int(np.argmin(worth)))

    def _drop(self, n: int) -> None:
        dropped = self.chosen.pop(n)
        (self.folder / dropped.file).unlink()

    def discard(self) -> None:
        """Remove what was written."""
        for one in self.chosen:
            (self.folder / one.file).unlink(missing_ok=True)


def measure_change(one: Small, other: Small) -> float:
    """How much two small pictures differ, of 255: in all, or where they differ most, as an object does that appears."""
    differences = np.abs(one - other).mean(axis=2).ravel()
    count = max(1, round(STRONGEST * differences.size))
    strongest = np.partition(differences, -count)[-count:].mean()
    return float(max(differences.mean(), STRONGEST_SHARE * strongest))


class Renderer:
    """Makes pictures of the frames of one video. `ratio` is that of a pixel's width to its height.

    Each reformatter keeps what it has prepared for the colours of the video; for HDR that takes it seconds.
    """

    def __init__(self, ratio: float = 1.0) -> None:
        from av.video.reformatter import VideoReformatter

        self._ratio = ratio
        self._small, self._large = VideoReformatter(), VideoReformatter()

    def shrink(self, frame: VideoFrame) -> Small:
        """What is compared: float32 [height, width, 3] of `SMALL`."""
        width, height = SMALL
        small = self._small.reformat(frame, width, height, format="rgb24", interpolation="BILINEAR")
        return small.to_ndarray().astype(np.float32)

    def render(self, frame: VideoFrame) -> Image.Image:
        """A frame as a picture: upright, with square pixels, in sRGB, at most FRAME_SIDE pixels a side."""
        width, height = self._measure(frame)
        scale = min(1.0, FRAME_SIDE / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        options: dict[str, Any] = {"interpolation": "BICUBIC"}
        if frame.color_trc in (PQ, HLG):
            options |= {"dst_color_trc": BT709, "dst_color_primaries": BT709}
        elif frame.colorspace == UNSPECIFIED and frame.height >= HD:
            options |= {"src_colorspace": BT709}
        pixels = self._large.reformat(frame, *size, format="rgb24", **options).to_ndarray()
        return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, count_turns(frame))))

    def upright_size(self, frame: VideoFrame) -> tuple[int, int]:
        """The size of the whole frame, upright and with square pixels."""
        width, height = (round(one) for one in self._measure(frame))
        return (height, width) if count_turns(frame) % 2 else (width, height)

    def _measure(self, frame: VideoFrame) -> tuple[float, float]:
        ratio = self._ratio
        return (frame.width * ratio, frame.height) if ratio >= 1 else (frame.width, frame.height / ratio)


def count_turns(frame: VideoFrame) -> int:
    """How often a frame is turned to the left by 90 degrees to stand upright."""
    return round(frame.rotation / 90) % 4
