"""Sightline: self-hosted image-text retrieval."""

import os

__version__ = "0.2.0"


def main() -> None:
    """The `sightline` script. Light, because every decode child imports what the script imports."""
    # OpenBLAS's threads spin for milliseconds after each product of a batch of queries; they sleep at once instead.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # before anything imports numpy
    from app.cli.main import main

    os.umask(0o077)  # of every command and its children: what they write is for this user alone
    main()
