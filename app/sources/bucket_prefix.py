"""Prefixes of object stores: how they are written, and which ones the server may read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.core.errors import Validation

SCHEMES = ("s3", "gs")
MAX_CHARS = 2_048
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
REFUSAL = "the server may not read this prefix; its operator lists the prefixes that it may read (SIGHTLINE_BUCKETS)"


@dataclass(frozen=True, slots=True)
class BucketPrefix:
    """A bucket, or the objects below a path in it; `path` has no slash at its ends."""

    scheme: str
    bucket: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> BucketPrefix:
        """Parse `s3://bucket/path`; percent signs stay as they are. Raises ValueError."""
        prefix = cls.from_url(text)
        if prefix.scheme not in SCHEMES or not BUCKET.fullmatch(prefix.bucket):
            raise ValueError("a prefix is written s3://BUCKET/PATH or gs://BUCKET/PATH")
        if len(text) > MAX_CHARS or not text.isprintable():
            raise ValueError(f"a prefix has at most {MAX_CHARS} characters, all printable")
        if prefix.path and any(step in ("", ".", "..") for step in prefix.path.split("/")):
            raise ValueError("the path of a prefix has no empty step, . or ..")
        return prefix

    @classmethod
    def from_url(cls, url: str) -> BucketPrefix:
        """The prefix or object of a URL, which the caller has checked."""
        scheme, _, rest = url.partition("://")
        bucket, _, path = rest.partition("/")
        return cls(scheme, bucket, path.removesuffix("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")

    def contains(self, other: BucketPrefix) -> bool:
        """Whether `other` is this prefix or lies below it."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return False
        return self.path in ("", other.path) or other.path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class AllowedBuckets:
    """The prefixes that the operator allows the server to read, with everything below them."""

    roots: tuple[BucketPrefix, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowedBuckets:
        """Parse prefixes with commas between them. Raises ValueError for one that is no prefix."""
        return cls(tuple(BucketPrefix.parse(one.strip()) for one in text.split(",") if one.strip()))

    def parse_prefix(self, text: str) -> BucketPrefix:
        """Parse a prefix. Raises Validation unless the server may read it."""
        try:
            prefix = BucketPrefix.parse(text)
        except ValueError as error:
            raise Validation(str(error)) from None
        self.require(prefix)
        return prefix

    def allows(self, prefix: BucketPrefix) -> bool:
        """Whether the server may read this prefix or object."""
        return any(root.contains(prefix) for root in self.roots)

    def require(self, prefix: BucketPrefix) -> None:
        """Raise Validation unless the server may read this prefix or object."""
        if not self.allows(prefix):
            raise Validation(REFUSAL)
