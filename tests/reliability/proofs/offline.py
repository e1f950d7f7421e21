"""Nothing leaves the machine unless a setting says so.

A server starts with the built-in model in an empty network namespace, which has only the loopback. It loads the demo
gallery, answers a search and serves its page, while strace records every address to which it and its children connect
or send.

Failing: any of this does not work; one address is not the loopback's.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.reliability.traced import require

PROMISE = Promise(21, "offline", "Nothing leaves the machine unless it is configured: no telemetry, no downloads.")
ADDRESS = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"


def run(scale: Scale) -> Outcome:
    """The short form uses the weight-free model and forty pictures."""
    strace = require()
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        raise Impossible("there is no network namespace to be had")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        model, count = scale.pick(("colours", "40"), ("starter", "0"))
        inner = [sys.executable, "-m", "tests.reliability.offline", folder, model, count]
        traced = [strace, "-f", "--seccomp-bpf", "-qq", "-e", CALLS, "-o", str(trace), *inner]
        up = ["unshare", "-n", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *traced]
        ended = subprocess.run(up, capture_output=True, text=True, timeout=900, check=False)
        if ended.returncode:
            return Outcome(f"it does not work without a network: {ended.stderr.strip().splitlines()[-1][:200]}", False)
        told = json.loads(ended.stdout.strip().splitlines()[-1])
        addresses = [next(filter(None, found)) for found in ADDRESS.findall(trace.read_text(errors="replace"))]
    outside = {address for address in addresses if not address.startswith("127.") and address != "::1"}
    works = told["failed"] == 0 and told["done"] > 0 and told["hits"] > 0 and told["page"] == 200 and told["code"] == 0
    figure = (
        f"without a network: {told['done']} pictures loaded, {told['hits']} hits, page {told['page']};"
        f" {len(addresses)} connections on the loopback, {len(outside)} elsewhere"
    )
    return Outcome(figure, works and not outside and told["elsewhere"] == [] and told["assets"] == [200])
