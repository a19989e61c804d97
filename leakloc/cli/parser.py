"""Command-line arguments of all commands.

`command` of the parsed options names the module of `leakloc.cli` that runs the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import suggestion
from leakloc.core.version import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_SIZES: Final = {"": 1, "M": 1, "G": 1024, "T": 1024**2}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="leakloc",
        description="Detects CSF outside the dura on MR myelography and names the vertebral level. "
        "Research use only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"leakloc {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        _add_analyze,
        _add_relabel,
        _add_batch,
        _add_node,
        _add_diff,
        _add_series,
        _add_phantom,
        _add_evaluate,
        _add_tune,
        _add_config,
        _add_schema,
        _add_completion,
        _add_version,
    ):
        add(commands)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def check_spelling(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Exit with a suggestion if the command or a long option is unknown.

    argparse reports missing arguments before unknown ones, and suggests nothing.
    """
    commands = commands_of(parser)
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            break
        _check_option(parser, word)
    else:
        return
    if word not in commands:
        names = ", ".join(commands)
        hint = suggestion(word, commands) or f"; commands: {names}"
        parser.error(f"no command is named {word!r}{hint}")
    for option in words:
        if option == "--":
            return
        _check_option(commands[word], option)


def _check_option(parser: argparse.ArgumentParser, word: str) -> None:
    name = word.partition("=")[0]
    if not name.startswith("--") or name == "--":
        return
    known = [option for action in parser._actions for option in action.option_strings]
    if not any(option.startswith(name) for option in known):  # abbreviations are valid
        hint = suggestion(name, known) or f"; `{parser.prog} --help` lists all options"
        parser.error(f"no option is named {name!r}{hint}")


def common_options() -> argparse.ArgumentParser:
    """Return the options of every command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="print details to stderr")
    common.add_argument("--json", action="store_true", help="print JSON")
    return common


def quiet_option() -> argparse.ArgumentParser:
    """Return the option of commands that show progress."""
    quiet = argparse.ArgumentParser(add_help=False)
    quiet.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="show neither progress nor a summary of what was written",
    )
    return quiet


def recipe_options() -> argparse.ArgumentParser:
    """Return the options of commands that use settings; see `shared.settings_of`."""
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument(
        "--pipeline",
        metavar="NAME|FILE",
        help="recipe: postoperative, spontaneous, research, or a TOML file",
    )
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting (repeatable); see `leakloc config`",
    )
    return recipe


def study_options() -> argparse.ArgumentParser:
    """Return the options of commands that read one study."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("study", type=Path, metavar="STUDY", help="folder, archive or file")
    choice.add_argument(
        "--study", dest="study_uid", metavar="UID", help="Study Instance UID, if there are several"
    )
    choice.add_argument("--myelogram", metavar="UID", help="series used to detect fluid")
    choice.add_argument(
        "--companion", action="append", default=[], metavar="UID", help="series used to name levels"
    )
    return choice


def output_options() -> argparse.ArgumentParser:
    """Return the options of commands that write reports; see `shared.settings_of`."""
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument(
        "--write",
        metavar="LIST",
        help="outputs in addition to report.json, comma-separated: masks, png, html, text, "
        "seg, sr, sc, relabel, csv, pdf, html3d, caudal, bids",
    )
    return output


def numbering_options() -> argparse.ArgumentParser:
    """Return the options that override the numbering of levels."""
    options = argparse.ArgumentParser(add_help=False)
    numbering = options.add_argument_group("numbering (overrides the analysis)")
    numbering.add_argument(
        "--anchor", metavar="DISC@X,Y,Z", help="a disc and a point in it, LPS mm: L4-L5@-3,12,-88"
    )
    numbering.add_argument("--lumbar-count", type=int, choices=(4, 5, 6), help="lumbar vertebrae")
    numbering.add_argument("--lowest-disc", metavar="DISC", help="the lowest well-formed disc")
    numbering.add_argument(
        "--levels", type=Path, metavar="FILE", help="edited levels.json of an earlier report"
    )
    numbering.add_argument(
        "--levels-from", type=Path, metavar="FILE", help="level map of another program"
    )
    numbering.add_argument(
        "--scheme",
        metavar="NAME|TOML",
        help="label scheme of that map: totalspineseg, spineps, totalsegmentator, "
        "totalsegmentator_mr, sct, spider, leakloc, or a TOML file",
    )
    return options


