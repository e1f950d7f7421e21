"""`sightline move`: shows how far a move is, and what came of it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.core.settings import Settings
from app.service.move import make_target
from app.service.move import move as run

MAX_SHOWN = 20


def move(settings: Settings, console: Console, database: str | None, media: str | None, data_dir: Path | None) -> int:
    """Copy everything into another place; the exit code. Raises StartupError."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            name = what.partition(" of ")[0]
            if name not in tasks:
                tasks[name] = progress.add_task(what)
            progress.update(tasks[name], description=what, completed=done, total=total)

        moved = run(settings, make_target(settings, database, media, data_dir), report)
    said = "everything is there already" if moved.was_there else "moved and compared"
    console.print(f"{said}: {moved.rows} rows, {moved.files} files, {moved.uploads} uploads that wait")
    for sha256 in moved.missing[:MAX_SHOWN]:
        console.print(f"the source has lost or altered the file {sha256}", highlight=False)
    if moved.missing:
        console.print(f"{len(moved.missing)} files were not in the source; `sightline verify` names their pictures")
    return 1 if moved.missing else 0
