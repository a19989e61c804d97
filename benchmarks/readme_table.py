"""Update the tables in the README and the documentation: `python benchmarks/readme_table.py`.

Reads the newest record of each kind in `benchmarks/records` and replaces the text between the
markers ``<!-- figures -->`` and ``<!-- sweeps -->`` in README.md and docs/pages/evaluation.md:

*-phantoms.json   `leakloc evaluate --phantom --json`
*-simulated.json  `leakloc evaluate --simulated DIR --json` (omitted if there is none)
*-spider.json     `leakloc evaluate --spider DIR --json`
*-speed-*.json    `make bench`
*-numbering.json  `python benchmarks/numbering.py` (docs/pages/evaluation.md only)
*-sweep-*.json    `leakloc evaluate --sweep PARAM --json`
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "records"
EVALUATION = ROOT / "docs/pages/evaluation.md"
PAGES = (ROOT / "README.md", ROOT / "docs/pages/evaluation.md")
MARK = "<!-- figures -->"
SWEEPS = "<!-- sweeps -->"
NUMBERING = "<!-- numbering -->"
SIMULATED = "<!-- simulated -->"
SOLVERS = {
    "leakloc": "leakloc",
    "leakloc, with landmark": "leakloc, with landmark",
    "totalspineseg": "TotalSpineSeg",
    "spineps": "SPINEPS",
}


def read_newest(kind: str) -> Any:
    """Return the newest record of a kind, by the date in its name."""
    return json.loads(max(RECORDS.glob(f"*-{kind}*.json")).read_text())


def has_record(kind: str) -> bool:
    """Return whether there is a record of a kind."""
    return any(RECORDS.glob(f"*-{kind}*.json"))


def format_values(summary: dict[str, Any], style: str, *keys: str) -> str:
    """Format values of a summary, separated by slashes; a dash for missing ones."""
    values = (summary.get(key) for key in keys)
    return " / ".join("-" if v is None else format(v, style) for v in values)


def result_rows(summary: dict[str, Any]) -> dict[str, str]:
    """Return the results on studies with ground truth, by row label."""
    rates = ("false_positives", "definite_or_probable_false_positives")
    rows = {
        "thecal sac, Dice": format_values(summary, ".3f", "sac_dice"),
        "thecal sac, HD95, mm": format_values(summary, ".1f", "sac_hd95_mm"),
        "epidural fluid, Dice": format_values(summary, ".2f", "fluid_dice"),
        "fluid volume, mean absolute error": format_values(
            summary, ".0%", "fluid_volume_error_abs"
        ),
        "collections of at least 0.5 mL detected": format_values(
            summary, "", "collections_detected"
        ),
        "false positives": format_values(summary, "", "false_positive_collections"),
        "false positives per leak-free study, all / definite or probable": format_values(
            summary, ".2f", *(f"{rate}_per_leak_free_study" for rate in rates)
        ),
        "false positives among collections graded definite": format_values(
            summary, "", "definite_false_positives"
        ),
        "position of detected collections correct": format_values(
            summary, ".0%", "position_correct"
        ),
        "level of detected collections correct / within one": format_values(
            summary, ".0%", "level_exact", "level_within_one"
        ),
        "level set contains the true level": format_values(summary, ".0%", "level_set_correct"),
        "segments in the level set, mean": format_values(summary, ".1f", "level_set_size"),
        "fluid by segment and side, kappa / thickness error, mm": format_values(
            summary, ".2f", "side_kappa", "side_thickness_error_mm"
        ),
        "vertebrae labeled correctly": format_values(summary, ".0%", "vertebrae_correct"),
        "distance from the sacral hiatus, mean error, mm": format_values(
            summary, ".0f", "path_error_mm"
        ),
        "sacral hiatus detected / within 5 mm": landmark(summary, "hiatus", "5_mm"),
        "conus detected / within 6 mm": landmark(summary, "conus", "6_mm"),
        "sensitivity per study": format_values(summary, "", "sensitivity"),
        "specificity per study": format_values(summary, "", "specificity"),
        "calibration error of the confidence": format_values(
            summary, ".2f", "confidence_calibration_error"
        ),
    }
    volumes = summary["fluid_dice_by_volume"]
    return rows | {f"fluid Dice, {name}": format_values(volumes, ".2f", name) for name in volumes}


def landmark(summary: dict[str, Any], name: str, within: str) -> str:
    """Return how often a landmark in the field was detected, and how often accurately."""
    detected = summary.get(f"{name}_detected", "0/0")
    return "-" if detected == "0/0" else f"{detected}, {summary[f'{name}_within_{within}']}"


def spider_rows(cases: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the results on the volumes of SPIDER."""
    ran = [case for case in cases if not case.get("error")]
    correct, true = (sum(case[key] for case in ran) for key in ("discs_correct", "discs_true"))
    dice = statistics.mean(case["canal_dice"] for case in ran)
    false = sum(case["false_positives"] for case in ran)
    return [
        ("discs labeled correctly", f"{correct} of {true}"),
        ("canal, Dice", f"{dice:.2f}"),
        ("false positives", f"{false} in {len(ran)} patients"),
    ]