def _add_analyze(commands: Commands) -> None:
    analyze = commands.add_parser(
        "analyze",
        parents=[
            study_options(),
            recipe_options(),
            output_options(),
            numbering_options(),
            quiet_option(),
            common_options(),
        ],
        help="detect and localize epidural fluid",
    )
    analyze.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="output folder"
    )
    analyze.add_argument("--overwrite", action="store_true", help="overwrite a report in OUT")
    analyze.add_argument(
        "--sac", type=Path, metavar="MASK", help="use this mask file as the thecal sac"
    )
    analyze.add_argument(
        "--fluid", type=Path, metavar="MASK", help="use this mask file as the epidural fluid"
    )
    analyze.add_argument(
        "--sac-label", metavar="LABEL", help="label of the sac, if the mask contains several"
    )
    analyze.add_argument(
        "--fluid-label",
        action="append",
        default=[],
        metavar="LABEL",
        help="label of the fluid, if the mask contains other structures: a number, or the name of "
        "a DICOM segment (repeatable)",
    )
    analyze.add_argument(
        "--corrections",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="apply the corrections.json of an earlier report of this study (repeatable, in order)",
    )
    analyze.set_defaults(command="analyze")


def _add_relabel(commands: Commands) -> None:
    relabel = commands.add_parser(
        "relabel",
        parents=[numbering_options(), output_options(), quiet_option(), common_options()],
        help="rename the levels of a finished report",
        description="Renames the levels of a finished report and rewrites it within a second or "
        "two. Without numbering options, the level names of the analysis are restored.",
    )
    relabel.add_argument("output", type=Path, metavar="OUT", help="output folder of analyze")
    relabel.add_argument(
        "corrections",
        type=Path,
        nargs="?",
        metavar="CORRECTIONS",
        help="corrections.json downloaded from report.html of that folder",
    )
    relabel.add_argument(
        "--study",
        type=Path,
        metavar="STUDY",
        help="the analyzed study: images, HTML report and DICOM objects are also regenerated",
    )
    relabel.set_defaults(command="relabel")


def _add_batch(commands: Commands) -> None:
    batch = commands.add_parser(
        "batch",
        parents=[recipe_options(), quiet_option(), common_options()],
        help="analyze many studies and list the results",
        description="Finds studies, analyzes them in parallel and lists them in OUT/index.html. "
        "Run it again to resume an interrupted batch. Exit code: 0 all succeeded, 5 some failed, "
        "4 all failed, 3 no study found, 2 incorrect usage.",
    )
    batch.add_argument(
        "roots",
        nargs="*",
        type=Path,
        metavar="ROOT",
        help="folder, archive, image, DICOMDIR, or CSV file with a column `path`",
    )
    batch.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="output folder"
    )
    batch.add_argument(
        "--workers", type=_count, metavar="N", help="parallel analyses (number of cores)"
    )
    batch.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT|FILE", help="run on this Dask cluster instead"
    )
    batch.add_argument(
        "--timeout",
        type=_seconds,
        default=1800.0,
        metavar="TIME",
        help="time limit per study, e.g. 90s, 10m, 1h; 0 for none (30m)",
    )
    batch.add_argument(
        "--memory-limit",
        type=_mebibytes,
        metavar="SIZE",
        help="memory limit per study, e.g. 1500M, 4G (available memory / workers)",
    )
    batch.add_argument(
        "--retries", type=int, default=1, metavar="N", help="retries of a failed study (1)"
    )
    batch.add_argument("--force", action="store_true", help="reanalyze finished studies")
    batch.add_argument(
        "--watch",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="analyze studies as they arrive in DIR, until interrupted",
    )
    batch.add_argument(
        "--settle",
        type=_seconds,
        default=60.0,
        metavar="TIME",
        help="with --watch: analyze a study once unchanged for TIME (60s)",
    )
    batch.add_argument("--status", action="store_true", help="only list the jobs recorded in OUT")
    batch.set_defaults(command="batch")


