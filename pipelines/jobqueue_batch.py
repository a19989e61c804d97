"""Run a batch on Dask workers started by the job queue of a cluster.

    pip install '.[batch]' dask-jobqueue
    python jobqueue_batch.py --queue slurm --most 50 -o OUT ROOT...

Start it on a login node. Each job of the queue is one worker, which analyzes one study at a
time; jobs are requested while studies are waiting and released afterwards. Input, OUT and the
environment must have the same paths on every node. Site settings (partition, account,
network interface) are set in ~/.config/dask/jobqueue.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dask_jobqueue
from dask_jobqueue.local import LocalCluster

from leakloc.core.settings import Settings
from leakloc.services.batch.batch import Batch
from leakloc.services.batch.engine import WorkOptions

QUEUES = {
    "slurm": dask_jobqueue.SLURMCluster,
    "pbs": dask_jobqueue.PBSCluster,
    "sge": dask_jobqueue.SGECluster,
    "lsf": dask_jobqueue.LSFCluster,
    "local": LocalCluster,  # no queue: for testing this recipe
}


def main() -> None:
    """Run the batch specified on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queue", choices=QUEUES, default="slurm")
    parser.add_argument("--most", type=int, default=20, help="maximum number of simultaneous jobs")
    parser.add_argument("--memory", default="4GB", help="memory of one job")
    parser.add_argument("--recipe", type=Path, help="settings, a TOML file")
    options = parser.parse_args()

    settings = Settings.load(options.recipe) if options.recipe else Settings()
    queue = QUEUES[options.queue](
        cores=1,  # one study at a time
        processes=1,
        memory=options.memory,
        nanny=False,  # analyses run in separate processes: a crash does not end the worker
    )
    with queue as cluster:
        cluster.adapt(minimum=1, maximum=options.most)
        work = WorkOptions(scheduler=cluster.scheduler_address)
        tally = Batch(options.output, settings, work).run(options.roots)
    print(f"{tally.finished} of {tally.found} finished, {tally.failed} failed")


if __name__ == "__main__":
    main()
