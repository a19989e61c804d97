"""Benchmarks of `leakloc batch`: throughput, overhead, study search, long runs, and kills.

    python benchmarks/batch.py throughput --studies 4      1 and 2 workers, and without batch
    python benchmarks/batch.py machinery --studies 16      the same, with analyses that only wait
    python benchmarks/batch.py many --studies 200          memory and job database over a long run
    python benchmarks/batch.py kill --times 10             kill -9 at random times
    python benchmarks/batch.py find --studies 5000         search of a folder tree

Each prints one JSON object, which includes the machine load: on a busy machine compare CPU time,
not wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
FAKES = HERE.parent / "tests" / "services" / "batch"
SAMPLE = HERE.parent / "sample_data" / "postoperative" / "dicom"
sys.path.insert(0, str(FAKES))

import batch_fakes as fakes  # noqa: E402

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"
)
BARE = """
import sys
from pathlib import Path
from leakloc.pipeline import analyze
for n, path in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    analyze(path, output=Path(sys.argv[2], str(n)))
"""


def copies(folder: Path, count: int) -> None:
    """Write copies of the sample study, each with a new Study Instance UID."""
    import pydicom
    from pydicom.uid import generate_uid

    for number in range(count):
        uid = generate_uid()
        for file in SAMPLE.rglob("*"):
            if file.is_file():
                dataset = pydicom.dcmread(file)
                dataset.StudyInstanceUID = uid
                target = folder / f"{number:03d}" / file.relative_to(SAMPLE)
                target.parent.mkdir(parents=True, exist_ok=True)
                dataset.save_as(target)


def timed(command: list[str]) -> dict[str, float]:
    """Return wall time and CPU time of a command and its child processes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ONE_THREAD})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "load": os.getloadavg()[0]}


def throughput(scratch: Path, options: argparse.Namespace) -> dict[str, object]:
    copies(scratch / "in", options.studies)
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "workers_1": [], "workers_2": []}
    for repeat in range(options.repeats):
        out = scratch / f"out{repeat}"
        out.mkdir()
        runs["bare"].append(timed([sys.executable, "-c", BARE, str(scratch / "in"), str(out)]))
        for workers in (1, 2):
            command = [sys.executable, "-m", "leakloc", "batch", str(scratch / "in"), "--workers"]
            runs[f"workers_{workers}"].append(
                timed([*command, str(workers), "-o", str(out / f"batch{workers}")])
            )

    def best(name: str, what: str) -> float:
        return min(run[what] for run in runs[name])

    inside = spent(scratch / "out0" / "batch1")
    return {
        "studies": options.studies,
        "runs": runs,
        "speedup_of_2_workers": round(best("workers_1", "wall_s") / best("workers_2", "wall_s"), 2),
        "cpu_of_analyses_2_workers_over_1": round(spent(scratch / "out0" / "batch2") / inside, 3),
        "cpu_of_batch_and_analyses_over_bare": round(
            (best("workers_1", "cpu_s") + inside) / best("bare", "cpu_s"), 3
        ),
        "wall_of_batch_over_bare": round(best("workers_1", "wall_s") / best("bare", "wall_s"), 3),
        "cpu_s_within_analyses": round(inside, 1),
    }


def machinery(scratch: Path, options: argparse.Namespace) -> dict[str, object]:
    """Measure the overhead of the batch with analyses that only wait.

    The time is then the same for one and two workers, also on a busy machine.
    """
    from leakloc.core.settings import Settings
    from leakloc.services.batch import run
    from leakloc.services.batch.batch import Batch
    from leakloc.services.batch.engine import WorkOptions

    run.PRELOAD[:] = ["leakloc.report.model"]
    for number in range(options.studies):
        fakes.make_study(scratch / "in" / str(number), number, f"sleep {options.seconds}")
    found: dict[str, object] = {"studies": options.studies, "seconds_each": options.seconds}
    spans = {}
    for workers in (1, 2):
        ends: list[float] = []
        cpu: list[float] = []

        def note(*_: object, ends: list[float] = ends, cpu: list[float] = cpu) -> None:
            ends.append(time.perf_counter())
            cpu.append(time.process_time())

        work = WorkOptions(workers=workers, analyze=fakes.ANALYZE)
        out = scratch / f"out{workers}"
        Batch(out, Settings(), work, ended=note).run([scratch / "in"])
        # From the end of the first round, because the start-up time does not depend on the number.
        spans[workers] = (ends[-1] - ends[workers - 1]) / (len(ends) - workers)
        found[f"workers_{workers}"] = {
            "seconds_per_study": round(spans[workers], 3),
            "over_ideal": round(spans[workers] * workers / options.seconds, 3),
            "cpu_s_of_batch_per_study": round((cpu[-1] - cpu[0]) / (len(cpu) - 1), 3),
        }
    return found | {"speedup": round(spans[1] / spans[2], 2), "load": os.getloadavg()[0]}


def spent(output: Path) -> float:
    """Return the CPU time of the analyses, which is not included in that of this process."""
    return sum(entry.cpu_s or 0 for entry in worked(output))


def worked(output: Path) -> list:
    from leakloc.services.batch.ledger import Ledger

    return Ledger(output).entries()


