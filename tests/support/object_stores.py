"""Run an object store on the loopback: moto's S3. Google's XML API answers alike."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from app.storage.bucket_blobs import BucketBlobStore
from app.storage.object_store import Bucket

logging.getLogger("werkzeug").setLevel(logging.ERROR)
S3RVER = Path(__file__).parents[2] / "requirements" / "s3rver"
WHO = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "GOOGLE_SKIP_SIGNATURE": "true",
}


class Store:
    """Buckets with public read access."""

    who = WHO
    is_exclusive = True  # it refuses to create an object that is there

    def __init__(self, *buckets: str) -> None:
        self.url = self._start()
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.who["AWS_REGION"],
            aws_access_key_id=self.who["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.who["AWS_SECRET_ACCESS_KEY"],
        )
        for bucket in buckets:
            self._client.create_bucket(Bucket=bucket)

    def _start(self) -> str:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=body, ACL="public-read")

    def get(self, bucket: str, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def list(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys below a prefix (at most 1,000), without it."""
        held = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        return sorted(one["Key"].removeprefix(prefix) for one in held)

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def close(self) -> None:
        self._client.close()
        self._stop()

    def _stop(self) -> None:
        self._server.stop()


class S3rverStore(Store):
    """A second implementation: S3rver, a process of Node's, with its objects in a folder."""

    who = WHO | {"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"}
    is_exclusive = False  # it knows no If-None-Match: it writes anew what is there, and says that it made it

    def __init__(self, program: Path, folder: Path, *buckets: str) -> None:
        self._command = ["node", str(program), "-d", str(folder), "-a", "127.0.0.1", "-p", "0", "--no-vhost-buckets"]
        super().__init__(*buckets)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=body)

    def _start(self) -> str:
        self._process = subprocess.Popen(
            [*self._command, "--silent"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := re.search(r"listening on (\S+:\d+)", line):
                return f"http://{match[1]}"
        raise AssertionError("S3rver has ended")

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def find_s3rver(folder: Path) -> Path | None:
    """S3rver's program, which npm installs below a folder of `build/` if it is not there; None where it cannot."""
    program = folder / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    if not program.exists() and shutil.which("npm"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(S3RVER / name, folder / name)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=folder, timeout=300, check=False)
    return program if program.exists() and shutil.which("node") else None


def open_blobs(store_url: str, cache: Path, prefix: str, max_cache: int = 1 << 30) -> BucketBlobStore:
    """The pictures below a prefix of the bucket `photos`, with their cache in a folder."""
    return BucketBlobStore(Bucket("photos", prefix, store_url), cache, max_cache)


def list_keys(store: Store, prefix: str) -> list[str]:
    """The keys below a prefix of the bucket `photos`, without it; those that begin with a dot are notes."""
    listed = store.list("photos", f"{prefix}/")
    return [key for key in listed if not key.startswith(".") and key != "sightline.json"]


class RefusingStore:
    """A store that answers every request with an error of S3, on one line, with the name of the key as Ceph does.

    One that `has_reads` says to those that change nothing that there is no such object.
    """

    def __init__(self, status: int, code: str, *, has_reads: bool = False) -> None:

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                is_read = has_reads and self.command in ("GET", "HEAD")
                answer, word = (404, "NoSuchKey") if is_read else (status, code)
                key = "<AWSAccessKeyId>someone</AWSAccessKeyId>"
                body = f"<?xml version='1.0'?><Error><Code>{word}</Code>{key}</Error>".encode()
                self.send_response(answer)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
