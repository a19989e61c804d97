"""`leakloc node`: receive studies over the network, analyze them and return the results."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import (
    ANALYSIS_FAILED,
    DONE,
    common_options,
    recipe_options,
    settings_of,
    terminated_like_interrupted,
)

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands
    from leakloc.core.settings import Settings
    from leakloc.services.node.receiver import Listen


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    node = commands.add_parser(
        "node",
        parents=[recipe_options(), common_options()],
        help="receive studies as a DICOM node, analyze them, return the results",
        description="Listens for C-STORE, or polls a DICOMweb server; analyzes each study once no "
        "more images arrive; returns SEG, SR and secondary captures. Stop with Ctrl-C or SIGTERM; "
        "a restart resumes. More settings: section [node] of a recipe, see `leakloc config`.",
    )
    node.add_argument("-o", "--output", type=Path, metavar="OUT", help="output folder")
    node.add_argument("--aet", default="LEAKLOC", metavar="AET", help="own AE title (LEAKLOC)")
    node.add_argument("--port", type=int, default=11112, metavar="PORT", help="port (11112)")
    node.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (127.0.0.1: this machine only; 0.0.0.0: all, needs --allow)",
    )
    node.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="AET",
        help="AE title allowed to send (repeatable, or comma-separated)",
    )
    node.add_argument("--return-to", metavar="AET@HOST:PORT", help="send results here by C-STORE")
    node.add_argument(
        "--orthanc",
        metavar="URL",
        help="instead of listening, poll this Orthanc or other DICOMweb server and store results "
        "there; user and password: LEAKLOC_DICOMWEB_USER, LEAKLOC_DICOMWEB_PASSWORD",
    )
    node.add_argument(
        "--workers", type=int, metavar="N", help="parallel analyses (number of cores)"
    )
    node.add_argument(
        "--check",
        metavar="AET@HOST:PORT",
        help="only send a C-ECHO to that node, calling as --aet; exit code 0 if it answers, else 4",
    )
    node.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.core.errors import SettingsError

    settings = settings_of(options)
    if options.check:
        return _check(options, settings)
    if options.output is None:
        raise SettingsError("specify the output folder: -o OUT")
    if options.workers is not None and options.workers < 1:
        raise SettingsError("--workers requires a number >= 1")
    from leakloc.services.batch.engine import WorkOptions
    from leakloc.services.node.node import Node
    from leakloc.services.node.sender import Peer

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
    try:
        with terminated_like_interrupted():
            node.run()
    except KeyboardInterrupt:  # normal way to stop the service
        pass
    return DONE


def listen_of(options: argparse.Namespace) -> Listen:
    """Return the listening address and the allowed AE titles.

    Raises
    ------
    SettingsError
        If the options are incompatible.
    """
    from leakloc.services.node.receiver import Listen, titles

    return Listen(options.aet, options.port, options.bind, titles(options.allow))


def _check(options: argparse.Namespace, settings: Settings) -> int:
    from leakloc.services.node.sender import Peer, echo

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
