"""Every answer is as the OpenAPI document says, and every error has the same shape.

Schemathesis makes requests from `/openapi.json`, valid and invalid: by examples, at the bounds of every parameter, at
random, and in chains that use earlier answers (all four of its phases). It checks the status, content type, headers and
schema of every answer. `tests/reliability/contract.py` also checks that every refusal is problem+json with a documented
code.

Failing: an answer of 500 or above; any answer that differs from the document.

Four of Schemathesis's checks are off: that a call without a key is refused (the server here has no keys; the proof
`roles` tries each call with every kind of key), that the server accepts every request of the right form (a cursor, a
filter and a file have more rules than a schema can say), that it refuses unknown parameters, and that `Allow` names
nothing else (a picture may be called `bulk`). `POST /v1/demo` is left out, because each call loads 1,940 pictures.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(16, "schema", "Every error is problem+json with a stable code; no request, however odd, gives a 5xx.")
ROOT = Path(__file__).parents[3]
OFF = "ignored_auth,positive_data_acceptance,negative_data_rejection,allow_header_conformance"
FOUND = re.compile(r"❌ (ST\d+ [^:\n]+): (\d+)")


def run(scale: Scale) -> Outcome:
    """Run with new seeds until there were enough cases."""
    wanted, examples = scale.pick((1_500, 8), (20_000, 100))
    cases, seed = 0, 16
    kinds: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        server.upload(picture(), id="here")
        while cases < wanted and not kinds:
            told = run_schemathesis(server, Path(folder), examples, seed)
            made = re.search(r"([\d,]+) generated", told)
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


def run_schemathesis(server: RunningServer, folder: Path, examples: int, seed: int) -> str:
    """Schemathesis's report."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
        *(
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--mode",
            "all",
            "--checks",
            "all",
            "--exclude-checks",
            OFF,
        ),
        *("--max-examples", str(examples), "--seed", str(seed), "--no-shrink", "--continue-on-failure"),
        *("--exclude-path", "/v1/demo", "--request-timeout", "60", "--suppress-health-check", "all"),
        *("--warnings", "off", "--no-color"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.reliability.contract"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr
