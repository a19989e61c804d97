"""Running the networks that come with the package, on the processor."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from leakloc.core.errors import LeaklocError


def network_session(path: Path, name: str, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession``, made once.

    Parameters
    ----------
    path : Path
        Weights.
    name : str
        What the message calls the network.
    threads : int
        Processor threads; fewer where ``OMP_NUM_THREADS`` allows fewer, as schedulers and
        `leakloc.services.batch` set it.

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
    return _session(str(path), min(threads, _allowed()))


def _allowed() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(int(said), 1) if said.isdigit() else os.cpu_count() or 1


@lru_cache(maxsize=4)
def _session(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # or 200 MB stay taken after the last run
    # Waiting threads must not burn the processor that other work needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
