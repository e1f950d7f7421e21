"""`sightline demo` as a visitor runs it after installation: real server, worker and gallery."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading

import httpx2 as httpx

from app.cli.demo import SEARCHES
from tests.support.servers import wait_until

SECONDS = 170.0
HIT = re.compile(r"^(0\.\d{3})\t(\S+)\t\S*\t(.*)$", re.MULTILINE)
ADDRESS = re.compile(r"Search it yourself at (http://\S+)/")


def test_the_demo_loads_its_gallery_answers_three_searches_and_serves_on() -> None:
    demo = [sys.executable, "-m", "app", "demo", "--port", "0"]
    process = subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said: list[str] = []
    reading = threading.Thread(target=said.extend, args=(process.stdout,))
    reading.start()
    try:
        wait_until(lambda: ADDRESS.search("".join(said)) or process.poll() is not None, SECONDS, lambda: "".join(said))
        assert process.poll() is None, "".join(said)
        check_searches("".join(said))
        check_no_duplicates(ADDRESS.findall("".join(said))[0])
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(40)
        reading.join()
        process.stdout.close()
    assert code == 0


def check_searches(said: str) -> None:
    """The gallery is there, and the first hits of each search are right."""
    assert re.search(r"\d{4} loaded, 0 already there, 0 failed", said)
    first, *answers = re.split(r"sightline search", said)
    assert len(answers) == len(SEARCHES)
    assert "loaded" in first
    for words, answer in zip(SEARCHES, answers, strict=True):
        hits = HIT.findall(answer)
        assert words in answer
        assert len(hits) == 5
    assert any("car" in caption for _, _, caption in HIT.findall(answers[0]))
    assert any("cat" in caption and "cake" in caption for _, _, caption in HIT.findall(answers[1]))


def check_no_duplicates(url: str) -> None:
    """A second load of the demo gallery, by the API, finds every picture there."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        before = http.get("/v1/stats").json()["images"]
        assert before["ready"] == before["total"] > 1_000
        job = http.post("/v1/demo").json()
        wait_until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded", 60)
        ended = http.get(f"/v1/jobs/{job['id']}").json()
        assert (ended["done"], ended["failed"], ended["duplicates"]) == (0, 0, before["total"])
        assert http.get("/v1/stats").json()["images"] == before
