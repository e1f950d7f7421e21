"""Which formats a server accepts, by its setting."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.core import picture_formats
from app.core.picture_formats import (
    FORMATS,
    default_formats,
    explain_refusal,
    find_download,
    find_modules,
    list_accepted_types,
    list_labels,
    parse_formats,
)
from app.core.settings import Settings

CORE = {"jpeg", "png", "webp", "gif", "avif", "heic", "tiff", "bmp"}


def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installation without `[formats]`."""
    monkeypatch.setattr(picture_formats, "is_installed", lambda name: not FORMATS[name].is_extra)
    monkeypatch.setattr(picture_formats, "default_formats", lambda: frozenset(CORE))


@pytest.mark.parametrize(
    ("text", "more", "less"),
    [
        ("", set(), set()),
        ("default", set(), set()),
        ("-heic", set(), {"heic"}),
        (" -HEIC, -raw ", set(), {"heic", "raw"}),
        ("+jpeg2000", {"jpeg2000"}, set()),
        ("default +jpeg2000 -tiff", {"jpeg2000"}, {"tiff"}),
    ],
)
def test_words_add_to_the_default_and_take_from_it(text: str, more: set[str], less: set[str]) -> None:
    assert parse_formats(text) == (default_formats() | more) - less
    assert default_formats() == CORE | {"jxl", "raw"}  # of which the tests have the extra


def test_names_alone_are_the_whole_list() -> None:
    assert parse_formats("png,jpeg") == {"png", "jpeg"}
    assert parse_formats("png jpeg -png") == {"jpeg"}


@pytest.mark.parametrize("text", ["heif", "-psd", "+", "png -png"])
def test_a_list_that_means_nothing_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="no format"):
        Settings(formats=text)
    assert Settings(formats="-heic").accepted_formats == default_formats() - {"heic"}


def test_a_format_without_its_extra_is_off_and_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    without_extras(monkeypatch)
    assert parse_formats("-jxl") == CORE
    for text in ("jxl", "+raw"):
        with pytest.raises(ValueError, match=r"pip install 'sightline-search\[formats\]'"):
            parse_formats(text)
    assert "pip install" in explain_refusal("raw")
    assert "SIGHTLINE_FORMATS" in explain_refusal("jpeg2000")


def test_a_refusal_names_the_setting() -> None:
    assert explain_refusal("heic") == "HEIC files are switched off on this server (SIGHTLINE_FORMATS)"


def test_labels_and_types_are_in_the_order_of_the_table() -> None:
    assert list_labels({"webp", "jpeg", "png"}) == "JPEG, PNG and WebP"
    assert list_labels({"png"}) == "PNG"
    assert list_accepted_types({"bmp", "png"}) == "image/png,image/bmp,.png,.apng,.bmp,.dib"


def test_modules_are_those_of_the_formats_that_are_on() -> None:
    assert find_modules({"jpeg", "heic", "raw"}) == ["pi_heif", "rawpy"]


def test_a_raw_file_is_downloaded_by_the_name_of_its_camera() -> None:
    assert find_download("raw", "DCIM/IMG_1.CR3") == ("image/x-canon-cr3", ".cr3")
    assert find_download("raw", "IMG_1") == find_download("raw", None) == ("image/x-raw", ".raw")
    assert find_download("heic", "a.jpg") == ("image/heic", ".heic")
    assert find_download("jpeg", None) == ("image/jpeg", ".jpeg")
