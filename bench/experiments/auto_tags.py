"""Print how good auto-tags are, and what labels and saved searches cost a server that loads pictures.

`python -m bench.experiments.auto_tags [quality|cost]`: the demo gallery and the starter model, over HTTP on the
loopback. The tags of the gallery say what is right. Costs are seconds of the processor, which other work does not
change. For docs/benchmarks.md.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.service.demo_gallery import ARCHIVE, find_gallery
from bench.needs import processor_seconds

HOST = "127.0.0.1"
LABELS = 60  # of the gallery, which are right for at least LEAST pictures
LEAST = 8
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
FEW = 0.02  # the threshold that the table is counted from
ABSENT = (
    *("volcano", "submarine", "windmill", "cathedral", "chandelier"),
    *("escalator", "glacier", "harp", "scaffolding", "waterfall"),
)
ROUNDS = 2
MANY = 1_000
SEARCHES = 100


def main() -> None:
    console, folder = Console(), find_gallery()
    said = read_metadata(folder / ARCHIVE)
    wanted = sys.argv[1:] or ["quality", "cost"]
    with tempfile.TemporaryDirectory() as scratch:
        if "quality" in wanted:
            with open_server(Path(scratch) / "quality") as (http, _):
                console.print(measure_quality(http, folder / ARCHIVE, said))
        if "cost" in wanted:
            with open_server(Path(scratch) / "cost") as (http, pid):
                console.print(measure_cost(http, pid, folder / ARCHIVE, said))


@contextmanager
def open_server(data: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A client of a new server, and the id of the server's process."""
    port = free_port(HOST, 0)
    with run_server(data, HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
        wait_until_ready(client, process)
        with httpx.Client(base_url=client.server, timeout=600, trust_env=False) as http:
            yield http, process.pid


def read_metadata(archive: Path) -> dict[str, dict[str, Any]]:
    with zipfile.ZipFile(archive) as opened, opened.open("metadata.jsonl") as file:
        return {one["id"]: one for one in map(json.loads, io.TextIOWrapper(file, "utf-8"))}


def strip_captions(archive: Path) -> bytes:
    """The same pictures under names and ids alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(archive) as opened, zipfile.ZipFile(out, "w") as written:
        lines = []
        for name in opened.namelist():
            if name == "metadata.jsonl":
                continue
            written.writestr(name, opened.read(name))
            lines.append(json.dumps({"file": name, "id": Path(name).stem}))
        written.writestr("metadata.jsonl", "\n".join(lines))
    return out.getvalue()


def load(http: httpx.Client, collection: str, content: bytes) -> float:
    """Seconds from the upload to all pictures ready."""
    if collection != "default":
        http.post("/v1/collections", json={"name": collection})
    began = time.perf_counter()
    files = [("files", ("gallery.zip", content))]
    job = http.post("/v1/images/bulk", params={"collection": collection}, files=files).raise_for_status().json()
    wait_job(http, job["id"])
    return time.perf_counter() - began


def wait_job(http: httpx.Client, id: str) -> dict[str, Any]:
    while (job := http.get(f"/v1/jobs/{id}").json())["state"] in ("queued", "running"):
        time.sleep(0.05)
    return dict(job)


def set_labels(http: httpx.Client, collection: str, labels: Sequence[str], threshold: float) -> float:
    """Seconds until every picture that is there is tagged."""
    began = time.perf_counter()
    body = {"labels": [{"label": one} for one in labels], "threshold": threshold}
    answer = http.put(f"/v1/collections/{collection}/labels", json=body).raise_for_status().json()
    if answer["job"] is not None:
        wait_job(http, answer["job"])
    return time.perf_counter() - began


def read_tags(http: httpx.Client, collection: str) -> dict[str, dict[str, float]]:
    """The auto-tags of all pictures, by id."""
    found, cursor = {}, None
    while True:
        params: dict[str, str] = {"collection": collection, "limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = http.get("/v1/images", params=params).json()
        for image in page["images"]:
            found[image["id"]] = {one["tag"]: one["probability"] for one in image["auto_tags"]}
        if (cursor := page["next_cursor"]) is None:
            return found


def measure_quality(http: httpx.Client, archive: Path, said: Mapping[str, Mapping[str, Any]]) -> Table:
    """Precision and recall of labels that are the gallery's own tags; and wrong tags of labels that nothing shows."""
    counts = Counter(tag for one in said.values() for tag in one["tags"] if tag.isascii())
    labels = [tag for tag, count in counts.most_common() if count >= LEAST][:LABELS]
    table = Table("gallery", "basis", "threshold", "precision", "recall", "tags a picture", "absent labels, tagged")
    for collection, content in (("default", archive.read_bytes()), ("bare", strip_captions(archive))):
        load(http, collection, content)
        http.get("/v1/search", params={"q": "red", "collection": collection})  # so that the collection is measured
        set_labels(http, collection, [*labels, *ABSENT], FEW)
        found = read_tags(http, collection)
        basis = http.get(f"/v1/collections/{collection}/labels").json()["basis"]
        for threshold in THRESHOLDS:
            given = {(id, tag) for id, tags in found.items() for tag, share in tags.items() if share >= threshold}
            absent = {id for id, tag in given if tag in ABSENT}
            given = {(id, tag) for id, tag in given if tag not in ABSENT}
            right = {(id, tag) for id, one in said.items() for tag in one["tags"] if tag in labels}
            hits = len(given & right)
            table.add_row(
                "with captions" if collection == "default" else "without",
                basis,
                f"{threshold:g}",
                f"{hits / max(1, len(given)):.2f}",
                f"{hits / len(right):.2f}",
                f"{len(given) / len(found):.2f}",
                f"{len(absent) / len(found):.1%}",
            )
    return table


def measure_cost(http: httpx.Client, pid: int, archive: Path, said: Mapping[str, Mapping[str, Any]]) -> Table:
    """Loading in turns: plain, with many labels, and with many saved searches."""
    words = list(dict.fromkeys(one["caption"] for one in said.values()))
    labels = [text[:100] for text in words[:MANY]]
    table = Table("work", "figure")
    content = archive.read_bytes()
    seconds: dict[str, list[float]] = {"plain": [], "labels": [], "searches": []}
    for n in range(ROUNDS):
        for kind, found in seconds.items():
            name = f"{kind}-{n}"
            http.post("/v1/collections", json={"name": name})
            if kind == "labels":
                set_labels(http, name, labels, 0.5)
            for text in words[: SEARCHES if kind == "searches" else 0]:
                body = {"name": text, "query": {"query": [{"text": text}], "score_threshold": 0.3}}
                http.post("/v1/saved-searches", params={"collection": name}, json=body).raise_for_status()
            before = processor_seconds(pid)
            load(http, name, content)
            found.append(processor_seconds(pid) - before)
            if kind == "labels" and n == 0:
                table.add_row(f"{len(labels)} labels: from ready to tagged", f"{wait_tagged(http, name):.1f} s")
            if kind == "searches" and n == 0:
                waited = wait_compared(http, name)
                table.add_row(f"{SEARCHES} saved searches: from ready to compared", f"{waited:.1f} s")
    plain = min(seconds["plain"])
    for kind, found in seconds.items():
        best = min(found)
        figure = f"{best:.1f} s of the processor, {best / plain:.2f} of plain"
        table.add_row(f"{len(said)} pictures to all ready, {kind}", figure)
    again = wait_job(http, http.post("/v1/collections/labels-0/labels/apply").json()["id"])
    table.add_row(f"{len(labels)} labels applied to {again['result']['pictures']} pictures", took(again))
    many = [{"label": f"label {n}"} for n in range(10 * MANY)]
    began = time.perf_counter()
    refused = http.put("/v1/collections/default/labels", json={"labels": many})
    table.add_row(f"{len(many)} labels", f"{refused.status_code} in {1000 * (time.perf_counter() - began):.0f} ms")
    return table


def wait_tagged(http: httpx.Client, collection: str) -> float:
    """Seconds until the number of tagged pictures no longer grows."""
    began = last = time.perf_counter()
    before = -1
    while time.perf_counter() - last < 5.0:
        state = http.get(f"/v1/collections/{collection}/labels").json()
        if (now := sum(one["tagged"] for one in state["labels"])) != before:
            before, last = now, time.perf_counter()
        time.sleep(0.1)
    return last - began


def wait_compared(http: httpx.Client, collection: str) -> float:
    began = time.perf_counter()
    while True:
        found = http.get("/v1/saved-searches", params={"collection": collection}).json()["saved_searches"]
        if all(one["is_complete"] for one in found):
            return time.perf_counter() - began
        time.sleep(0.1)


def took(job: Mapping[str, Any]) -> str:
    begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return f"{(ended - begun).total_seconds():.1f} s"


if __name__ == "__main__":
    main()
