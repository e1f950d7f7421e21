"""Immich's requests as Node's fetch sends them: Immich's server runs in Node, and cannot be installed here.

The script does what `server/src/repositories/machine-learning.repository.ts` of Immich does: it asks each URL of a list
for `/ping`, then posts its FormData to one URL after the other until one answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.app.api.wires.conftest import find_immich_url
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

SCRIPT = """
const { urls, requests, picture } = JSON.parse(process.argv[1]);
const bytes = require('node:fs').readFileSync(picture);
async function predict(config, text) {
  const form = new FormData();
  form.append('entries', JSON.stringify(config));
  if (text === null) form.append('image', new Blob([new Uint8Array(bytes)]));
  else form.append('text', text);
  const tried = [];
  for (const url of urls) {
    const answer = await fetch(new URL('/predict', url), { method: 'POST', body: form });
    tried.push(answer.status);
    if (answer.ok) return { tried, url, answer: await answer.json() };
  }
  return { tried };
}
(async () => {
  const pings = await Promise.all(urls.map(async (url) => (await fetch(new URL('/ping', url))).ok));
  const answers = [];
  for (const { config, text } of requests) answers.push(await predict(config, text));
  console.log(JSON.stringify({ pings, answers }));
})();
"""


class NextServer(ThreadingHTTPServer):
    """The next one of Immich's list, which does everything."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(b"pong")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(b'{"done": "by the next"}')

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("immich"), immich_port=0) as running:
        yield running


def test_immich_gets_vectors_here_and_everything_else_from_its_next_server(
    server: RunningServer, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node here, which sends Immich's requests")
    file = tmp_path / "a.png"
    file.write_bytes(picture("blue", seed=1, size=(53, 41)))
    faces = {"detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}}, "recognition": {"modelName": "x"}}
    requests = [
        {"config": {"clip": {"visual": {"modelName": "colours"}}}, "text": None},
        {"config": {"clip": {"textual": {"modelName": "colours", "options": {"language": "de"}}}}, "text": "blue"},
        {"config": {"facial-recognition": faces}, "text": None},
        {"config": {"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}, "text": None},
    ]
    with closing(NextServer()) as other:
        given = {"urls": [find_immich_url(server), other.url], "requests": requests, "picture": str(file)}
        done = subprocess.run(
            [node, "-e", SCRIPT, json.dumps(given)], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pings"] == [True, True]
    seen, said, *others = found["answers"]
    assert (seen["tried"], said["tried"]) == ([200], [200])
    assert (seen["answer"]["imageWidth"], seen["answer"]["imageHeight"]) == (53, 41)
    assert len(json.loads(seen["answer"]["clip"])) == len(json.loads(said["answer"]["clip"])) == 60
    assert [one["tried"] for one in others] == [[501, 200], [404, 200]]
    assert all(one["answer"] == {"done": "by the next"} for one in others)
