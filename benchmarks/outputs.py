"""Processor time of each stage and each output of `leakloc analyze`, in a fresh process.

    python benchmarks/outputs.py sample_data/postoperative/dicom
    OMP_NUM_THREADS=1 python benchmarks/outputs.py STUDY --repeats 3      median of three

Prints one JSON object. Unlike wall time, processor time hardly depends on other programs. Outputs
are named by the code of the warning that reports their failure; those of DICOM are part of
``dicom_objects``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def measure(study: str, folder: str) -> dict[str, float]:
    """Analyze a study in this process and return the processor time of each part in s."""
    import resource

    from leakloc.cli import main
    from leakloc.pipeline import Clock
    from leakloc.report.writer import Draft

    spent = Counter(imports=time.process_time())
    stage, attempt, write_all = Clock.stage, Draft.attempt, Draft.write_all

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent[name] += time.process_time() - start

    @contextmanager
    def timed_stage(clock: Clock, name: str, fraction: float) -> Iterator[None]:
        with timed(name), stage(clock, name, fraction):
            yield

    def timed_attempt(draft: Draft, code: str, write: Callable[[], None], *names: str) -> None:
        with timed(f"writing: {code.removesuffix('_not_written')}"):
            attempt(draft, code, write, *names)

    def timed_writing(draft: Draft, analysis: Any) -> Any:
        with timed("writing"):
            return write_all(draft, analysis)

    Clock.stage, Draft.attempt, Draft.write_all = timed_stage, timed_attempt, timed_writing
    main(["analyze", study, "-o", folder, "--quiet"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        **{name: round(seconds, 2) for name, seconds in spent.items()},
        "total": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="folder with one study")
    parser.add_argument("--repeats", type=int, default=1, help="processes; the median is printed")
    parser.add_argument("--into", help=argparse.SUPPRESS)  # the report folder, in the new process
    options = parser.parse_args()
    if options.into is not None:
        print(json.dumps(measure(options.study, options.into)))
        return
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as scratch:
            into = str(Path(scratch, "report"))
            command = [sys.executable, __file__, options.study, "--into", into]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    threads = os.environ.get("OMP_NUM_THREADS")
    print(json.dumps({"cpu_s": median, "threads": threads, "load": os.getloadavg()[0]}, indent=2))


if __name__ == "__main__":
    main()
