"""Videos in a decode child: which frames become pictures, what they look like, and what hostile files do."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import struct
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from app.core.clock import format_time
from app.core.errors import ImageTooLarge, Rejected, SightlineError, UnsupportedMediaType, VideoCorrupt
from app.decode import video, video_header
from app.decode.limits import MIB, PictureLimits, VideoLimits
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFolder
from app.decode.video import expand_video, measure_change, read_taken_at
from app.decode.video_header import VIDEO_HEAD, detect_video
from tests.support.videos import (
    COLOURS,
    encode,
    make_sound,
    make_video,
    mark_encrypted,
    paint,
    set_duration,
    set_size,
    turn,
)

DIGEST = "d" * 64
SCENES = (("red", 2.0), ("blue", 2.0), ("green", 2.0))
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def clip() -> bytes:
    return make_video(SCENES)


def expand(
    folder: Path, content: bytes, limits: VideoLimits | None = None, pictures: PictureLimits | None = None
) -> Lines:
    """The lines of the manifest of a video."""
    path, out = folder / "video", folder / "out"
    folder.mkdir(exist_ok=True)
    path.write_bytes(content)
    expand_video(path, out, "clip", DIGEST, limits or VideoLimits(), pictures or PictureLimits())
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def times(lines: Lines) -> list[int]:
    return [line["t_ms"] for line in lines]


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/video.json").read_text())
    return found


def warnings(folder: Path) -> list[str]:
    path = folder / "out/left_out.json"
    return [one["detail"] for one in json.loads(path.read_text())["warnings"]] if path.exists() else []


def colour(path: Path, at: tuple[int, int] = (10, 10)) -> str:
    """The colour of the palette that a picture has at a place."""
    with Image.open(path) as image:
        pixel = np.array(image.convert("RGB").getpixel(at), int)
    return min(COLOURS, key=lambda name: int(np.abs(np.array(COLOURS[name]) - pixel).sum()))


@pytest.mark.parametrize("container", ["mp4", "mov", "webm", "mkv"])
def test_each_scene_of_a_video_becomes_a_picture(tmp_path: Path, container: str) -> None:
    lines = expand(tmp_path, make_video(SCENES, container))
    assert [line["file"] for line in lines] == ["000001", "000002", "000003"]
    assert [colour(tmp_path / "out" / line["file"]) for line in lines] == ["red", "blue", "green"]
    assert [abs(t - at) <= 300 for t, at in zip(times(lines), (0, 2000, 4000), strict=True)] == [True] * 3
    assert {line["video_id"] for line in lines} == {DIGEST}
    assert info(tmp_path)["format"] == container
    assert info(tmp_path)["duration_ms"] == 5900


def test_a_video_without_changes_is_one_picture(tmp_path: Path) -> None:
    assert times(expand(tmp_path, make_video((("red", 30.0),)))) == [0]


def test_pictures_are_a_second_apart_and_no_more_than_allowed(tmp_path: Path) -> None:
    flicker = make_video((("red", 0.4), ("blue", 0.4), ("green", 0.4)) * 20)
    steps = np.diff(times(expand(tmp_path, flicker)))
    assert len(steps) >= 10
    assert min(steps) >= 1000
    few = expand(tmp_path / "few", flicker, VideoLimits(max_frames=5))
    assert len(few) == 5
    assert times(few)[0] == 0
    assert max(times(few)) > 12_000  # they are spread over all of it
    assert {path.name for path in (tmp_path / "few/out").glob("0*")} == {line["file"] for line in few}
    assert len(expand(tmp_path / "rate", flicker, VideoLimits(max_rate=0.2))) <= 5


def test_an_object_of_a_tenth_of_the_height_is_a_change(tmp_path: Path) -> None:
    ground = np.broadcast_to(np.linspace(60, 120, 320, dtype=np.uint8)[None, :, None], (180, 320, 3)).copy()
    seen = ground.copy()
    seen[100:136, 200:236] = COLOURS["yellow"]
    content = encode((ground if n < 35 else seen for n in range(60)), size=(320, 180), rate=10)
    first, second = times(expand(tmp_path, content))
    assert first == 0
    assert 3500 <= second <= 4000


def test_noise_is_no_change() -> None:
    rng = np.random.default_rng(1)
    ground = rng.uniform(0, 255, (36, 64, 3)).astype(np.float32)
    assert measure_change(ground, ground + rng.normal(0, 2, ground.shape).astype(np.float32)) < video.LEAST_CHANGE
    assert measure_change(ground, ground[::-1]) > video.MOST_CHANGE


def test_dense_keyframes_are_read_alone_and_thin_ones_with_what_lies_between(tmp_path: Path) -> None:
    dense = make_video(SCENES, options={"g": "5", "sc_threshold": "0"})
    thin = make_video((*SCENES, ("red", 4.0)), options={"x264-params": "threads=1:keyint=infinite:scenecut=0"})
    assert times(expand(tmp_path / "dense", dense)) == [0, 2000, 4000]
    assert len(expand(tmp_path / "thin", thin)) == 4


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_video_stands_upright(tmp_path: Path, degrees: int) -> None:
    halves = np.concatenate([paint("red", (48, 64)), paint("blue", (48, 64))], axis=1)
    expand(tmp_path, turn(encode([halves] * 10, size=(96, 64), rate=10), degrees))
    width, height = (64, 96) if degrees % 180 else (96, 64)
    corners = [(5, 5), (width - 5, 5), (width - 5, height - 5), (5, height - 5)]
    found = [colour(tmp_path / "out/000001", corner) for corner in corners]
    colours = ["red", "blue", "blue", "red"]
    turns = degrees // 90
    assert found == colours[-turns:] + colours[:-turns] if turns else colours
    assert (info(tmp_path)["width"], info(tmp_path)["height"]) == (width, height)


def test_frames_are_small_jpegs_whose_bytes_name_their_video(tmp_path: Path) -> None:
    expand(tmp_path, make_video((("red", 1.0),), size=(1920, 1080)))
    with Image.open(tmp_path / "out/000001") as image:
        assert (image.format, image.size) == ("JPEG", (1280, 720))
        assert image.info["comment"] == f"Sightline: video {DIGEST}, 0 ms".encode()
    assert (info(tmp_path)["width"], info(tmp_path)["height"]) == (1920, 1080)


def test_wide_pixels_and_ten_bits_are_right(tmp_path: Path) -> None:
    expand(
        tmp_path, make_video((("yellow", 1.0),), pix_fmt="yuv420p10le", options={"x264-params": "sar=2/1:threads=1"})
    )
    with Image.open(tmp_path / "out/000001") as image:
        assert image.size == (192, 64)
    assert colour(tmp_path / "out/000001") == "yellow"


def encode_hdr(light: float) -> bytes:
    """A video of one grey in BT.2020 with the transfer of ST 2084, by its code from 0 to 1."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as made:
        stream: Any = made.add_stream("libx264", rate=10, options={"preset": "ultrafast", "x264-params": "threads=1"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p10le"
        for name, value in (("color_trc", 16), ("color_primaries", 9), ("colorspace", 9)):
            setattr(stream.codec_context, name, value)
        for pts in range(3):
            frame = av.VideoFrame(128, 64, "yuv420p10le")
            for n, plane in enumerate(frame.planes):
                level = 512 if n else round(64 + 876 * light)
                plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
            frame.pts = pts
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = 16, 9, 9, 1
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return out.getvalue()


def test_hdr_white_is_white(tmp_path: Path) -> None:
    expand(tmp_path, encode_hdr(0.58))  # 203 candela: the white of paper in HDR
    assert colour(tmp_path / "out/000001") == "white"


def test_a_variable_rate_keeps_the_times_of_the_file(tmp_path: Path) -> None:
    content = make_video((("red", 3.0), ("blue", 3.0)), times=lambda n: n * n // 3 + n)
    assert times(expand(tmp_path, content)) == [0, 33_000]


def test_a_video_of_ten_hours_is_read(tmp_path: Path) -> None:
    lines = expand(tmp_path, make_video(SCENES, times=lambda n: n * 6_000))
    assert times(lines)[-1] == 24_000_000
    assert lines[-1]["name"] == "clip 6:40:00"


@pytest.mark.parametrize("seconds", [0, 36_000])
def test_a_duration_that_lies_changes_nothing(tmp_path: Path, clip: bytes, seconds: int) -> None:
    assert len(expand(tmp_path, set_duration(clip, seconds))) == 3
    assert info(tmp_path)["duration_ms"] == 5900


def test_forty_streams_and_sound_leave_the_first_pictures(tmp_path: Path) -> None:
    assert len(expand(tmp_path / "many", make_video(extra_streams=39))) == 2
    assert len(expand(tmp_path / "sound", make_video(sound=True))) == 2


def test_the_time_of_a_video_is_that_of_its_frames(tmp_path: Path) -> None:
    lines = expand(tmp_path, make_video(metadata={"creation_time": "2023-07-04T10:00:00Z"}))
    assert [(line["taken_at"][:19], line["taken_offset"]) for line in lines] == [
        ("2023-07-04T10:00:00", 0),
        ("2023-07-04T10:00:02", 0),
    ]
    apple = {"com.apple.quicktime.creationdate": "2023-07-04T12:00:00+0200", "creation_time": "2023-07-04T10:00:00Z"}
    assert read_taken_at(apple) == ("2023-07-04T12:00:00.000", 120)
    assert read_taken_at({"creation_time": "1904-01-01T00:00:00Z"}) == (None, None)
    assert read_taken_at({"creation_time": "9999-12-31T23:59:59Z"}) == (None, None)
    assert read_taken_at({"creation_time": "yesterday"}) == (None, None)


def test_a_video_at_the_end_of_the_calendar_has_frames_without_a_time(tmp_path: Path) -> None:
    assert len(expand(tmp_path, make_video(metadata={"creation_time": "2199-12-31T23:59:59Z"}))) == 2


def test_times_for_people() -> None:
    assert [format_time(t) for t in (0, 7.9, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]


def test_a_matroska_file_that_is_cut_off_is_read_to_there(tmp_path: Path) -> None:
    whole = make_video((("red", 8.0), ("blue", 8.0), ("green", 8.0)), "mkv")
    assert len(expand(tmp_path, whole[: len(whole) // 2])) < 3
    assert any("states 0:24" in one or "cut off" in one for one in warnings(tmp_path))


def refuse(folder: Path, content: bytes, kind: type[Rejected], words: str, **limits: Any) -> None:
    with pytest.raises(kind, match=words):
        expand(folder, content, **limits)
    assert not list((folder / "out").glob("*"))


def test_what_is_no_video_or_is_not_accepted_is_refused_with_the_reason(tmp_path: Path, clip: bytes) -> None:
    empty = make_video(container="mkv")
    refuse(tmp_path, b"", UnsupportedMediaType, "no video|not a video")
    refuse(tmp_path, clip[: len(clip) // 2], VideoCorrupt, "cut off")
    refuse(tmp_path, mark_encrypted(clip), UnsupportedMediaType, "encrypted")
    refuse(tmp_path, set_size(clip, 65_535, 65_535), ImageTooLarge, "SIGHTLINE_MAX_IMAGE_SIDE")
    refuse(tmp_path, set_size(clip, 16_000, 16_000), ImageTooLarge, "SIGHTLINE_MAX_IMAGE_PIXELS")
    refuse(tmp_path, set_size(clip, 0, 0), VideoCorrupt, "no width")
    refuse(tmp_path, empty[: empty.index(b"\x1f\x43\xb6\x75")], VideoCorrupt, "describe|no frame|cut off")
    refuse(tmp_path, make_sound(), UnsupportedMediaType, "only sound")
    refuse(tmp_path, clip, ImageTooLarge, "SIGHTLINE_MAX_VIDEO_BYTES", limits=VideoLimits(max_bytes=100))
    refuse(tmp_path, clip, UnsupportedMediaType, "SIGHTLINE_VIDEO", limits=VideoLimits(refusal=video.SWITCHED_OFF))
    refuse(tmp_path, clip, VideoCorrupt, "SIGHTLINE_VIDEO_SECONDS", limits=VideoLimits(seconds=-10.0))


def test_the_size_that_counts_is_that_of_the_stream(tmp_path: Path) -> None:
    """The header states 96 × 64; the pictures have more pixels than allowed."""
    content = set_size(make_video((("red", 1.0),), size=(640, 360)), 96, 64)
    with pytest.raises((VideoCorrupt, ImageTooLarge)):
        expand(tmp_path, content, pictures=PictureLimits(max_pixels=10_000))


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>",
        b"\x00\x00\x00\x18ftypisom\0\0\0\0isommp42" + b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    ],
)
def test_a_playlist_is_no_video_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises((UnsupportedMediaType, VideoCorrupt)):
        expand(tmp_path, content)


def test_a_track_in_another_file_is_not_opened(tmp_path: Path, clip: bytes) -> None:
    """A data reference (`url `) without the flag that says "in this file", with the path of a file."""
    at = clip.index(b"url \0\0\0\1")
    content = clip[: at + 4] + b"\0\0\0\0" + clip[at + 8 :]
    with pytest.raises(OSError, match="opens no other"):
        video._refuse_to_open("file:/etc/passwd", 1, {})
    assert len(expand(tmp_path, content)) == 3  # FFmpeg takes its own data


def test_without_the_extra_videos_are_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert video.why_refused(is_on=True) is None
    assert video.why_refused(is_on=False) == video.SWITCHED_OFF
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refusal = video.why_refused(is_on=True)
    assert refusal is not None
    assert "pip install 'sightline-search[video]'" in refusal


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "mp4"),
        (b"\0\0\0\x14ftypM4V \0\0\0\0M4V ", "mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "mov"),
        (b"\0\0\0\x08wide\0\0\0\x10mdat", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "webm"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", "mkv"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", None),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf", None),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", None),
        (b"\0\0\0\x14ftypzzzz\0\0\0\0zzzz", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"", None),
    ],
)
def test_the_container_is_told_by_the_first_bytes(head: bytes, found: str | None) -> None:
    assert detect_video(head[:VIDEO_HEAD]) == found


def test_a_header_of_a_million_parts_ends_soon(tmp_path: Path) -> None:
    brand = b"\x00\x00\x00\x14ftypisom\0\0\0\0isom"
    began = time.monotonic()
    refuse(tmp_path, brand + struct.pack(">I4s", 8, b"free") * 300_000, VideoCorrupt, "too many parts")
    refuse(tmp_path, b"\x1a\x45\xdf\xa3\x80" * 300_000, VideoCorrupt, "too many parts|describe")
    assert time.monotonic() - began < 60  # a bound against a hang


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat or overwrite parts."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            data[at : at + 16] = rng.randbytes(16)
        else:
            del data[at : at + rng.randrange(1, 64)]
    return bytes(data)


def run_mutations(pool: DecodePool, folder: Path, originals: list[bytes], count: int, seconds: float) -> dict[str, int]:
    """What became of mutations in decode children, by the name of the error."""
    rng = random.Random(16)
    found: dict[str, int] = {}
    for n in range(count):
        path = folder / f"{n}"
        path.write_bytes(mutate(originals[n % len(originals)], rng))
        limits = VideoLimits(seconds=seconds)
        task = (expand_video, path, OutputFolder(folder / f"{n}.out"), "clip", DIGEST, limits, PictureLimits())
        try:
            pool.submit(*task, seconds=seconds).result()
            outcome = "read"
        except SightlineError as error:
            outcome = type(error).__name__
        found[outcome] = found.get(outcome, 0) + 1
    return found


def test_damaged_videos_end_with_a_reason(tmp_path: Path, pool: DecodePool, clip: bytes) -> None:
    found = run_mutations(pool, tmp_path, [clip, make_video(SCENES, "webm")], 12, 15.0)
    assert sum(found.values()) == 12
    assert set(found) <= {"read", "VideoCorrupt", "UnsupportedMediaType", "ImageTooLarge", "ArchiveCorrupt"}
    assert len(expand(tmp_path, clip)) == 3


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_two_hundred_mutations_of_each_container_end_with_a_reason(tmp_path: Path, pool: DecodePool) -> None:
    for container in ("mp4", "mov", "webm", "mkv"):
        folder = tmp_path / container
        folder.mkdir()
        originals = [make_video(SCENES, container, sound=sound) for sound in (False, True)]
        found = run_mutations(pool, folder, originals, 200, 15.0)
        assert set(found) <= {"read", "VideoCorrupt", "UnsupportedMediaType", "ImageTooLarge", "ArchiveCorrupt"}


def test_a_child_reads_a_video_within_its_memory(tmp_path: Path, pool: DecodePool) -> None:
    content = make_video((("red", 1.0), ("blue", 1.0)), size=(3840, 2160), rate=4)
    path = tmp_path / "large"
    path.write_bytes(content)
    task = (expand_video, path, OutputFolder(tmp_path / "out"), "clip", DIGEST, VideoLimits(), PictureLimits())
    assert pool.submit(*task, seconds=60.0).result() == "manifest.jsonl"
    assert pool.child_limits.memory == 1536 * MIB


def test_a_late_video_is_read_with_more_and_more_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its schedule, keyframes alone are decoded; far behind it, none; and past the end of its time it stops."""
    content = make_video((("red", 4.0), ("blue", 4.0)), options={"g": "40", "sc_threshold": "0"})
    for attribute, least in (("is_behind", 1), ("is_far_behind", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(video._Schedule, "update", lambda self, *_, name=attribute: setattr(self, name, True))
            lines = expand(tmp_path / attribute, content)
        assert least <= len(lines) <= 2
    calls = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr(video._Schedule, "update", lambda self, *_: setattr(self, "is_over", next(calls) > 50))
        expand(tmp_path / "over", content)
    assert any("SIGHTLINE_VIDEO_SECONDS" in one for one in warnings(tmp_path / "over"))


def test_the_header_modules_agree_on_pictures(tmp_path: Path) -> None:
    assert video_header.has_video_suffix("A.MP4")
    assert not video_header.has_video_suffix("a.png")
    assert video_header.is_accepted("a.mkv", None, videos=True)
    assert not video_header.is_accepted("a.mkv", None, videos=False)
