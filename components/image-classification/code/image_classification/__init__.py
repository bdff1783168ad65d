"""What the image-classification tools share: datasets, tensors, networks, fitting, measuring and drawing.

Importing this package, before anything else is imported, keeps the process quiet: a tool's worker imports its code once
and forks for each artifact, so no library may start a thread, or talk to anybody, merely because it was imported.
"""

from __future__ import annotations

import os

# onnxruntime's wheels upload usage events unless this is set before the import; that also starts a thread.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenBLAS starts a thread per core when numpy is imported; numpy does no linear algebra here, torch brings its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The allocator inside pyarrow starts a housekeeping thread when it is loaded.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
# torch's threads wait for each other by spinning, unless this is set before its OpenMP library is loaded: on a machine
# with other work, that made a training ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
