"""The command line."""


class ServerError(Exception):
    """The server does not answer, or refuses; the text says why in one line."""