def speed_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return run times and memory of a 320 x 320 x 160 study."""
    seconds, extra = record["median_s"], record.get("extra", {})
    memory = extra.get("whole_command_in_a_fresh_process", {}).get("peak_memory_mb")
    rows = [
        (
            "complete study, in a running process",
            f"{seconds['whole_study_with_all_outputs']:.1f} s",
        ),
        (
            "complete command, in a new process",
            f"{seconds['whole_command_in_a_fresh_process']:.1f} s",
        ),
        ("segmentation", f"{seconds['segmentation']:.1f} s"),
        ("levels", f"{seconds['levels']:.1f} s"),
    ]
    return [*rows, ("peak memory", f"{memory / 1000:.1f} GB")] if memory else rows


def table(title: str, rows: list[tuple[str, str]]) -> str:
    """Return a Markdown table with two columns."""
    return f"| {title} | |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def side_by_side(summaries: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with a column per kind of study; empty rows are omitted."""
    columns = [result_rows(summary) for summary in summaries.values()]
    lines = [f"| | {' | '.join(summaries)} |", "|---|" + "---|" * len(columns)]
    for name in columns[0]:
        cells = [column.get(name, "-") for column in columns]
        if any(set(cell) - set("-/ ") for cell in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main_tables() -> str:
    """Return the tables of the README."""
    speed = read_newest("speed")
    summaries = {"Phantoms": read_newest("phantoms")["summary"]}
    if has_record("simulated"):
        test = read_newest("simulated")["splits"]["test"]["summary"]
        summaries["Simulated contrast on real anatomy, test patients"] = test
    titled = {
        f"{name} ({summary['cases']} studies)": summary for name, summary in summaries.items()
    }
    parts = [
        side_by_side(titled),
        table("Public lumbar volumes (SPIDER, no leak)", spider_rows(read_newest("spider"))),
        table(
            f"320 x 320 x 160, {speed['machine']['cores']} cores ({speed['machine']['processor']})",
            speed_rows(speed),
        ),
    ]
    return "\n".join(parts)


def sweeps() -> str:
    """Return the results by severity of each property, from the newest record of each."""
    newest_of = {
        record["parameter"]: record
        for record in (json.loads(path.read_text()) for path in sorted(RECORDS.glob("*-sweep-*")))
    }
    rows = [
        "| Property | Value | Sac Dice | Fluid Dice (95 % interval) | Detected | "
        "False positives |\n",
        "|---|---|---|---|---|---|\n",
    ]
    for record in newest_of.values():
        label = record["label"]
        for point in record["points"]:
            low, high = point["fluid_dice_95_interval"]
            interval = "" if low is None else f" ({low:.2f}-{high:.2f})"
            fluid = "-" if point["fluid_dice"] is None else f"{point['fluid_dice']:.2f}{interval}"
            rows.append(
                f"| {label} | {point['name']} | {point['sac_dice']:.3f} | {fluid} "
                f"| {point['collections_detected']} | {point['false_positive_collections']} |\n"
            )
            label = ""
    return "".join(rows)


def simulated() -> str:
    """Return the results on simulated contrast on real anatomy by scenario, test patients."""
    lines = [
        "| Scenario | Studies | Sac Dice | Fluid Dice | Detected | False positives, definite or "
        "probable | mL without leak | Present / absent / indeterminate |\n",
        f"|{'---|' * 8}\n",
    ]
    for name, s in read_newest("simulated")["splits"]["test"]["scenarios"].items():
        status = [s["leak_status"].get(k, 0) for k in ("present", "absent", "indeterminate")]
        firm = s["definite_or_probable_false_positives"]
        cells = (
            name,
            str(s["cases"]),
            format_values(s, ".3f", "sac_dice"),
            format_values(s, ".2f", "fluid_dice"),
            s["collections_detected"],
            f"{s['false_positive_collections']}, {firm}",
            format_values(s, ".1f", "false_positive_ml_per_leak_free_study"),
            " / ".join(map(str, status)),
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def numbering() -> str:
    """Return the comparison of numbering solvers.

    Each cell: correct vertebrae, spines without error, confident errors.
    """
    rows = read_newest("numbering")["summary"]
    by_group = {(r["group"], r["solver"]): r for r in rows}
    lines = [
        f"| Masks | Spines | {' | '.join(SOLVERS.values())} |\n",
        f"|---|---|{'---|' * len(SOLVERS)}\n",
    ]
    for group in sorted({r["group"] for r in rows}, reverse=True):
        cells = [_format_counts(by_group.get((group, solver))) for solver in SOLVERS]
        spines = by_group[group, "leakloc"]["spines"]
        lines.append(f"| {group} | {spines} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _format_counts(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    counts = row["spines_all_correct"], row["confident_errors"]
    return f"{row['correct']}/{row['vertebrae']}, {counts[0]}, {counts[1]}"


def replace_table(text: str, mark: str, content: str) -> str:
    """Replace the text between two markers."""
    return re.sub(
        f"{mark}.*?{mark}", lambda _: f"{mark}\n\n{content}\n{mark}", text, flags=re.DOTALL
    )


def main() -> None:
    """Update the pages with markers."""
    for page in PAGES:
        text = page.read_text()
        for mark, content in ((MARK, main_tables), (SWEEPS, sweeps)):
            text = replace_table(text, mark, content())
        page.write_text(text)
    text = replace_table(EVALUATION.read_text(), NUMBERING, numbering())
    EVALUATION.write_text(
        replace_table(text, SIMULATED, simulated()) if has_record("simulated") else text
    )


if __name__ == "__main__":
    main()