def _add_node(commands: Commands) -> None:
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
    node.set_defaults(command="node")


def _add_diff(commands: Commands) -> None:
    diff = commands.add_parser(
        "diff", parents=[common_options()], help="compare two reports of one patient"
    )
    diff.add_argument("before", type=Path, metavar="BEFORE", help="report.json or its folder")
    diff.add_argument("after", type=Path, metavar="AFTER", help="report.json or its folder")
    diff.add_argument("--html", type=Path, metavar="FILE", help="also write an HTML file")
    diff.add_argument(
        "--studies",
        type=Path,
        nargs=2,
        metavar=("BEFORE_STUDY", "AFTER_STUDY"),
        help="the analyzed studies, for figures of both in the same planes in the HTML file; "
        "BEFORE and AFTER must be report folders",
    )
    diff.set_defaults(command="diff")


def _add_series(commands: Commands) -> None:
    series = commands.add_parser(
        "series",
        parents=[study_options(), recipe_options(), common_options()],
        help="list each series with its role and the reason",
    )
    series.set_defaults(command="series")


def _add_phantom(commands: Commands) -> None:
    phantom = commands.add_parser(
        "phantom",
        parents=[quiet_option(), common_options()],
        help="write a DICOM phantom study with ground truth",
    )
    phantom.add_argument("output", type=Path, metavar="OUT")
    phantom.add_argument("--scenario", default="postoperative_dorsal", metavar="NAME")
    phantom.add_argument("--seed", type=int, default=0, metavar="N")
    phantom.add_argument("--list", action="store_true", help="list the scenarios and exit")
    phantom.set_defaults(command="phantom")


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        parents=[recipe_options(), quiet_option(), common_options()],
        help="compare results with ground truth, or test on phantoms, simulations or SPIDER",
        description="Compare reports or masks with ground truth (PRED TRUTH), or run the analysis "
        "on phantoms (--phantom, --sweep), on SPIDER volumes (--spider) or on contrast simulated "
        "from their anatomy (--simulated) and compare.",
    )
    pair = evaluate.add_argument_group("results on disk")
    pair.add_argument(
        "found", nargs="?", type=Path, metavar="PRED", help="report, masks, or a folder of them"
    )
    pair.add_argument("truth", nargs="?", type=Path, metavar="TRUTH", help="ground truth")
    pair.add_argument(
        "--kind", choices=("fluid", "sac"), default="fluid", help="content of single mask files"
    )
    pair.add_argument("--label", type=int, metavar="N", help="label to evaluate in mask files")
    pair.add_argument(
        "--resample",
        action="store_true",
        help="resample predictions to the grid of the ground truth (nearest)",
    )
    pair.add_argument(
        "--readers",
        type=Path,
        metavar="CSV",
        help="compare a folder of reports with readers' findings: study, segment, fluid (1 or 0); "
        "optional: reference, reader",
    )
    phantom = evaluate.add_argument_group("phantoms")
    phantom.add_argument("--phantom", nargs="*", metavar="NAME", help="scenarios (default: all)")
    phantom.add_argument("--seeds", metavar="A-B", help="seeds (100-104; simulated: 100)")
    phantom.add_argument("--keep", type=Path, metavar="DIR", help="save generated studies here")
    phantom.add_argument(
        "--compact", action="store_true", help="coarser voxels (1.25 mm): faster to render"
    )
    phantom.add_argument("--sweep", metavar="PARAM", help="parameter to vary, such as snr")
    phantom.add_argument("--values", metavar="A,B,...", help="values of the parameter")
    phantom.add_argument(
        "--baseline", action="store_true", help="use a textbook method instead, for comparison"
    )
    simulated = evaluate.add_argument_group("simulated contrast on real anatomy")
    simulated.add_argument("--simulated", type=Path, metavar="DIR", help="folder of SPIDER volumes")
    simulated.add_argument("--scenarios", metavar="A,B", help="scenarios (default: all)")
    whom = simulated.add_mutually_exclusive_group()
    whom.add_argument("--patients", metavar="A,B", help="patient numbers")
    whom.add_argument(
        "--split", choices=("test", "development"), default="test", help="patient group (test)"
    )
    evaluate.add_argument("--spider", type=Path, metavar="DIR", help="folder of SPIDER volumes")
    evaluate.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    evaluate.add_argument("--sheet", type=Path, metavar="FILE", help="contact sheet of all cases")
    evaluate.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write tables and figures there"
    )
    evaluate.set_defaults(command="evaluate")


