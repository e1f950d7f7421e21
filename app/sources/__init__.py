"""Sources: where pictures come from when they are not sent. One module a kind; `kinds` is the table of them.

To add one: a `Kind` in a module of its own, a line in `kinds.KINDS`, and, for an option of its own, a field of
`app.api.ingest.IngestIn` of that name.
"""
