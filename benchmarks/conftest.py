"""Write a JSON record of each run with machine, library versions and median times."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORDS = Path(__file__).parent / "records"
LIBRARIES = ("leakloc", "numpy", "scipy", "SimpleITK", "pydicom", "onnxruntime")


def pytest_sessionfinish(session):
    """Write `records/<day>-speed-<cores>-cores.json` with the median of every benchmark run."""
    benchmarks = getattr(session.config, "_benchmarksession", None)
    ran = [b for b in benchmarks.benchmarks if b.stats.rounds] if benchmarks else []
    if not ran:
        return
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "median_s": {b.name.removeprefix("test_"): round(b.stats.median, 4) for b in ran},
        "rounds": {b.name.removeprefix("test_"): b.stats.rounds for b in ran},
        "extra": {b.name.removeprefix("test_"): b.extra_info for b in ran if b.extra_info},
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{record['date'][:10]}-speed-{os.cpu_count()}-cores.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\nrecord: {path}")


def machine() -> dict[str, object]:
    """Return the machine properties that affect the results, without the host name."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": cpu,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[2], 2),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries used."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