def many(scratch: Path, options: argparse.Namespace) -> dict[str, object]:
    """Run a long batch in which a tenth of the studies fail; sample its memory."""
    import psutil

    ways = ["segfault", "killed", "exit", "input", "unexpected", "eat 900", "sleep 60"]
    broken = {}
    for number in range(options.studies):
        way = ways[number // 10 % len(ways)] if number % 10 == 3 else "eat 100"
        if number % 10 == 3:
            broken[f"{fakes.UID_ROOT}.{number}"] = way
        else:
            way = ""
        fakes.make_study(scratch / "in" / str(number), number, way)
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path; from leakloc.services.batch.batch import Batch\n"
        "from leakloc.services.batch.engine import WorkOptions\n"
        "from leakloc.core.settings import Settings\n"
        "if __name__ == '__main__':\n"
        "    work = WorkOptions(workers=2, analyze='batch_fakes:behave', timeout_s=3,\n"
        "                       memory_mib=600, retries=0)\n"
        "    Batch(Path(sys.argv[2]), Settings(), work).run([Path(sys.argv[1])])\n"
    )
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(scratch / "in"), str(scratch / "out"), str(FAKES)]
    )
    watched, samples = psutil.Process(process.pid), []
    while process.poll() is None:
        try:
            samples.append(watched.memory_info().rss / 2**20)
        except psutil.Error:
            break
        time.sleep(0.2)
    entries = worked(scratch / "out")
    failed = {entry.name: entry.error_class for entry in entries if entry.state == "failed"}
    quarter = len(samples) // 4
    return {
        "studies": options.studies,
        "seconds": round(time.perf_counter() - start, 1),
        "states": Counter(entry.state.value for entry in entries),
        "errors": Counter(failed.values()),
        "exactly_the_broken_failed": set(failed) == set(broken),
        "reports": len(list((scratch / "out").glob("*/report.json"))),
        "batch_mib_second_and_last_quarter": [
            round(sum(part) / max(1, len(part)))
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        ],
        "load": os.getloadavg()[0],
    }


def kill(scratch: Path, options: argparse.Namespace) -> dict[str, object]:
    """Kill the batch repeatedly, then let it finish."""
    for number in range(options.studies):
        fakes.make_study(scratch / "in" / str(number), number, "sleep 0.3")
    command = [sys.executable, str(FAKES / "batch_fakes.py"), str(scratch / "in")]
    command.append(str(scratch / "out"))
    random.seed(options.seed)
    first_detected: dict[str, int] = {}
    changed = halves = 0
    finished = []
    for _ in range(options.times):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(options.shortest, options.longest))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for report in (scratch / "out").glob("*/report.json"):
            stamp = report.stat().st_mtime_ns
            json.loads(report.read_text())
            changed += first_detected.setdefault(report.parent.name, stamp) != stamp
        for folder in (scratch / "out").iterdir():
            visible = folder.is_dir() and not folder.name.startswith(".")
            halves += visible and not (folder / "report.json").exists()
        finished.append(len(first_detected))
    subprocess.run(command, check=True, capture_output=True)
    for report in (scratch / "out").glob("*/report.json"):
        stamp = report.stat().st_mtime_ns
        changed += first_detected.setdefault(report.parent.name, stamp) != stamp
    entries = worked(scratch / "out")
    return {
        "kills": options.times,
        "finished_after_each_kill": finished,
        "states": Counter(entry.state.value for entry in entries),
        "reports": len(first_detected),
        "written_twice": changed,
        "half_written": halves,
        "interruptions": sum(entry.interruptions for entry in entries),
        "load": os.getloadavg()[0],
    }


def find(scratch: Path, options: argparse.Namespace) -> dict[str, object]:
    from leakloc.core.settings import Settings
    from leakloc.services.batch.finder import ScanCache, find_studies
    from leakloc.services.batch.ledger import Ledger

    for number in range(options.studies):
        folder = scratch / "in" / f"{number % 100:02d}" / str(number)
        fakes.make_study(folder / "series", number)
        head = fakes.header(f"{fakes.UID_ROOT}.{number}")
        for image in range(2, options.images):
            (folder / "series" / f"im{image}").write_bytes(head + bytes(2000))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        search = find_studies(
            [scratch / "in"], Settings().loaders, cache=ScanCache(Ledger(scratch / "out"))
        )
        seconds.append(round(time.perf_counter() - start, 2))
    return {
        "studies": len(search.studies),
        "files": search.n_files,
        "first_s": seconds[0],
        "again_s": seconds[1],
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("throughput", "machinery", "many", "kill", "find"))
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--images", type=int, default=20, help="find: images per study")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="machinery: duration of an analysis"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="throughput: number of runs; the best is used"
    )
    parser.add_argument("--times", type=int, default=10, help="kill: number of kills")
    parser.add_argument("--shortest", type=float, default=0.5, help="kill: minimum time in s")
    parser.add_argument("--longest", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="leakloc-benchmark-"))
    try:
        result = globals()[options.what](scratch, options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(json.dumps({"benchmark": f"batch {options.what}", **result}))


if __name__ == "__main__":
    main()
