"""Inference sessions (CPU) for the networks shipped with the package."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from leakloc.core.errors import LeaklocError
from leakloc.core.extras import LazyModule

onnxruntime = LazyModule("onnxruntime")  # relabeling does not need it

_MAX_THREADS: Final = 2
"""Maximum number of processor threads of a session."""


def network_session(path: Path, name: str) -> Any:
    """Return a cached ``onnxruntime.InferenceSession``.

    It uses two processor threads, or fewer if ``OMP_NUM_THREADS`` is less, which schedulers and
    `leakloc.services.batch` set.

    Parameters
    ----------
    path : Path
        Weights file (ONNX).
    name : str
        Name of the network in error messages.

    Raises
    ------
    LeaklocError
        If the weights are not installed.
    """
    if not path.is_file():
        raise LeaklocError(
            f"the weights of the {name} network are missing ({path.name}): "
            "the installation is incomplete; reinstall leakloc"
        )
    return _session(str(path), min(_MAX_THREADS, _allowed()))


def _allowed() -> int:
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(int(value), 1) if value.isdigit() else os.cpu_count() or 1


@lru_cache(maxsize=5)
def _session(path: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # otherwise 200 MB stay allocated
    # Idle threads must not occupy the processor.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
