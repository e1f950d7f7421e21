"""Clients that others' generators write from the OpenAPI document: each uploads, searches and is refused, with types,
against the real server. The generators are installed into environments of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.app.api.asking import make_picture
from tests.support.callers import BUILD, caller_python
from tests.support.servers import RunningServer

HERE = Path(__file__).parent
# The fields whose objects may have any fields: of the caller, of a kind of job, with a name for each k, of a search.
OPEN = {"Metadata", "CameraData", "JobOutResult", "Figures", "SavedSearchOutQuery"}
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "network")

PYTHON = """
import json, sys
from generated import Client
from generated.api.images import get_image, get_image_thumbnail
from generated.api.search import search_by_parts, search_images
from generated.api.system import get_stats, list_models
from generated.api.upload import upload_image
from generated.models import PartIn, Problem, SearchIn, SearchOut, StatsOut, UploadImageBody, UploadOut
from generated.types import File

client = Client(base_url=sys.argv[1])
with open(sys.argv[2], "rb") as file:
    picture = File(payload=file, file_name="red.png", mime_type="image/png")
    form = UploadImageBody(file=picture, caption="all red", tags=["one"])
    stored = upload_image.sync(client=client, body=form, wait=30)
assert isinstance(stored, UploadOut), stored
assert (stored.status, stored.caption, stored.tags) == ("ready", "all red", ["one"])
found = search_images.sync(client=client, q="red", k=3)
assert isinstance(found, SearchOut)
assert [hit.id for hit in found.hits] == [stored.id]
assert found.hits[0].image.width == 53
query = SearchIn(query=[PartIn(image_id=stored.id), PartIn(text="red", weight=0.5)])
by_parts = search_by_parts.sync(client=client, body=query)
assert by_parts.hits[0].id == stored.id
assert len(get_image_thumbnail.sync(stored.id, client=client).payload.read()) > 100
stats = get_stats.sync(client=client)
assert isinstance(stats, StatsOut) and stats.images.ready == 1 and stats.model.name == "colours"
assert list_models.sync(client=client).loaded.d == 60
missing = get_image.sync("nobody", client=client)
assert isinstance(missing, Problem) and (missing.code, missing.status, missing.retryable) == ("not_found", 404, False)
print(json.dumps(stored.id))
"""

TYPESCRIPT = """
import { readFileSync } from 'node:fs';
import { client } from './generated/client.gen';
import { getImage, getImageThumbnail, getStats, searchByParts, searchImages, uploadImage } from './generated';
import type { HitOut, Problem, SearchOut } from './generated';

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

async function main(): Promise<void> {
  client.setConfig({ baseUrl: process.argv[2] });
  const file = new Blob([readFileSync(process.argv[3])], { type: 'image/png' });
  const stored = await uploadImage({ body: { file, caption: 'all red', tags: ['one', 'two'] }, query: { wait: 30 } });
  check(stored.data !== undefined, stored.error);
  check(stored.data.status === 'ready' && stored.data.tags.length === 2, stored.data);
  const found = await searchImages({ query: { q: 'red', k: 3 } });
  const answer: SearchOut | undefined = found.data;
  const hit: HitOut | undefined = answer?.hits[0];
  check(hit?.id === stored.data.id && hit.image?.width === 53, found);
  const query = [{ image_id: stored.data.id }, { text: 'red', weight: 0.5 }];
  const parts = await searchByParts({ body: { query, filter: { key: 'tags', match: { value: 'two' } } } });
  check(parts.data?.hits[0].id === stored.data.id, parts);
  const thumbnail = await getImageThumbnail({ path: { id: stored.data.id }, parseAs: 'blob' });
  check((thumbnail.data as Blob).size > 100, thumbnail);
  check((await getStats()).data?.images.ready === 1, 'stats');
  const missing = await getImage({ path: { id: 'nobody' } });
  const problem: Problem | undefined = missing.error;
  check(problem?.code === 'not_found' && problem.status === 404 && !problem.retryable, missing);
  console.log(JSON.stringify(stored.data.id));
}

