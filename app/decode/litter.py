"""Litter: what systems, network drives and programs leave beside pictures. Folders, archives and data sets skip it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

# Whole steps of a path, in lower case. `@eadir` and `#recycle`: Synology; `@recycle` and the snapshots: QNAP.
_STEPS = frozenset(
    {
        *("__macosx", "__pycache__", "node_modules", "bower_components", "site-packages", "lost+found", "_gsdata_"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@synoresource", "@sharebin"),
        *("$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    }
)
_PATTERNS = (
    "found.[0-9][0-9][0-9]",  # what a check of a Windows disk found
    "*.lrdata",  # the previews of Lightroom
    "*.aae",  # Apple Photos: the edits of a picture, as parameters
    "synofile_thumb_*",
    "synophoto_thumb_*",
    "*.photoslibrary/resources",  # the previews of Photos on a Mac; the pictures are in `originals`
    "*.photoslibrary/private",
    "*.photoslibrary/database",
    "*.photolibrary/previews",
    "*.photolibrary/thumbnails",
    "*.photolibrary/data.noindex",
    "*.aplibrary/previews",
    "*.aplibrary/thumbnails",
    "photo booth library/thumbnails",
    "captureone/cache",
    "appdata_*/preview",  # of Nextcloud
)
_PATTERN = re.compile(
    r"\A(?:.*/)?(?:"
    + "|".join(re.escape(one).replace(r"\*", "[^/]*").replace(r"\[0\-9\]", "[0-9]") for one in _PATTERNS)
    + r")(?:/.*)?\Z",
    re.DOTALL,
)


def is_litter(name: str) -> bool:
    """Whether a relative path (with forward slashes) is hidden or litter, or lies in such a folder."""
    steps = name.lower().split("/")
    hidden = any(step.startswith(".") and step != ".." for step in steps)
    return not name or hidden or not _STEPS.isdisjoint(steps) or _PATTERN.match("/".join(steps)) is not None


def is_excluded(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`*`, `?`, `[...]`) fits a relative path, or a folder that it lies in.

    A pattern without a slash fits a step of the path, wherever it is; one with a slash fits from the beginning.
    """
    steps = name.split("/")
    starts = ["/".join(steps[: n + 1]) for n in range(len(steps))]
    for pattern in patterns:
        plain = pattern.removeprefix("./").strip("/")
        tried = starts if "/" in plain else steps
        if any(fnmatchcase(one, plain) for one in tried):
            return True
    return False
