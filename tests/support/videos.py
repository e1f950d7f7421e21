"""Make videos by code. What they show at a time is known: one colour after the other, or an object on a ground."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # [height, width, 3] in sRGB

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 60, 200),
    "yellow": (230, 210, 40),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
}
CONTAINERS = {"mp4": "mp4", "mov": "mov", "webm": "webm", "mkv": "matroska"}
CODECS = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx", "mkv": "libx264"}
FAST = {"libx264": {"preset": "ultrafast", "x264-params": "threads=1"}, "libvpx": {"deadline": "realtime"}}


def paint(colour: str, size: tuple[int, int] = (96, 64)) -> Frame:
    """A frame of one colour; `size` is width and height."""
    return np.broadcast_to(np.array(COLOURS[colour], np.uint8), (size[1], size[0], 3)).copy()


def iter_scenes(scenes: Sequence[tuple[str, float]], rate: int, size: tuple[int, int]) -> Iterator[Frame]:
    """Frames that show one colour after the other, each for so many seconds."""
    for colour, seconds in scenes:
        frame = paint(colour, size)
        for _ in range(round(seconds * rate)):
            yield frame


def make_video(
    scenes: Sequence[tuple[str, float]] = (("red", 2.0), ("blue", 2.0)),
    container: str = "mp4",
    *,
    size: tuple[int, int] = (96, 64),
    rate: int = 10,
    **options: Any,
) -> bytes:
    """The bytes of a video of these scenes; `options` as in `encode`."""
    return encode(iter_scenes(scenes, rate, size), container, size=size, rate=rate, **options)


def encode(
    frames: Iterable[Frame],
    container: str = "mp4",
    *,
    size: tuple[int, int],
    rate: int,
    codec: str | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    extra_streams: int = 0,
    sound: bool = False,
    times: Callable[[int], int] = lambda n: n,
) -> bytes:
    """The bytes of a video of these frames. `times` gives the time of frame n, in frames."""
    out = io.BytesIO()
    codec = codec or CODECS[container]
    with av.open(out, "w", format=CONTAINERS[container]) as video:
        video.metadata.update(metadata or {})
        streams = []
        for _ in range(1 + extra_streams):
            stream: Any = video.add_stream(codec, rate=rate, options={**FAST.get(codec, {}), **(options or {})})
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.time_base = Fraction(1, rate)
            streams.append(stream)
        audio: Any = (
            video.add_stream("aac" if container in ("mp4", "mov") else "libopus", rate=48_000) if sound else None
        )
        for n, pixels in enumerate(frames):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = times(n), Fraction(1, rate)
                video.mux(stream.encode(frame))
        if audio is not None:
            add_noise(video, audio)
        for stream in streams:
            video.mux(stream.encode(None))
    return out.getvalue()


def add_noise(video: Any, audio: Any) -> None:
    """A little silence."""
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1024), np.int16), format="s16", layout="stereo")
    silence.sample_rate, silence.pts = 48_000, 0
    video.mux(audio.encode(silence))
    video.mux(audio.encode(None))


def make_sound() -> bytes:
    """The bytes of an MP4 file that holds sound alone."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as video:
        add_noise(video, video.add_stream("aac", rate=48_000))
    return out.getvalue()


def find_boxes(video: bytes, name: bytes) -> list[int]:
    """Where boxes of this name begin in an MP4 file."""
    found, at = [], video.find(name)
    while at >= 0:
        found.append(at - 4)
        at = video.find(name, at + 4)
    return found


def turn(video: bytes, degrees: int) -> bytes:
    """The MP4 file with a display matrix that turns its pictures clockwise."""
    turns = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (one << 16 for one in turns)
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    at = find_boxes(video, b"tkhd")[0] + 8 + 40
    return video[:at] + matrix + video[at + 36 :]


def set_size(video: bytes, width: int, height: int) -> bytes:
    """The MP4 file whose sample description states another size."""
    at = find_boxes(video, b"stsd")[0] + 16 + 32
    return video[:at] + struct.pack(">HH", width, height) + video[at + 4 :]


def mark_encrypted(video: bytes) -> bytes:
    """The MP4 file as one under Common Encryption describes its pictures."""
    return video.replace(b"avc1\0\0\0\0", b"encv\0\0\0\0")


def set_duration(video: bytes, seconds: int) -> bytes:
    """The MP4 file that states this duration everywhere, in the scales of its headers."""
    data = bytearray(video)
    for name, scale_at, duration_at in ((b"mvhd", 20, 24), (b"mdhd", 20, 24)):
        for at in find_boxes(video, name):
            (scale,) = struct.unpack_from(">I", data, at + scale_at)
            struct.pack_into(">I", data, at + duration_at, min((1 << 32) - 1, seconds * scale))
    return bytes(data)