main().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture
def document(own_server: RunningServer, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(own_server.http.get("/openapi.json").text)
    (tmp_path / "red.png").write_bytes(make_picture("red"))
    return path


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this folder; programs beside it are found first."""
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_the_client_of_openapi_python_client_works(own_server: RunningServer, document: Path, tmp_path: Path) -> None:
    python = caller_python("generators")
    (tmp_path / "config.yml").write_text("post_hooks: []")
    command = ("generate", "--path", document, "--output-path", "generated", "--meta", "none", "--config", "config.yml")
    told = run(tmp_path, python.with_name("openapi-python-client"), *command)
    warnings = [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("WARNING")]
    # It reads no lines of JSON, beside which JSON is offered.
    assert warnings == ["WARNING parsing POST /v1/images/ingest within upload."]
    models = tmp_path / "generated" / "models"
    assert list_untyped(models) == []
    assert {name_field(one) for one in list_open(models)} == OPEN
    (tmp_path / "use.py").write_text(PYTHON)
    id = json.loads(run(tmp_path, python, "use.py", own_server.url, "red.png").stdout)
    assert own_server.http.get(f"/v1/images/{id}").json()["source"] == "red.png"


def list_untyped(models: Path) -> list[str]:
    """The fields of models that may be anything."""
    lines = [line.strip() for path in models.glob("*.py") for line in path.read_text().splitlines()]
    return [line for line in lines if line.endswith((": Any", "| Any", ": Any | Unset = UNSET"))]


def list_open(models: Path) -> list[str]:
    """The classes of models that are objects of any fields."""
    found = []
    for text in (path.read_text() for path in models.glob("*.py")):
        fields = re.findall(r"^    (\w+): (.+?)(?: = .*)?$", text.partition("    def ")[0], re.MULTILINE)
        if fields == [("additional_properties", "dict[str, Any]")]:
            found += re.findall(r"^class (\w+)", text, re.MULTILINE)
    return found


def name_field(name: str) -> str:
    """The field of a class, whose name it ends with."""
    return next((one for one in OPEN if name.removesuffix("Type0").endswith(one)), name)


@pytest.fixture(scope="session")
def typescript() -> Path:
    """A folder with the generator and the compiler of TypeScript."""
    lock = HERE / "openapi-ts" / "package-lock.json"
    place = BUILD / f"openapi-ts-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(lock.parent, place)
        try:
            run(
                place, caller_python("generators").with_name("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"
            )
        except AssertionError as error:
            if any(word in str(error) for word in UNREACHABLE):
                pytest.skip(f"the packages of npm cannot be reached: {str(error)[-300:]}")
            raise
        (place / "complete").touch()
    return place


@pytest.mark.slow
def test_the_client_of_openapi_ts_works(
    own_server: RunningServer, document: Path, typescript: Path, tmp_path: Path
) -> None:
    node = caller_python("generators").with_name("node")
    programs = typescript / "node_modules"
    run(tmp_path, node, programs / "@hey-api/openapi-ts/bin/run.js", "-i", document, "-o", "generated")
    types = (tmp_path / "generated" / "types.gen.ts").read_text()
    opened = re.findall(r"(\w+)\?*: \{\n *\[key: string\]: unknown;", types)
    assert set(opened) == {"metadata", "camera_data", "result", "figures", "query"}
    assert types.count("[key: string]: unknown") == len(opened)
    assert re.findall(r"^.*[^\]][:<|&] *(?:any|unknown)\b.*$", types, re.MULTILINE) == []
    (tmp_path / "use.ts").write_text(TYPESCRIPT)
    options = ["--strict", "--skipLibCheck", "--module", "commonjs", "--moduleResolution", "node", "--target", "es2022"]
    options += ["--lib", "es2022,dom,dom.iterable", "--types", "node", "--typeRoots", str(programs / "@types")]
    run(tmp_path, node, programs / "typescript/bin/tsc", *options, "--outDir", "js", "use.ts")
    id = json.loads(run(tmp_path, node, "js/use.js", own_server.url, "red.png").stdout)
    assert own_server.http.get(f"/v1/images/{id}").json()["tags"] == ["one", "two"]
