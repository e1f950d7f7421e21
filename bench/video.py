"""Measure videos with the starter model.

python -m bench.video [long|found]...   (without arguments both; the first run draws the videos, a quarter of an hour)

`long` adds one video of ten minutes in 1080p, as H.264 with keyframes every ten seconds, and says how long it took
until a search finds all its frames, and the memory meanwhile. `found` adds 100 videos of 10 seconds, in each of which
drawings of the gallery appear one after the other on a ground that moves, and asks for one of them: by its name and by
the drawing itself, among the frames of its video. The best frame is right if it shows the drawing; and a frame must
have been taken within a second of when the drawing appeared.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.service.demo_gallery import find_gallery
from bench.needs import MIB, list_processes, processor_seconds, proportional_bytes, wait_for_worker
from bench.pictures import make_canvas
from bench.results import Figures, save_figures
from bench.weights import WORK

HOST = "127.0.0.1"
FOLDER = WORK / "videos"
HD, SMALL = (1920, 1080), (360, 360)
LONG_SECONDS, PART_SECONDS, LONG_RATE = 600, 150, 30  # the part is drawn once and repeated
COUNT, SECONDS, RATE = 100, 10, 20
SPEED = 25  # pixels that the ground moves in a second
TOLERANCE_MS = 1_000
SAMPLE_SECONDS = 0.2
Canvas = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing of the gallery of one object, and its name."""

    name: str
    picture: Image.Image
    content: bytes


@dataclass(frozen=True, slots=True)
class Showing:
    """A drawing in a video: from when to when (seconds), where (pixels), how large."""

    drawing: Drawing
    begins: float
    ends: float
    place: tuple[int, int]
    side: int


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Figures]] = {"long": measure_long, "found": measure_found}
    for name in sys.argv[1:] or parts:
        save_figures(f"video-{name}", parts[name]())


def read_drawings() -> list[Drawing]:
    """One drawing for each name."""
    found: dict[str, Drawing] = {}
    with zipfile.ZipFile(find_gallery() / "gallery.zip") as archive:
        for line in io.TextIOWrapper(archive.open("metadata.jsonl"), "utf-8"):
            said = json.loads(line)
            if said["metadata"].get("objects") != 1 or said["metadata"].get("style") != "none":
                continue
            content = archive.read(said["file"])
            picture = Image.open(io.BytesIO(content)).convert("RGB")
            found.setdefault(said["tags"][0], Drawing(said["tags"][0], picture, content))
    return list(found.values())


def plan_video(
    rng: np.random.Generator, drawings: list[Drawing], seconds: float, size: tuple[int, int]
) -> list[Showing]:
    """Drawings one after the other, with pauses; the first appears after two seconds or more."""
    showings: list[Showing] = []
    now = float(rng.uniform(2, 4))
    while now < seconds - 2:
        side = int(size[1] * rng.uniform(0.7, 1.0))
        edge = (size[0] - size[1]) // 2  # in the middle, whatever the shape of the frames
        place = edge + int(rng.integers(size[1] - side + 1)), int(rng.integers(size[1] - side + 1))
        drawing = drawings[int(rng.integers(len(drawings)))]
        if all(drawing.name != one.drawing.name for one in showings):
            lasts = float(rng.uniform(1.5, 2.5))
            showings.append(Showing(drawing, now, min(now + lasts, seconds), place, side))
            now += lasts + float(rng.uniform(0.5, 2.5))
    return showings


def draw_gradient(rng: np.random.Generator) -> Canvas:
    """A ground that goes from one colour to others, from left to right."""
    colours = rng.uniform(30, 225, (4, 3))
    across = np.linspace(0, 3, 2 * SMALL[0])
    row = np.stack([np.interp(across, range(4), colours[:, channel]) for channel in range(3)], axis=-1)
    return np.broadcast_to(row.astype(np.uint8), (SMALL[1] + 1, *row.shape)).copy()


def draw_frames(
    rng: np.random.Generator, canvas: Canvas, showings: list[Showing], seconds: float, rate: int, size: tuple[int, int]
) -> Iterator[Canvas]:
    """A ground that moves, with the grain of a sensor, and the drawings in front of it."""
    width, height = size
    across = int(seconds * SPEED) + width
    left, top = int(rng.integers(canvas.shape[1] - across)), int(rng.integers(canvas.shape[0] - height))
    ground = canvas[top : top + height, left : left + across]
    grain = [rng.integers(-3, 4, (height, width, 1), np.int16) for _ in range(8)]
    scaled = {one.begins: np.asarray(one.drawing.picture.resize((one.side, one.side))) for one in showings}
    for n in range(round(seconds * rate)):
        at = n * SPEED // rate
        frame = np.clip(ground[:, at : at + width] + grain[n % 8], 0, 255).astype(np.uint8)
        for one in showings:
            if one.begins <= n / rate < one.ends:
                x, y = one.place
                frame[y : y + one.side, x : x + one.side] = scaled[one.begins]
        yield frame


def write_video(path: Path, frames: Iterator[Canvas], rate: int, size: tuple[int, int], preset: str) -> None:
    """H.264 as x264 makes it by default, but fast."""
    draft = path.with_suffix(".draft")
    with av.open(str(draft), "w", format="mp4") as video:
        stream: Any = video.add_stream("libx264", rate=rate, options={"preset": preset})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for n, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, rate)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    draft.rename(path)


