"""Sightline: self-hosted image-text retrieval."""

import os

__version__ = "0.2.0"


def main() -> None:
    """The `sightline` script. Light, because every decode child imports what the script imports."""
    from app.cli.main import main

    os.umask(0o077)  # of every command and its children: what they write is for this user alone
    main()
