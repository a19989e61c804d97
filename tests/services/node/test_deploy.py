"""The deployment recipes: they parse, name options that exist, and run without privileges."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from leakloc.cli.node import listen_of
from leakloc.cli.parser import make_parser
from leakloc.core.settings import Settings
from leakloc.services.node.sender import Peer

DEPLOY = Path(__file__).parents[3] / "deploy"
yaml = pytest.importorskip("yaml")


def _options(arguments: list[str]) -> Any:
    """The options of a command line, checked as the command checks them."""
    assert arguments[0] == "node"
    options = make_parser().parse_args(arguments)
    listen_of(options)
    if options.return_to:
        Peer.parse(options.return_to)
    if options.check:
        Peer.parse(options.check)
    return options


def _instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


def test_containerfile() -> None:
    found = _instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert {name for name, _ in found} <= known | {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    last = dict(found)
    assert last["USER"] not in ("0", "root")
    assert json.loads(last["ENTRYPOINT"]) == ["leakloc"]
    options = _options(json.loads(last["CMD"]))
    check = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    asked = _options(check[1:])
    peer = Peer.parse(asked.check)
    assert (peer.title, peer.port) == (options.aet, options.port)
    assert asked.aet in listen_of(options).allow
    for name, what in found:
        if name == "COPY" and not what.startswith("--from"):
            for source in what.split()[:-1]:
                assert (DEPLOY.parent / source).exists(), source
        if name == "RUN":
            assert "curl" not in what and "sudo" not in what


def test_compose() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    node, orthanc = compose["services"]["node"], compose["services"]["orthanc"]
    options = _options(node["command"])
    settings = json.loads((DEPLOY / "orthanc.json").read_text())
    title, host, port = settings["DicomModalities"]["leakloc"]
    assert (title, host, port) == (options.aet, "node", options.port)
    returns = Peer.parse(options.return_to)
    assert (returns.title, returns.port) == (settings["DicomAet"], settings["DicomPort"])
    assert settings["DicomAet"] in listen_of(options).allow
    assert (DEPLOY / node["build"]["context"] / node["build"]["dockerfile"]).resolve().exists()
    for service in (node, orthanc):
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists()
    assert not {"privileged", "network_mode"} & {*node, *orthanc}


def test_recipe_and_environment() -> None:
    Settings.load(DEPLOY / "node.toml")
    # What is commented out is right too.
    text = re.sub(r"^# (\w+ = )", r"\1", (DEPLOY / "node.toml").read_text(), flags=re.M)
    Settings.from_dict(tomllib.loads(text))
    for line in (DEPLOY / "node.env").read_text().splitlines():
        name, equals, value = line.removeprefix("# ").partition("=")
        if equals and name == "LEAKLOC_NODE_OPTIONS":
            _options(["node", "-o", "out", *shlex.split(value)])


def test_systemd_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "leakloc-node.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, flags=re.M)
    words = shlex.split(command)
    assert words[-1] == "$LEAKLOC_NODE_OPTIONS"
    _options(words[1:-1])
    assert re.search(r"^User=leakloc$", text, flags=re.M)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "leakloc-node.service"
    unit.write_text(text.replace(words[0], shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "leakloc-node" not in done.stderr, done.stderr


def test_readme_names_what_is_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    there = {path.name for path in DEPLOY.iterdir()} - {"README.md"}
    assert {name for name in there if f"`{name}`" in text} == there
    for name in re.findall(r"`node\.(\w+)`", text):
        if name != "toml" and name != "env":
            assert name in type(Settings().node).model_fields, name
