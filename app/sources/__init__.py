"""The places that pictures come from when no client uploads them: one module for each type of source.

To add one, write a subclass of `base.Source` in a module of its own, add it to `registry.SOURCE_TYPES`, and add a field
to `app.api.routes.ingest.IngestIn` for each option of its own.
"""