def _add_tune(commands: Commands) -> None:
    tune = commands.add_parser(
        "tune",
        parents=[recipe_options(), quiet_option(), common_options()],
        help="optimize settings on studies with ground truth",
        description="Optimize settings on studies with ground truth, and report the gain of the "
        "best ones on a held-out part. Needs the extra research.",
    )
    tune.add_argument("studies", type=Path, metavar="STUDIES", help="folder of studies")
    tune.add_argument(
        "truth", nargs="?", type=Path, metavar="TRUTH",
        help="folder of ground truth by study name (default: truth/ of each study)",
    )  # fmt: skip
    tune.add_argument(
        "--search",
        action="append",
        required=True,
        metavar="SECTION.KEY[=LOW:HIGH]",
        help="setting to optimize (repeatable)",
    )
    tune.add_argument("--trials", type=int, default=30, metavar="N", help="number of trials (30)")
    tune.add_argument(
        "--held-out",
        type=float,
        default=0.3,
        metavar="FRACTION",
        help="held-out fraction of patients (0.3)",
    )
    tune.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of split and search (0)"
    )
    tune.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    tune.add_argument("-o", "--output", type=Path, metavar="TOML", help="recipe file to write")
    tune.set_defaults(command="tune")


def _add_config(commands: Commands) -> None:
    config = commands.add_parser(
        "config",
        parents=[recipe_options(), common_options()],
        help="print all settings with their descriptions",
    )
    config.set_defaults(command="config")


def _add_schema(commands: Commands) -> None:
    schema = commands.add_parser(
        "schema", parents=[common_options()], help="print the JSON Schema of report.json"
    )
    schema.set_defaults(command="schema")


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="print the code for shell completion",
        description="Prints the code with which a shell completes commands, options, settings and "
        'recipes. bash: eval "$(leakloc completion bash)" in ~/.bashrc; zsh: the same with zsh, '
        "in ~/.zshrc after compinit; fish: leakloc completion fish | source in "
        "~/.config/fish/config.fish.",
        parents=[common_options()],
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    completion.set_defaults(command="completion")


def _add_version(commands: Commands) -> None:
    version = commands.add_parser("version", parents=[common_options()], help="print the version")
    version.set_defaults(command="version")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("requires a number >= 1")
    return int(text)


def _seconds(text: str) -> float:
    return _parse_quantity(text, _UNITS, "a time such as 90s, 10m or 1h")


def _mebibytes(text: str) -> float:
    return _parse_quantity(
        text.removesuffix("iB").removesuffix("B"), _SIZES, "a size such as 1500M or 4G"
    )


def _parse_quantity(text: str, units: dict[str, int], wanted: str) -> float:
    number = text.rstrip("".join(units))
    try:
        value = float(number) * units[text[len(number) :]]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"requires {wanted}, not {text!r}")
    return value
