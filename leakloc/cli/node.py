"""`leakloc node`: receive studies over the network, analyze them and return the results."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from leakloc.cli.codes import ANALYSIS_FAILED, DONE
from leakloc.cli.shared import settings_of
from leakloc.core.errors import SettingsError
from leakloc.services.batch.engine import WorkOptions
from leakloc.services.node.node import Node
from leakloc.services.node.receiver import Listen, titles
from leakloc.services.node.sender import Peer, echo

if TYPE_CHECKING:
    from leakloc.core.settings import Settings


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    settings = settings_of(options)
    if options.check:
        return _check(options, settings)
    if options.output is None:
        raise SettingsError("specify the output folder: -o OUT")
    if options.workers is not None and options.workers < 1:
        raise SettingsError("--workers requires a number >= 1")
    listen = listen_of(options)
    node = Node(
        options.output,
        settings,
        None if options.orthanc else listen,
        options.orthanc,
        Peer.parse(options.return_to) if options.return_to else None,
        WorkOptions(workers=options.workers),
        ready=lambda port: _print_ready(options, port),
    )
    _log_to_stderr(verbose=options.verbose)
    with suppress(KeyboardInterrupt):  # normal way to stop the service
        node.run()
    return DONE


def listen_of(options: argparse.Namespace) -> Listen:
    """Return the listening address and the allowed AE titles.

    Raises
    ------
    SettingsError
        If the options are incompatible.
    """
    return Listen(options.aet, options.port, options.bind, titles(options.allow))


def _check(options: argparse.Namespace, settings: Settings) -> int:
    peer = Peer.parse(options.check)
    answers = echo(peer, options.aet, settings.node)
    if options.json:
        print(json.dumps({"peer": str(peer), "answers": answers}))
    else:
        print(f"{peer} {'answers' if answers else 'does not answer'}")
    return DONE if answers else ANALYSIS_FAILED


def _print_ready(options: argparse.Namespace, port: int) -> None:
    if options.json:
        print(json.dumps({"aet": options.aet, "bind": options.bind, "port": port}), flush=True)
    else:
        print(f"{options.aet} listens on {options.bind} port {port}", flush=True)


def _log_to_stderr(*, verbose: bool) -> None:
    """Log only the node itself: logs of other libraries may contain header values."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("leakloc.node")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
