"""Settings from the environment (`SIGHTLINE_*`) and the command line, read once at the start.

The descriptions of the fields are their documentation: `--help` and `docs/reference/settings.md` print them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.connection_string import SQLITE, check_database_url
from app.core.errors import StartupError
from app.core.picture_formats import parse_formats

MIB = 1 << 20
GIB = 1 << 30
PREFIX = "SIGHTLINE_"
# What Kubernetes sets for a service whose name begins with "sightline".
SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
OTHERS = ("SITE", "USER", "PASSWORD_HASH", "UPSTREAM", "PUBLISH", "MEMORY", "CPUS", "WATCHED")  # of files in deploy


class Settings(BaseSettings):
    """One frozen object for all parts of the program; no other code reads `SIGHTLINE_*`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    host: str = Field(
        "localhost",
        description="Address to listen on; localhost is both 127.0.0.1 and ::1, 0.0.0.0 or :: is every one.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free port.")
    immich_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which Immich can ask for vectors, without a key, as of its machine learning server (3003"
        " there); 0 takes any free port, None is none.",
    )
    immich_host: str = Field(
        "localhost", description="Address to listen on for Immich: everybody who reaches it can have vectors made."
    )
    insecure: bool = Field(False, description="Allow other addresses than loopback although there are no API keys.")
    allowed_hosts: str = Field(
        "",
        description="Further names (photos.example.org, ...) under which clients reach a server on loopback that has no"
        " API keys, separated by commas; other names are refused with 403.",
    )
    cors_origins: str = Field(
        "",
        description="Origins of web pages, separated by commas, whose scripts may call this server, as"
        " https://photos.example.org; * is every origin, once there are API keys.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of your proxies, separated by commas, as 127.0.0.1,10.0.0.0/8: the server"
        " believes their headers X-Forwarded-For, -Proto and -Host.",
    )
    rate_limit: str = Field(
        "", description="Most requests of one API key or address, as 600/minute or 20/second; empty is no limit."
    )
    header_seconds: float = Field(10.0, gt=0, description="Seconds for a client to send the headers of a request.")
    body_seconds: float = Field(
        60.0, gt=0, description="Seconds for a client to send a body, or more while it keeps body_rate."
    )
    body_rate: int = Field(1024, ge=0, description="Least bytes per second of a body, measured over body_seconds.")
    idle_seconds: float = Field(5.0, gt=0, description="Seconds that a connection without a request stays open.")
    write_seconds: float = Field(30.0, gt=0, description="Seconds that a client may pause while it reads an answer.")
    max_connections: int = Field(
        8192,
        ge=1,
        description="Most open connections; above it the server closes one without a request, or refuses the new one.",
    )
    key: SecretStr | None = Field(None, description="API key that the client commands send.", repr=False)
    key_file: Path | None = Field(None, description="File with the API key that the client commands send.")
    server: str = Field("http://127.0.0.1:8000", description="URL of the server for the client commands.")
    ca_file: Path | None = Field(
        None, description="File with certificates (PEM) of further authorities that the client commands trust."
    )
    collection: str = Field("default", description="Collection that the client commands use.")
    data_dir: Path = Field(Path("data"), description="Folder of all data of the service.")
    media: str = Field(
        "local",
        max_length=1_000,
        description="Where pictures, thumbnails and waiting uploads are kept: local (the data directory), or"
        " s3://BUCKET/PREFIX in an object store.",
    )
    media_reads: str = Field(
        "proxied",
        pattern="^(proxied|presigned)$",
        description="How clients get the files of pictures and videos of a bucket: proxied (the server sends them), or"
        " presigned (it redirects to a URL of the store that is valid for 5 minutes).",
    )
    media_cache: int = Field(
        10 * GIB, ge=64 * MIB, description="Most bytes of files of a bucket that are kept in the cache of this machine."
    )
    database: str = Field(
        "sqlite",
        repr=False,
        max_length=2_000,
        description="Database: sqlite, a file in data_dir, or postgresql://USER:PASSWORD@HOST/NAME, which any number of"
        " servers and workers share. Better name it in the environment: other users of a machine see the options of a"
        " process.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder of what a server can make again: indexes, scratch files, lock files. Each server of a"
        " cluster has its own; None is data_dir.",
    )
    shared_media: bool = Field(
        False,
        description="Every server and worker of the cluster mounts the folder of pictures at the same path, on a file"
        " system for several machines (NFS, CephFS).",
    )
    models_dir: Path | None = Field(
        None,
        description="Folder of downloaded and compiled models, which servers may share; None is models/ in data_dir.",
    )
    model: str = Field(
        "starter",
        description="Model: starter, photos (or another name of `sightline models`), an open_clip name/tag,"
        " hf-hub:org/repo or name:file.safetensors.",
    )
    served_names: str = Field(
        "",
        max_length=2_000,
        description="Further names of the model, separated by commas, for clients of other systems that cannot send"
        " another one (jina-clip-v2, ...).",
    )
    index: str = Field(
        "local",
        description="Vector index: local, milvus://HOST[:PORT][/DATABASE], milvus+tls://... with TLS, or milvus:FILE.db"
        " (Milvus Lite).",
    )
    index_token: str = Field(
        "", repr=False, description="USER:PASSWORD or a token for Milvus. No command has this as an option."
    )
    precision: str = Field(
        "auto",
        pattern="^(auto|fp32|bf16|fp16|int8)$",
        description="Precision of the encoder: fp32, bf16, fp16 (on a GPU), int8 (of a model that `sightline convert"
        " --precision int8` wrote), or auto, the fastest that model and machine have.",
    )
    runtime: str = Field(
        "auto",
        pattern="^(auto|openvino|torch)$",
        description="Library that runs the encoder: openvino, torch, or auto (OpenVINO on a CPU, torch on a GPU).",
    )
    device: str = Field(
        "auto", description="Device that runs the model: auto (a GPU if there is one), cpu, cuda or cuda:N."
    )
    workers: int = Field(
        1, ge=0, le=64, description="Worker processes of the server, which starts them again when they end."
    )
    decoders: int = Field(
        0,
        ge=0,
        le=64,
        description="Decode children of each process; 0 is 2, or the number of cores less one in a worker with a GPU.",
    )
    batch_size: int = Field(
        0, ge=0, le=1024, description="Pictures that a worker encodes at once; 0 is 32 on a CPU and 256 on a GPU."
    )
    threads: int = Field(0, ge=0, description="Compute threads of each process; 0 lets the library choose.")
    ignore_memory: bool = Field(
        False, description="Start although the model seems to need more memory than is available."
    )
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="Lowest level that is logged: debug, info, warning or error.",
    )
    log_format: str = Field(
        "auto",
        pattern="^(auto|json|text)$",
        description="Format of the log: json, text, or auto, which is text on a terminal and JSON elsewhere.",
    )

    formats: str = Field(
        "default",
        max_length=500,
        description="Formats of pictures that are accepted: default, or a list such as -heic (the default without it),"
        " +jpeg2000 (with one more) or jpeg,png (these alone).",
    )
    captioner: str = Field(
        "",
        pattern=r"^(open_clip:.+|https?://.+|)$",
        description="What writes captions in the background: open_clip:coca_ViT-L-14/TAG (or a path of safetensors), or"
        " the URL of a server that speaks OpenAI's chat shape with pictures (Ollama, vLLM, llama.cpp), to which the"
        " pictures are sent.",
    )
    captioner_model: str = Field(
        "", max_length=200, description="Model that the server of captioner is asked for; empty sends no name."
    )
    captioner_key: str = Field(
        "",
        repr=False,
        max_length=4_096,
        pattern=r"^[\x21-\x7e]*$",
        description="API key for the server of captioner. No command has this as an option.",
    )
    captioner_prompt: str = Field(
        "Describe this picture in one or two plain sentences: who or what is seen, doing what, and where."
        " Write only the description.",
        min_length=1,
        max_length=4_000,
        description="What the server of captioner is asked to write about a picture.",
    )
    captioner_tokens: int = Field(
        300, ge=1, le=32_768, description="Most tokens of an answer of captioner, thinking included."
    )
    captioner_side: int = Field(
        768,
        ge=64,
        le=4_096,
        description="Longest side, in pixels, of the JPEG that is sent to the server of captioner.",
    )
    captioner_seconds: float = Field(
        120.0, gt=0, le=3_600, description="Time limit for one answer of the server of captioner, in seconds."
    )
    captioner_at_once: int = Field(
        1, ge=1, le=64, description="Requests to the server of captioner at once, or pictures that a CoCa gets at once."
    )

    max_image_bytes: int = Field(96 * MIB, ge=1, description="Largest picture file, in bytes.")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        description="Most pixels of a picture; a JPEG or RAW file, which is decoded at a fraction of its size, may have"
        " five times as many, a HEIC, TIFF or JPEG XL file twice as many.",
    )
    max_query_pixels: int = Field(
        200_000_000,
        ge=1,
        description="Most pixels of all pictures of one search request; of the pixels of a JPEG or RAW file a fifth"
        " counts, of those of a HEIC, TIFF or JPEG XL file a half.",
    )
    max_image_side: int = Field(16_384, ge=1, description="Most pixels a side of a picture.")
    max_archive_bytes: int = Field(2 * GIB, ge=1, description="Most bytes that an archive may expand to.")
    max_archive_members: int = Field(10_000, ge=1, description="Most members of an archive.")
    video: bool = Field(
        True, description="Accept videos (MP4, MOV, WebM, MKV), whose frames become pictures; needs the extra `video`."
    )
    video_frames: int = Field(
        300, ge=1, le=10_000, description="Most frames of a video that become pictures, those where it changes."
    )
    video_rate: float = Field(1.0, gt=0, le=4, description="Most frames of a second of video that become pictures.")
    video_seconds: float = Field(300.0, ge=10, description="Time limit for reading one video, in seconds.")
    keep_videos: bool = Field(
        True, description="Keep the files of videos, so that they can be watched; without it the frames alone stay."
    )
    max_video_bytes: int = Field(4 * GIB, ge=1, description="Largest video file, in bytes.")
    max_upload_bytes: int = Field(4 * GIB, ge=1, description="Largest body of a bulk upload, in bytes.")
    max_json_bytes: int = Field(1 * MIB, ge=1, description="Largest JSON body, in bytes.")
    max_query_json_bytes: int = Field(
        48 * MIB,
        ge=1,
        description="Largest JSON body of a search with pictures in it, in bytes; without them it may have"
        " max_json_bytes.",
    )
    max_memory_bodies: int = Field(
        256 * MIB,
        ge=1,
        description="Most bytes of JSON bodies under way at once; one key or address may have a quarter of them.",
    )
    max_incoming_bytes: int = Field(
        64 * GIB,
        ge=1,
        description="Most bytes of uploads under way at once, on the disk; one key or address may have a quarter.",
    )
    max_text_chars: int = Field(1_000, ge=1, le=65_536, description="Longest query or text, in characters.")
    max_metadata_bytes: int = Field(16_384, ge=2, description="Largest metadata of an item, in bytes of JSON.")
    max_metadata_depth: int = Field(8, ge=1, description="Deepest nesting of metadata.")
    keep_exif: bool = Field(
        False,
        description="Keep the exposure of photographs (time, aperture, ISO, focal length, flash) in metadata.exif.",
    )
    keep_location: bool = Field(
        False, description="Keep where photographs were taken; without it no place is read into the database."
    )
    max_k: int = Field(1_000, ge=1, description="Most hits of one search.")
    max_queue: int = Field(
        1_000_000, ge=1, description="Most pictures that may wait for a worker; further uploads get 429."
    )
    max_queue_bytes: int = Field(
        256 * GIB, ge=1, description="Most bytes that may wait for a worker; further uploads get 429."
    )
    job_days: float = Field(30.0, ge=0, description="Days that a job is kept after its end; 0 keeps it for ever.")
    max_concurrent_queries: int = Field(
        256, ge=1, description="Most queries that wait for the encoder; further ones get 503."
    )
    max_event_streams: int = Field(
        256, ge=1, description="Most jobs that are followed by event streams at once; one caller may have a quarter."
    )
    query_cache: int = Field(16 * MIB, ge=0, description="Bytes of memory for the vectors of recent text queries.")
    index_memory: int = Field(
        0,
        ge=0,
        description="Bytes of memory for open indexes; 0 is half of the memory that is free once the model is loaded.",
    )
    recall_target: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Measured recall@10 below which an approximate index raises its search effort; 0 only measures.",
    )
    ocr: bool = Field(
        False, description="Read the words in pictures (English and Chinese), in the background; needs the extra ocr."
    )
    fetch: bool = Field(False, description="Accept pictures by URL, from public addresses only.")
    fetch_also: str = Field(
        "",
        description="Addresses and networks, separated by commas, that URLs may lead to although they are not public.",
    )
    webhooks: bool = Field(
        False, description="Send webhooks of saved searches, to public addresses and those of fetch_also only."
    )
    fetch_seconds: float = Field(
        15.0, gt=0, description="Time limit for fetching one picture by URL or from a bucket, in seconds."
    )
    user_agent: str = Field(
        "",
        max_length=500,
        pattern=r"^[\x20-\x7e]*$",
        description="User-Agent of requests for pictures by URL and from buckets, with your contact for hosts that want"
        " one: Name (+https://address; mail). Empty is Sightline/VERSION.",
    )
    folders: str = Field(
        "", description="Folders of this machine, separated by colons, from which pictures may be imported by path."
    )
    bound_folders: str = Field(
        "",
        description="Folders for keys that are bound to collections, as COLLECTION=FOLDER, separated by colons.",
    )
    rescan_seconds: float = Field(
        600.0,
        ge=1,
        description="Seconds between two scans of a watched folder, beside what the kernel reports of its changes.",
    )
    buckets: str = Field(
        "",
        description="Prefixes of object stores, as s3://BUCKET/PATH or gs://BUCKET/PATH, separated by commas, from"
        " which pictures may be imported.",
    )
    s3_endpoint: str = Field(
        "", description="URL of the object store for s3:// prefixes, of media and of sources; empty is Amazon S3."
    )
    gcs_endpoint: str = Field(
        "", description="URL of the object store for gs:// prefixes; empty is Google Cloud Storage."
    )
    max_urls: int = Field(1_000_000, ge=1, description="Most URLs of one request.")
    decode_seconds: float = Field(15.0, gt=0, description="Time limit for decoding one picture, in seconds.")
    decode_memory: int = Field(1536 * MIB, ge=256 * MIB, description="Memory limit of a decode child, in bytes.")
    archive_seconds: float = Field(300.0, gt=0, description="Time limit for expanding one archive, in seconds.")
    lease_seconds: float = Field(
        60.0, gt=0, description="Seconds after which a worker loses a picture whose lease it has not renewed."
    )
    max_attempts: int = Field(3, ge=1, description="Attempts at a picture before it is marked failed.")
    thumbnail_size: int = Field(320, ge=16, le=1024, description="Longest side of a stored thumbnail, in pixels.")
    drain_seconds: float = Field(
        12.0, gt=0, description="Seconds that a stopping server takes to finish running requests."
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, env_settings: Any, *_: Any, **__: Any
    ) -> tuple[Any, ...]:
        """What is given, then the environment without what Kubernetes puts there."""
        found = {name: clean_value(value or "") for name, value in env_settings.env_vars.items()}
        env_settings.env_vars = {
            name: value for name, value in found.items() if value and not is_service_link(name, value)
        }
        return init_settings, env_settings

    @field_validator("precision", "runtime", "log_level", "log_format", "media_reads", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, value: str) -> str:
        parse_formats(value)
        return value

    @property
    def accepted_formats(self) -> frozenset[str]:
        """The formats that `formats` names."""
        return parse_formats(self.formats)

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: str) -> str:
        check_database_url(value)
        return value

    @property
    def is_cluster(self) -> bool:
        """Whether other servers and workers, on any machine, may use the same data."""
        return self.database != SQLITE

    @property
    def cache(self) -> Path:
        """The folder of what this server can make again."""
        return self.data_dir if self.cache_dir is None else self.cache_dir

    @property
    def process_folder(self) -> Path:
        """Where the server and the workers of one machine find each other by lock files. With SQLite every process must
        look into the same folder, whatever its cache is: a free lock file means that a worker is dead."""
        return self.cache if self.is_cluster else self.data_dir

    @property
    def models(self) -> Path:
        """The folder of downloaded and compiled models."""
        return self.data_dir / "models" if self.models_dir is None else self.models_dir

    @property
    def is_tracing_on(self) -> bool:
        """Whether the environment asks for OpenTelemetry spans, by OpenTelemetry's own variables."""
        names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return not disabled and any(os.environ.get(name) for name in names)

    def read_client_key(self) -> str | None:
        """`key`, or the content of `key_file`. Raises StartupError if the file cannot be read."""
        if self.key is not None:
            return self.key.get_secret_value().strip() or None
        if self.key_file is None:
            return None
        try:
            return self.key_file.read_text("utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it holds no text"
            raise StartupError(f"the key file {self.key_file} cannot be read: {reason}") from None

    def decoders_for(self, device: str) -> int:
        """Decode children of a process with its encoder on `device`; a GPU needs all cores but one to be busy."""
        return self.decoders or (min(64, max(2, count_cores() - 1)) if device.startswith("cuda") else 2)

    def batch_size_for(self, device: str) -> int:
        """Pictures that a worker encodes at once on `device`."""
        return self.batch_size or (256 if device.startswith("cuda") else 32)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process, without the API key."""
        held = self.model_dump(exclude_none=True, exclude={"key", "key_file", "ca_file"})
        texts = {name: str(int(value) if isinstance(value, bool) else value) for name, value in held.items()}
        return {  # in quotes where `clean_value` would change it
            f"SIGHTLINE_{name.upper()}": text if text == clean_value(text) else f'"{text}"'
            for name, text in texts.items()
        }


def clean_value(text: str) -> str:
    """The value of a variable without what files of variables put around it: quotes (docker run --env-file), a
    carriage return (Windows), spaces."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def is_service_link(variable: str, value: str | None) -> bool:
    """Whether Kubernetes, or Docker, has set this variable for a service whose name begins with `sightline`."""
    name = variable.upper().removeprefix(PREFIX)
    return bool(SERVICE_LINK.fullmatch(name) or (re.match("(tcp|udp|sctp)://", value or "") and name.endswith("PORT")))


def find_unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence about each `SIGHTLINE_*` variable that is no setting, save those that Kubernetes and the files of
    the deployment set; and about one that Kubernetes sets under the name of a setting."""
    known = [name.upper() for name in Settings.model_fields]
    sentences = []
    for variable, value in sorted(environment.items()):
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX):
            continue
        if is_service_link(variable, value):
            if name in known:
                sentences.append(
                    f"{variable}={value[:80]} is ignored: Kubernetes sets it for a service of this name;"
                    " `enableServiceLinks: false` in the pod keeps it away"
                )
        elif name not in (*known, *OTHERS):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "docs/reference/settings.md lists the settings"
            sentences.append(f"there is no setting {variable[:80]}; {hint}")
    return sentences


def count_cores(own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use: its affinity, or less if its control group (a container) has a quota."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # without a limit the file says "max", which is no number
        group = own.read_text().rpartition("0::")[2].strip().lstrip("/")
        quota, period = (groups / group / "cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    return allowed
