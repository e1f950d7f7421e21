"""The fork server imports this module: it loads once what every decode child needs, and the children share it.

No module here may start a thread, for the children are forked from the process that imports it.
"""

from __future__ import annotations

import importlib
import os
import signal

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported, which else starts threads

FORK_SERVER_PID = os.getpid()  # children inherit it, and compare it with the id of their parent

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the service drains on SIGTERM, and needs its children until then

_PLUGINS = ("Avif", "Gif", "Jpeg", "Mpo", "Png", "WebP")
_OURS = ("app.decode.pool", "app.decode.archive", "app.decode.picture")
for _name in (*_OURS, *(f"PIL.{name}ImagePlugin" for name in _PLUGINS)):
    importlib.import_module(_name)
