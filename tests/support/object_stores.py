"""Run an object store on the loopback: moto's S3. Google's XML API answers alike."""

from __future__ import annotations

import logging
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
WHO = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "GOOGLE_SKIP_SIGNATURE": "true",
}


class Store:
    """Buckets with public read access."""

    def __init__(self, *buckets: str) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=WHO["AWS_REGION"],
            aws_access_key_id=WHO["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=WHO["AWS_SECRET_ACCESS_KEY"],
        )
        for bucket in buckets:
            self._client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=body, ACL="public-read")

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def close(self) -> None:
        self._client.close()
        self._server.stop()
