"""`sightline demo --once` as a visitor runs it: install-free from here on, real server, worker and gallery."""

from __future__ import annotations

import re
import subprocess
import sys

from app.demo import SEARCHES

SECONDS = 170.0
HIT = re.compile(r"│ (0\.\d{3}) │ (\S+)\s*│ (.*?)\s*│")


def test_the_demo_loads_its_gallery_and_answers_three_searches() -> None:
    demo = [sys.executable, "-m", "app", "demo", "--once", "--port", "0"]
    ended = subprocess.run(demo, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\d{4} loaded, 0 already there, 0 failed", ended.stdout)
    first, *answers = re.split(r"sightline search", ended.stdout)
    assert len(answers) == len(SEARCHES)
    assert "loaded" in first
    for words, answer in zip(SEARCHES, answers, strict=True):
        hits = HIT.findall(answer)
        assert words in answer
        assert len(hits) == 5
        scores = [float(score) for score, _, _ in hits]
        assert scores == sorted(scores, reverse=True)
    assert any("car" in caption for _, _, caption in HIT.findall(answers[0]))
    assert any("cat" in caption and "cake" in caption for _, _, caption in HIT.findall(answers[1]))