def repeat_video(source: Path, target: Path, times: int) -> None:
    """The same packets again and again, each time later: a decoder has as much to do with them as with others."""
    draft = target.with_suffix(".draft")
    with av.open(str(draft), "w", format="mp4") as out:
        copied: Any = None
        for n in range(times):
            with av.open(str(source)) as video:
                stream = video.streams.video[0]
                copied = copied or out.add_stream_from_template(stream)
                assert stream.duration is not None
                for packet in video.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        packet.dts, packet.pts = packet.dts + n * stream.duration, packet.pts + n * stream.duration
                        packet.stream = copied
                        out.mux(packet)
    draft.rename(target)


def make_long_video() -> Path:
    """Ten minutes in 1080p."""
    path, part = FOLDER / "long.mp4", FOLDER / "part.mp4"
    if not path.exists():
        if not part.exists():
            rng = np.random.default_rng(7)
            showings = plan_video(rng, read_drawings(), PART_SECONDS, HD)
            canvas = np.concatenate([make_canvas(rng), make_canvas(rng)], axis=1)
            write_video(
                part, draw_frames(rng, canvas, showings, PART_SECONDS, LONG_RATE, HD), LONG_RATE, HD, "veryfast"
            )
        repeat_video(part, path, LONG_SECONDS // PART_SECONDS)
    return path


def make_short_videos() -> list[tuple[Path, Showing]]:
    """The videos, each with the drawing that is asked for."""
    drawings, made = read_drawings(), []
    for number in range(COUNT):
        rng = np.random.default_rng((11, number))
        path = FOLDER / f"square-{number:03}.mp4"
        showings = plan_video(rng, drawings, SECONDS, SMALL)
        if not path.exists():
            write_video(
                path, draw_frames(rng, draw_gradient(rng), showings, SECONDS, RATE, SMALL), RATE, SMALL, "ultrafast"
            )
        made.append((path, showings[number % len(showings)]))
    return made


@contextmanager
def start_server() -> Iterator[tuple[int, Client]]:
    """A server with the starter model whose worker is ready."""
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port(HOST, 0)
        with run_server(Path(scratch), HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
            wait_until_ready(client, process)
            wait_for_worker(process.pid)
            yield process.pid, client


def add_videos(client: Client, paths: list[Path]) -> dict[str, Any]:
    """Add videos as one job, and wait for its end."""
    job = client.upload_bulk([(path.name, path) for path in paths])
    while (job := client.job(job["id"]))["state"] in ("queued", "running"):
        time.sleep(0.1)
    return job


def measure_long() -> Figures:
    path = make_long_video()
    with start_server() as (pid, client):
        peaks = {"all": 0, "child": 0}
        rest = sum(proportional_bytes(one) for one, _ in list_processes(pid))
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_SECONDS):
                sizes = [(part, proportional_bytes(one)) for one, part in list_processes(pid)]
                peaks["all"] = max(peaks["all"], sum(size for _, size in sizes))
                peaks["child"] = max(peaks["child"], *(size for part, size in sizes if part.startswith("children")))

        watcher = threading.Thread(target=watch)
        before, began = processor_seconds(pid), time.monotonic()
        watcher.start()
        job = add_videos(client, [path])
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
        return {
            "seconds of the video": LONG_SECONDS,
            "MiB of the file": path.stat().st_size / MIB,
            "seconds until a search finds all frames": seconds,
            "seconds of processor time": processor_seconds(pid) - before,
            "frames": job["done"],
            "failed": job["failed"],
            "MiB of the decode child, at most (PSS)": peaks["child"] / MIB,
            "MiB of all processes at rest (PSS)": rest / MIB,
            "MiB of all processes, at most (PSS)": peaks["all"] / MIB,
        }


def measure_found() -> Figures:
    made = make_short_videos()
    with start_server() as (_, client):
        began = time.monotonic()
        job = add_videos(client, [path for path, _ in made])
        seconds = time.monotonic() - began
        counts = {"chosen": 0, "name": 0, "drawing": 0}  # of videos
        with httpx.Client(base_url=client.server, trust_env=False, timeout=60) as http:
            videos = {one["source"]: one["id"] for one in http.get("/v1/videos?limit=1000").json()["videos"]}
            for path, showing in made:
                within = {"must": [{"key": "video_id", "match": {"value": videos[path.name]}}]}
                listed = http.get("/v1/images", params={"filter": json.dumps(within), "limit": 1000}).json()["images"]
                counts["chosen"] += any(is_soon(showing, one["t_ms"]) for one in listed)
                body = {"query": [{"text": showing.drawing.name}], "filter": within, "k": 1}
                counts["name"] += find_best(http.post("/v1/search", json=body), showing)
                form = {"k": "1", "filter": json.dumps(within)}
                files = {"file": ("drawing.webp", showing.drawing.content)}
                counts["drawing"] += find_best(http.post("/v1/search/image", data=form, files=files), showing)
    return {
        "videos": len(made),
        "frames": job["done"],
        "seconds until a search finds all frames": seconds,
        "videos with a frame of the drawing within a second": counts["chosen"],
        "the best frame for its name is right": counts["name"],
        "the best frame for the drawing is right": counts["drawing"],
    }


def is_soon(showing: Showing, t_ms: int) -> bool:
    """Whether a frame shows the drawing, and is within a second of when it appeared."""
    begins = showing.begins * 1000
    return begins <= t_ms <= begins + TOLERANCE_MS


def find_best(response: httpx.Response, showing: Showing) -> bool:
    """Whether the best hit shows the drawing: it is visible for up to two seconds and a half."""
    hits = response.raise_for_status().json()["hits"]
    return bool(hits) and showing.begins * 1000 <= hits[0]["image"]["t_ms"] <= showing.ends * 1000


if __name__ == "__main__":
    main()
