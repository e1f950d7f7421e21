"""Settings, read once from the environment (`SIGHTLINE_*`) and the command line.

The description of each field is its documentation: `--help` and `docs/reference/settings.md` print it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.errors import StartupError

MIB = 1 << 20
GIB = 1 << 30


class Settings(BaseSettings):
    """One frozen object that every part is given; nothing else reads the environment."""

    model_config = SettingsConfigDict(env_prefix="SIGHTLINE_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    insecure: bool = Field(False, description="Serve others than this machine although there are no API keys.")
    allowed_hosts: str = Field(
        "", description="Further names, with commas between, that a server without keys on loopback goes by."
    )
    rate_limit: str = Field(
        "", description="Most requests of one key or address, as 600/minute or 20/second; empty is no limit."
    )
    header_seconds: float = Field(10.0, gt=0, description="How long a client may take to send a request's headers.")
    body_seconds: float = Field(
        60.0, gt=0, description="How long a client may take over a body, unless it keeps to body_rate."
    )
    body_rate: int = Field(1024, ge=0, description="Least bytes a second of a body, over body_seconds each.")
    idle_seconds: float = Field(5.0, gt=0, description="How long a connection may stay open with no request on it.")
    write_seconds: float = Field(30.0, gt=0, description="How long a client may stop reading an answer.")
    max_connections: int = Field(
        8192,
        ge=1,
        description="Most open connections; then one that has asked nothing gives way, or a newcomer is refused.",
    )
    key: SecretStr | None = Field(None, description="API key that the client commands send.", repr=False)
    key_file: Path | None = Field(None, description="File that holds the API key that the client commands send.")
    server: str = Field("http://127.0.0.1:8000", description="Server that the client commands speak to.")
    collection: str = Field("default", description="Collection that the client commands speak of.")
    data_dir: Path = Field(Path("data"), description="Folder that holds everything the service keeps.")
    models_dir: Path | None = Field(
        None,
        description="Folder of downloaded and compiled models, which servers may share; None is models/ in data_dir.",
    )
    model: str = Field(
        "starter",
        description="Encoder: starter, colours, an open_clip name/tag, hf-hub:org/repo or name:file.safetensors.",
    )
    index: str = Field(
        "local",
        description="Where vectors are searched: local, milvus://HOST[:PORT][/DATABASE] (milvus+tls:// with TLS), or"
        " milvus:FILE.db for Milvus Lite.",
    )
    index_token: str = Field(
        "",
        repr=False,
        description="USER:PASSWORD or a token, for the engine that index names. No command has this as an option.",
    )
    precision: str = Field(
        "auto",
        pattern="^(auto|fp32|bf16|fp16)$",
        description="Precision: fp32, bf16, fp16 (a GPU's), or auto, the fastest that the machine has.",
    )
    runtime: str = Field(
        "auto",
        pattern="^(auto|openvino|torch)$",
        description="What runs the encoder: auto is OpenVINO on a CPU and torch on a GPU.",
    )
    device: str = Field("auto", description="Where the encoder runs: auto, cpu, cuda or cuda:N.")
    workers: int = Field(1, ge=0, le=64, description="Worker processes that serve starts and supervises.")
    decoders: int = Field(
        0,
        ge=0,
        le=64,
        description="Decode children of each process; 0 is 2, and in a worker with a GPU one for each core but one.",
    )
    batch_size: int = Field(
        0, ge=0, le=1024, description="Pictures that a worker encodes at once; 0 is 32, and 256 on a GPU."
    )
    threads: int = Field(0, ge=0, description="Compute threads of each process; 0 lets the library choose.")
    ignore_memory: bool = Field(False, description="Start even if the model seems to need more memory than there is.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level logged.")
    log_format: str = Field(
        "auto",
        pattern="^(auto|json|text)$",
        description="Format of the log: json, text, or auto, which is text on a terminal and JSON elsewhere.",
    )

    max_image_bytes: int = Field(32 * MIB, ge=1, description="Largest picture file, in bytes.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Most pixels of a picture.")
    max_image_side: int = Field(16_384, ge=1, description="Most pixels a side of a picture.")
    max_archive_bytes: int = Field(2 * GIB, ge=1, description="Most bytes an archive may expand to.")
    max_archive_members: int = Field(10_000, ge=1, description="Most members of an archive.")
    max_upload_bytes: int = Field(4 * GIB, ge=1, description="Largest body of a bulk upload, in bytes.")
    max_json_bytes: int = Field(1 * MIB, ge=1, description="Largest JSON body, in bytes.")
    max_query_json_bytes: int = Field(48 * MIB, ge=1, description="Largest JSON body that may hold pictures.")
    max_text_chars: int = Field(1_000, ge=1, description="Longest query or text, in characters.")
    max_metadata_bytes: int = Field(16_384, ge=2, description="Largest metadata of an item, as JSON bytes.")
    max_metadata_depth: int = Field(8, ge=1, description="Deepest nesting of metadata.")
    max_k: int = Field(1_000, ge=1, description="Most hits of one search.")
    max_queue: int = Field(1_000_000, ge=1, description="Most pictures that may wait; more are refused with 429.")
    max_queue_bytes: int = Field(
        256 * GIB, ge=1, description="Most bytes of pictures that may wait; more are refused with 429."
    )
    job_days: float = Field(30.0, ge=0, description="Days that a job is remembered after its end; 0 is for ever.")
    max_concurrent_queries: int = Field(256, ge=1, description="Queries waiting for the encoder; more get 503.")
    query_cache: int = Field(16 * MIB, ge=0, description="Bytes for the vectors of texts that were searched lately.")
    index_memory: int = Field(
        0, ge=0, description="Bytes that open indexes may hold; 0 is half of what is free when the model is loaded."
    )
    recall_target: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Measured recall@10 below which an approximate index looks harder; 0 measures alone.",
    )
    fetch: bool = Field(False, description="Take pictures by URL, from public addresses only.")
    fetch_also: str = Field(
        "", description="Addresses and networks, separated by commas, that URLs may lead to though they are not public."
    )
    fetch_seconds: float = Field(
        15.0, gt=0, description="Wall-clock limit for fetching one picture by URL or from a bucket."
    )
    folders: str = Field(
        "", description="Folders of this machine, separated by colons, that pictures may be taken from by their path."
    )
    buckets: str = Field(
        "",
        description="Prefixes of object stores, as s3://BUCKET/PATH or gs://BUCKET/PATH, separated by commas, that"
        " pictures may be taken from.",
    )
    s3_endpoint: str = Field("", description="Address of the store of s3:// prefixes; empty is Amazon's own.")
    gcs_endpoint: str = Field("", description="Address of the store of gs:// prefixes; empty is Google's own.")
    max_urls: int = Field(1_000_000, ge=1, description="Most URLs of one request.")
    decode_seconds: float = Field(15.0, gt=0, description="Wall-clock limit for decoding one picture.")
    decode_memory: int = Field(1536 * MIB, ge=256 * MIB, description="Memory limit of a decode child, in bytes.")
    archive_seconds: float = Field(300.0, gt=0, description="Wall-clock limit for expanding one archive.")
    lease_seconds: float = Field(60.0, gt=0, description="How long a worker may hold a picture without renewing.")
    max_attempts: int = Field(3, ge=1, description="Attempts before a picture is marked failed.")
    thumbnail_size: int = Field(320, ge=16, le=1024, description="Longest side of a stored thumbnail, in pixels.")
    drain_seconds: float = Field(12.0, gt=0, description="How long a stopping server finishes what it began.")

    @property
    def models(self) -> Path:
        """The folder of downloaded and compiled models."""
        return self.data_dir / "models" if self.models_dir is None else self.models_dir

    @property
    def is_tracing_on(self) -> bool:
        """Whether spans are collected: OpenTelemetry's own variables say so, and where."""
        names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return not disabled and any(os.environ.get(name) for name in names)

    def read_client_key(self) -> str | None:
        """The API key of a client: `key`, or what stands in `key_file`. Raises StartupError if it cannot be read."""
        if self.key is not None:
            return self.key.get_secret_value().strip() or None
        if self.key_file is None:
            return None
        try:
            return self.key_file.read_text("utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"the key file {self.key_file} cannot be read: {error}") from None

    def decoders_for(self, device: str) -> int:
        """Decode children of a process whose encoder runs on `device`: a GPU is fed by all cores but the worker's."""
        return self.decoders or (min(64, max(2, count_cores() - 1)) if device.startswith("cuda") else 2)

    def batch_size_for(self, device: str) -> int:
        """Pictures that a worker encodes at once on `device`."""
        return self.batch_size or (256 if device.startswith("cuda") else 32)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        return {
            f"SIGHTLINE_{name.upper()}": str(int(value) if isinstance(value, bool) else value)
            for name, value in self.model_dump(exclude_none=True, exclude={"key", "key_file"}).items()
        }


def count_cores(mine: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors for this process: those that it may run on, or fewer where its control group, a container's say,
    may use less time."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no limit is written as "max", which is no number
        group = mine.read_text().rpartition("0::")[2].strip().lstrip("/")
        quota, period = (groups / group / "cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    return allowed
