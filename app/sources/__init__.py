"""Where pictures come from when they are not sent: one module for each kind of source.

To add one: a subclass of `base.Kind` in a module of its own, a line in `registry.KINDS`, and, for an option of its own,
a field of `app.api.routes.ingest.IngestIn` of that name.
"""
