"""What `tests.reliability.proofs.offline` runs where there is no network: a server that loads, searches and shows its
page.

`python -m tests.reliability.offline FOLDER MODEL COUNT` prints what came of it as JSON; a COUNT of 0 loads the demo
gallery.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


def main(folder: str, model: str, count: int) -> None:
    """Start, load, search, look at the page and everything that it names."""
    with RunningServer(Path(folder) / "data", model=model) as server:
        if count:
            job = server.bulk([(f"{n}.png", picture(seed=n)) for n in range(count)])
        else:
            job = server.http.post("/v1/demo").json()
        wait_until(lambda: server.wait_job(job["id"], 600), 600)
        ended = server.wait_job(job["id"], 600)
        hits = server.http.get("/v1/search", params={"q": "red car", "k": 5}).json()["hits"]
        page = server.http.get("/")
        named = re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page.text)
        elsewhere = [name for name in named if re.match(r"(\w+:)?//", name)]
        statuses = {server.http.get("/" + name.removeprefix("./").lstrip("/")).status_code for name in named}
        code = server.stop()
    told = {"done": ended["done"], "failed": ended["failed"], "hits": len(hits), "page": page.status_code}
    print(json.dumps({**told, "elsewhere": elsewhere, "assets": sorted(statuses), "code": code}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
