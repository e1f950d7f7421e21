"""Every answer is as the OpenAPI document says, and every error has the same shape.

Schemathesis makes requests from `/openapi.json`, valid and invalid: by examples, at the bounds of every parameter, at
random, and in chains that use earlier answers (all four of its phases). It checks the status, content type, headers and
schema of every answer. `tests/reliability/contract.py` also checks that every refusal is problem+json with a documented
code.

Failing: an answer of 500 or above; any answer that differs from the document; a request of the right form that is
refused, or one of a wrong form that is accepted; a call that takes a wrong key, or none.

All of Schemathesis's checks are on. `RULES` in `tests/reliability/contract.py` lists the refusals that no schema can
say (which fields a filter has depends on the target, the model decides on the length of a vector), each for its own
calls. `POST /v1/demo` is left out, because each call loads 1,940 pictures; so are the events of a saved search, which
do not end.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(16, "schema", "Every error is problem+json with a stable code; no request, however odd, gives a 5xx.")
ROOT = Path(__file__).parents[3]
FOUND = re.compile(r"❌ (ST\d+ [^:\n]+): (\d+)")


def run(scale: Scale) -> Outcome:
    """Run with new seeds until there were enough cases."""
    wanted, examples = scale.pick((1_500, 8), (20_000, 100))
    cases, seed = 0, 16
    kinds: dict[str, int] = {}
    proxies: dict[str, Any] = {"trusted_proxies": "127.0.0.1"}  # `contract` names an address for each request
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data", **proxies) as server:
        server.upload(picture(), id="here")
        key = create_key(server)
        while cases < wanted and not kinds:
            told = run_schemathesis(server, key, Path(folder), examples, seed)
            made = re.search(r"(\d[\d,]*) generated", told)
            if made is None:
                return Outcome(f"Schemathesis said: {told[-200:]!r}", False)
            cases += int(made.group(1).replace(",", ""))
            kinds = {kind: int(count) for kind, count in FOUND.findall(told)}
            if kinds:
                print(told, file=sys.stderr)
            seed += 1
        alive = server.process.poll() is None
        unexpected = server.output().count("unexpected error")
    failures = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    figure = (
        f"{cases:,} cases in {seed - 16} runs: {failures or '0 failures'}, {unexpected} unexpected errors in the log"
    )
    return Outcome(figure, not kinds and alive and not unexpected and cases >= wanted)


def create_key(server: RunningServer) -> str:
    """A key for everything; from now on every call needs one."""
    database = open_database(server.data_dir / "sightline.db")
    _, key = ApiKeyService(database).create("schemathesis", KeyScope.ADMIN, (), None)
    database.close()
    return key


def run_schemathesis(server: RunningServer, key: str, folder: Path, examples: int, seed: int) -> str:
    """Schemathesis's report."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}", "--header", f"X-API-Key: {key}"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--checks", "all"),
        *("--max-examples", str(examples), "--seed", str(seed), "--no-shrink", "--continue-on-failure"),
        *("--exclude-path", "/v1/demo", "--exclude-path", "/v1/saved-searches/{id}/events"),
        *("--request-timeout", "60", "--max-response-time", "30", "--suppress-health-check", "all"),
        *("--warnings", "off", "--no-color"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.reliability.contract"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr
