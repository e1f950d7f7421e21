"""Where the snapshots of the indexes of a space lie, and which of them nobody needs any more.

The space that serves has its snapshots in `snapshots/LABEL/TARGET`; one that filled beside another has them, then too,
in `snapshots/@FINGERPRINT/LABEL/TARGET`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

MARK = "@"  # no label begins with it
DIGITS = 16  # of a fingerprint, in the name of its folder


def snapshot_folder(root: Path, space: str) -> Path:
    """The folder of a space that fills beside another one."""
    return root / f"{MARK}{space[:DIGITS]}"


def list_folders(root: Path) -> list[Path]:
    """The folders of all spaces."""
    return [root, *root.glob(f"{MARK}*")]


def remove_snapshots(folder: Path) -> None:
    """Remove the snapshots of one space, but not those of others in folders below it."""
    if folder.name.startswith(MARK):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith(MARK):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def remove_other_snapshots(root: Path, serving: str, filling: str | None) -> Path:
    """Remove the snapshots of all spaces but these; returns the folder of the one that serves."""
    own = snapshot_folder(root, serving)
    folder = own if own.is_dir() else root
    kept = {folder} | ({snapshot_folder(root, filling)} if filling else set())
    for other in list_folders(root):
        if other not in kept:
            remove_snapshots(other)
    return folder
