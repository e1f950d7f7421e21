"""Prefixes of object stores: how they are written, and which may be read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.core.errors import Validation

SCHEMES = ("s3", "gs")
MAX_CHARS = 2_048
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
REFUSAL = "the server may not read this prefix; its operator lists those that it may (SIGHTLINE_BUCKETS)"


@dataclass(frozen=True, slots=True)
class BucketPrefix:
    """A bucket, or what lies below a path in it, as below a folder; `path` has no slash at its ends."""

    scheme: str
    bucket: str
    path: str = ""

    @classmethod
    def of(cls, text: str) -> BucketPrefix:
        """The prefix that `text` names, as `s3://bucket/path`; nothing in it is decoded. Raises ValueError."""
        prefix = cls.split(text)
        if prefix.scheme not in SCHEMES or not BUCKET.fullmatch(prefix.bucket):
            raise ValueError("a prefix is written s3://BUCKET/PATH or gs://BUCKET/PATH")
        if len(text) > MAX_CHARS or not text.isprintable():
            raise ValueError(f"a prefix has at most {MAX_CHARS} characters, all printable")
        if prefix.path and any(step in ("", ".", "..") for step in prefix.path.split("/")):
            raise ValueError("the path of a prefix has no empty step, . or ..")
        return prefix

    @classmethod
    def split(cls, url: str) -> BucketPrefix:
        """The prefix or object of a URL that is known to be one."""
        scheme, _, rest = url.partition("://")
        bucket, _, path = rest.partition("/")
        return cls(scheme, bucket, path.removesuffix("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")

    def holds(self, other: BucketPrefix) -> bool:
        """Whether `other` is this prefix or lies below it."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return False
        return self.path in ("", other.path) or other.path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class AllowedBuckets:
    """The prefixes that the operator lets be read, with everything below them."""

    roots: tuple[BucketPrefix, ...] = ()

    @classmethod
    def of(cls, text: str) -> AllowedBuckets:
        """The prefixes of `text`, separated by commas. Raises ValueError for one that is none."""
        return cls(tuple(BucketPrefix.of(one.strip()) for one in text.split(",") if one.strip()))

    def prefix(self, text: str) -> BucketPrefix:
        """The prefix that `text` names. Raises Validation unless it is one of ours or lies below one."""
        try:
            prefix = BucketPrefix.of(text)
        except ValueError as error:
            raise Validation(str(error)) from None
        self.check(prefix)
        return prefix

    def check(self, prefix: BucketPrefix) -> None:
        """Raise Validation unless a prefix or an object is one of ours or lies below one."""
        if not any(root.holds(prefix) for root in self.roots):
            raise Validation(REFUSAL)
