"""The code that the image-classification tools share: datasets, tensors, networks, training, measuring and drawing.

Each tool imports this package before any other library. The package sets environment variables that keep the libraries
quiet: their import starts no thread and opens no network connection. A tool's worker needs this, because it imports the
tool's code once and forks a child for each artifact.
"""

from __future__ import annotations

import os

# Without this, the import of onnxruntime starts a thread that uploads usage events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenBLAS starts a thread per core when numpy is imported. numpy does no linear algebra here: torch has its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The allocator inside pyarrow starts a housekeeping thread when it is loaded.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
# Without this, torch's threads spin while they wait for each other. On a busy machine, that made a training ten times
# slower. It has an effect only before the import loads torch's OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
