"""What the tests of the encoders share."""

from tests.uncovered import uncovered

__all__ = ["uncovered"]
