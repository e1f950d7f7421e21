"""Sightline: self-hosted image-text retrieval."""

__version__ = "0.2.0"


def main() -> None:
    """The `sightline` script. Light, because every decode child imports what the script imports."""
    from app.cli.main import main

    main()
