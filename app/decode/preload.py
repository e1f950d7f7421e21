"""Imported by the fork server alone: what every decode child needs, loaded once and shared by all.

Nothing here may start a thread, for children are forked from the process that imports it.
"""

from __future__ import annotations

import importlib
import os
import signal

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is loaded, which would start threads otherwise

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the service drains on it and needs its children until then

_PLUGINS = ("Avif", "Gif", "Jpeg", "Mpo", "Png", "WebP")
for _name in ("app.decode.pool", "app.decode.sandbox", *(f"PIL.{name}ImagePlugin" for name in _PLUGINS)):
    importlib.import_module(_name)
