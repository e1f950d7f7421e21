"""Repeating an upload whose answer was lost never makes a second picture.

The proof sends uploads and cuts the connection before it reads the answer: in turn at once, up to 20 ms later, and in
the middle of the body. Then it sends each upload again three times.

Failing: a picture is there twice or not at all; the same bytes get another id; a status other than 200 and 202.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from tests.reliability.client import connect, digest, pictures, upload_request
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(3, "retries", "Retrying is always safe: the same bytes are one picture, however often they are sent.")
RETRIES = 3


def run(scale: Scale) -> Outcome:
    """500 uploads whose answers are lost."""
    cases = scale.pick(60, 500)
    dice = random.Random(3)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        sent = [picture(seed=n, size=(41, 31)) for n in range(cases)]
        for n, content in enumerate(sent):
            send_and_cut(server.url, content, n % 3, dice)
            answers = [server.upload(content, wait=0) for _ in range(RETRIES)]
            if not {answer.status_code for answer in answers} <= {200, 202}:
                wrong.append(f"{[answer.status_code for answer in answers]}")
            elif len({answer.json()["id"] for answer in answers}) != 1:
                wrong.append("several ids for the same bytes")
        there = [image["sha256"] for image in pictures(server)]
    extra, lost = len(there) - len(set(there)), len({digest(content) for content in sent} - set(there))
    figure = (
        f"{cases} lost answers, {cases * RETRIES} retries: {extra} extra rows, {lost} lost, {len(wrong)} odd answers"
    )
    return Outcome(figure, not extra and not lost and not wrong and len(there) == cases)


def send_and_cut(url: str, content: bytes, kind: int, dice: random.Random) -> None:
    """Send an upload and cut the connection: at once, after a moment, or in the middle of the body."""
    request = upload_request(url, content)
    with connect(url) as connection:
        if kind == 2:
            connection.sendall(request[: len(request) - dice.randrange(1, len(content))])
            return
        connection.sendall(request)
        if kind == 1:
            time.sleep(dice.uniform(0, 0.02))
