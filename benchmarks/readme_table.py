"""Put the newest figures into the README: `python benchmarks/readme_table.py`.

Reads the newest record of each kind in `benchmarks/records` and rewrites what stands between
the marks ``<!-- figures -->`` in README.md and docs/pages/evaluation.md:

*-phantoms.json   `leakloc evaluate --phantom --json`
*-spider.json     `leakloc evaluate --spider DIR --json`
*-speed-*.json    `make bench`
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "records"
PAGES = (ROOT / "README.md", ROOT / "docs/pages/evaluation.md")
MARK = "<!-- figures -->"


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


def main() -> None:
    """Rewrite the pages that hold the marks."""
    for page in PAGES:
        text = page.read_text()
        new = re.sub(
            f"{MARK}.*?{MARK}",
            lambda _: f"{MARK}\n\n{figures()}\n{MARK}",
            text,
            flags=re.DOTALL,
        )
        page.write_text(new)


if __name__ == "__main__":
    main()
