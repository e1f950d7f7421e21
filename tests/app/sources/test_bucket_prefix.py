from __future__ import annotations

import pytest

from app.core.errors import Validation
from app.sources.bucket_prefix import AllowedBuckets, BucketPrefix


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://photos", ("s3", "photos", "")),
        ("s3://photos/", ("s3", "photos", "")),
        ("gs://my.photos-2/a/b c", ("gs", "my.photos-2", "a/b c")),
        ("s3://photos/ü%2e%2e?x=#y", ("s3", "photos", "ü%2e%2e?x=#y")),
    ],
)
def test_a_prefix_is_read_as_it_is_written(text: str, parts: tuple[str, str, str]) -> None:
    prefix = BucketPrefix.parse(text)
    assert (prefix.scheme, prefix.bucket, prefix.path) == parts
    assert str(prefix) == text.removesuffix("/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "photos",
        "s3:photos",
        "http://photos/a",
        "S3://photos",
        "s3://",
        "s3:///a",
        "s3://Photos",
        "s3://photos.example.org:9000/a",
        "s3://user@photos",
        "s3://ph",
        "s3://-photos",
        "s3://photos//a",
        "s3://photos/a//b",
        "s3://photos/a/../b",
        "s3://photos/.",
        "s3://photos/a\nb",
        "s3://photos/a\0",
        "s3://photos/" + "a" * 2_100,
    ],
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        BucketPrefix.parse(text)
    with pytest.raises(Validation):
        AllowedBuckets.parse("s3://photos").parse_prefix(text)


def test_only_what_the_operator_lists_and_what_lies_below_it_may_be_read() -> None:
    buckets = AllowedBuckets.parse("s3://photos/2026, gs://photos,")
    for text in ("s3://photos/2026", "s3://photos/2026/", "s3://photos/2026/may", "gs://photos", "gs://photos/2025"):
        assert str(buckets.parse_prefix(text)) == text.removesuffix("/")
    for text in ("s3://photos", "s3://photos/2026b", "s3://photos/202", "s3://photos2/2026", "gs://photos2"):
        with pytest.raises(Validation, match="SIGHTLINE_BUCKETS"):
            buckets.parse_prefix(text)
    with pytest.raises(Validation, match="SIGHTLINE_BUCKETS"):
        AllowedBuckets().parse_prefix("s3://photos")


def test_an_object_lies_in_the_prefix_that_it_is_listed_under() -> None:
    place = BucketPrefix.from_url("s3://photos/2026/a\u00a0b//c.jpg")
    assert place == BucketPrefix("s3", "photos", "2026/a\u00a0b//c.jpg")
    AllowedBuckets.parse("s3://photos/2026").require(place)
    with pytest.raises(Validation):
        AllowedBuckets.parse("s3://photos/2025").require(place)


def test_a_root_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="s3://BUCKET/PATH"):
        AllowedBuckets.parse("s3://photos,/photos")
