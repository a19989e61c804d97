"""Put the newest figures into the README: `python benchmarks/readme_table.py`.

Reads the newest record of each kind in `benchmarks/records` and rewrites what stands between
the marks ``<!-- figures -->`` and ``<!-- sweeps -->`` in README.md and docs/pages/evaluation.md:

*-phantoms.json   `leakloc evaluate --phantom --json`
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
SOLVERS = {
    "leakloc": "leakloc",
    "leakloc, told": "leakloc, told",
    "totalspineseg": "TotalSpineSeg's",
    "spineps": "SPINEPS's",
}


def newest(kind: str) -> Any:
    """The newest record of a kind, by the day in its name."""
    return json.loads(max(RECORDS.glob(f"*-{kind}*.json")).read_text())


def phantom_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured on phantoms, in words and figures."""
    volumes = summary["fluid_dice_by_volume"]
    return [
        ("thecal sac, Dice / HD95", f"{summary['sac_dice']:.3f} / {summary['sac_hd95_mm']:.1f} mm"),
        ("extradural fluid, Dice", f"{summary['fluid_dice']:.2f}"),
        ("fluid volume, mean absolute error", f"{summary['fluid_volume_error_abs']:.0%}"),
        ("collections of 0.5 mL and more found", str(summary["collections_found"])),
        ("collections invented", str(summary["invented_collections"])),
        (
            "level of a found collection exact / within one",
            f"{summary['level_exact']:.0%} / {summary['level_within_one']:.0%}",
        ),
        ("vertebrae named right", f"{summary['vertebrae_right']:.0%}"),
        ("length from the hiatus, mean error", f"{summary['path_error_mm']:.0f} mm"),
        ("studies with a leak called so", str(summary["sensitivity"])),
        ("leak-free studies called so", str(summary["specificity"])),
        *[(f"fluid Dice, {name}", f"{value:.2f}") for name, value in volumes.items() if value],
    ]


def spider_rows(cases: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was measured on the volumes of SPIDER."""
    ran = [case for case in cases if not case.get("error")]
    right, true = (sum(case[key] for case in ran) for key in ("discs_right", "discs_true"))
    dice = statistics.mean(case["canal_dice"] for case in ran)
    invented = sum(case["accepted"] for case in ran)
    return [
        ("discs named right", f"{right} of {true}"),
        ("canal, Dice", f"{dice:.2f}"),
        ("collections invented", f"{invented} in {len(ran)} patients"),
    ]


def speed_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Seconds and memory of a 320 x 320 x 160 study."""
    seconds, extra = record["median_s"], record.get("extra", {})
    memory = extra.get("whole_command_in_a_fresh_process", {}).get("peak_memory_mb")
    rows = [
        ("whole study, in a process that runs", f"{seconds['whole_study_with_all_outputs']:.1f} s"),
        ("whole command", f"{seconds['whole_command_in_a_fresh_process']:.1f} s"),
        ("segmentation", f"{seconds['segmentation']:.1f} s"),
        ("levels", f"{seconds['levels']:.1f} s"),
    ]
    return [*rows, ("peak memory", f"{memory / 1000:.1f} GB")] if memory else rows


def table(title: str, rows: list[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return f"| {title} | |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def figures() -> str:
    """All tables."""
    phantoms, speed = newest("phantoms"), newest("speed")
    cases = phantoms["summary"]["cases"]
    parts = [
        table(f"Phantoms ({cases} studies)", phantom_rows(phantoms["summary"])),
        table("Public lumbar volumes (SPIDER, no leak)", spider_rows(newest("spider"))),
        table(
            f"320 x 320 x 160, {speed['machine']['cores']} cores ({speed['machine']['processor']})",
            speed_rows(speed),
        ),
    ]
    return "\n".join(parts)


def sweeps() -> str:
    """Figures against the severity of one property after another, newest record of each."""
    newest_of = {
        record["parameter"]: record
        for record in (json.loads(path.read_text()) for path in sorted(RECORDS.glob("*-sweep-*")))
    }
    rows = [
        "| Property | Value | Sac Dice | Fluid Dice (95 % interval) | Found | Invented |\n",
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
                f"| {point['collections_found']} | {point['invented_collections']} |\n"
            )
            label = ""
    return "".join(rows)


def numbering() -> str:
    """Numbering solvers side by side: vertebrae right, spines all right, confident mistakes."""
    rows = newest("numbering")["summary"]
    found = {(r["group"], r["solver"]): r for r in rows}
    lines = [
        f"| Masks | Spines | {' | '.join(SOLVERS.values())} |\n",
        f"|---|---|{'---|' * len(SOLVERS)}\n",
    ]
    for group in sorted({r["group"] for r in rows}, reverse=True):
        cells = [_numbered(found.get((group, solver))) for solver in SOLVERS]
        spines = found[group, "leakloc"]["spines"]
        lines.append(f"| {group} | {spines} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _numbered(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return (
        f"{row['right']}/{row['vertebrae']}, {row['spines_all_right']}, {row['confident_mistakes']}"
    )


def write_numbering() -> None:
    """Rewrite the table of numbering solvers."""
    text = EVALUATION.read_text()
    made = f"{NUMBERING}\n\n{numbering()}\n{NUMBERING}"
    pattern = f"{NUMBERING}.*?{NUMBERING}"
    EVALUATION.write_text(re.sub(pattern, lambda _: made, text, flags=re.DOTALL))


def main() -> None:
    """Rewrite the pages that hold the marks."""
    for page in PAGES:
        text = page.read_text()
        for mark, made in ((MARK, figures), (SWEEPS, sweeps)):
            text = re.sub(f"{mark}.*?{mark}", f"{mark}\n\n{made()}\n{mark}", text, flags=re.DOTALL)
        page.write_text(text)
    write_numbering()


if __name__ == "__main__":
    main()
