"""Worklist (``index.html``) of an output folder: all studies, most urgent first.

Self-contained and offline like the reports it links to. Sorting and filtering use an embedded
script; without it, the list is complete and sorted. All text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from leakloc.services.batch.cards import Card
from leakloc.services.batch.ledger import Entry, State

_URGENCY: Final = {"present": 0, "indeterminate": 1, "failed": 2, "absent": 3}
_LAST: Final = 4
_WORDS: Final = {
    "present": "present",
    "indeterminate": "indeterminate",
    "absent": "none detected",
    "finished": "finished",  # its report is no longer readable
    "failed": "failed",
    "waiting": "waiting",
    "running": "running",
}
NOTICE: Final = "Research use only. Not a medical device."


def urgency(entry: Entry, card: Card | None) -> tuple[float, ...]:
    """Sort key of studies: fluid first, then indeterminate, failed and all others.

    A failed study precedes one without fluid because it has no result.
    """
    status = status_of(entry, card)
    if card is None:
        return (_URGENCY.get(status, _LAST), 0.0, 0.0)
    return (_URGENCY.get(status, _LAST), -card.confidence, -(card.volume_ml or 0.0))


def status_of(entry: Entry, card: Card | None) -> str:
    """Finding (``present``, ``indeterminate``, ``absent``) or else the state of the study."""
    if entry.state is State.FINISHED and card is not None:
        return card.leak
    return entry.state.value


def worklist(entries: Sequence[Entry], cards: Mapping[str, Card]) -> str:
    """Return the worklist as HTML.

    Parameters
    ----------
    entries : sequence of Entry
    cards : mapping of name to Card
        Of the finished studies.
    """
    ordered = sorted(entries, key=lambda e: (*urgency(e, cards.get(e.name)), e.name))
    rows = "\n".join(
        _row(place, entry, cards.get(entry.name)) for place, entry in enumerate(ordered)
    )
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>leakloc: {len(ordered)} studies</title><style>{_STYLE}</style></head><body>
<p class="notice">{NOTICE}</p>
<main><h1>{len(ordered)} studies</h1>
{_filters(ordered, cards)}
<div class="table"><table><thead><tr>
{_headings()}
</tr></thead><tbody>
{rows}
</tbody></table></div>
<p class="faint">Studies with fluid first, by confidence; then indeterminate and failed studies,
then studies without fluid. Written {time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}.</p>
</main><script>{_SCRIPT}</script></body></html>
"""


def _filters(entries: Sequence[Entry], cards: Mapping[str, Card]) -> str:
    counts = {
        status: sum(status_of(e, cards.get(e.name)) == status for e in entries) for status in _WORDS
    }
    boxes = "".join(
        f'<label class="{status}"><input type="checkbox" value="{status}" checked> '
        f"{_WORDS[status]} {count}</label>"
        for status, count in counts.items()
        if count
    )
    return (
        '<form id="filters" role="search"><input id="words" type="search" '
        'placeholder="level, warning, UID &hellip;" aria-label="Show rows that contain">'
        f"<fieldset><legend>Show</legend>{boxes}</fieldset>"
        '<output id="shown" aria-live="polite"></output></form>'
    )


_COLUMNS: Final = (
    ("", False),
    ("Epidural fluid", True),
    ("Level", True),
    ("Confidence", True),
    ("Volume", True),
    ("Summary", False),
    ("Warnings", True),
    ("Study", True),
)


def _headings() -> str:
    return "".join(
        f'<th scope="col"><button type="button" data-column="{n}">{name}</button></th>'
        if sortable
        else f'<th scope="col">{name or "<span class=faint>Picture</span>"}</th>'
        for n, (name, sortable) in enumerate(_COLUMNS)
    )


def _row(place: int, entry: Entry, card: Card | None) -> str:
    status = status_of(entry, card)
    cells = _cells(place, entry, card) if card is not None else _bare_cells(place, entry)
    return f'<tr class="{status}" data-status="{status}">{cells}</tr>'


def _cells(place: int, entry: Entry, card: Card) -> str:
    link = _link(entry, card.page or "report.json")
    thumbnail = (
        f'<a href="{link}"><img alt="Overview of the study" loading="lazy" '
        f'src="data:image/webp;base64,{card.thumbnail}"></a>'
        if card.thumbnail
        else ""
    )
    volume = "" if card.volume_ml is None else f"{card.volume_ml:.1f} mL"
    warnings = "".join(
        f'<li title="{escape(message)}">{escape(code.replace("_", " "))}</li>'
        for code, message in card.warnings
    )
    level = escape(card.level or "not named") if card.collections else ""
    numbering = (
        f'<br><span class="faint">numbering {card.numbering_confidence:.0%}</span>'
        if card.collections
        else ""
    )
    when = card.study_date or ""
    return (
        f"<td>{thumbnail}</td>"
        f'<td data-key="{place}"><b>{_WORDS[card.leak]}</b></td>'
        f'<td data-key="{level}">{level}{numbering}</td>'
        f'<td data-key="{-card.confidence:.4f}">{card.confidence:.0%}</td>'
        f'<td data-key="{-(card.volume_ml or 0):.4f}">{volume}</td>'
        f'<td><a href="{link}">{escape(card.summary)}</a></td>'
        f'<td data-key="{-len(card.warnings)}"><ul>{warnings}</ul></td>'
        f'<td data-key="{escape(when)}"><code>{escape(entry.name)}</code><br>'
        f"{escape(when)} {escape(card.patient_id or '')}</td>"
    )


def _bare_cells(place: int, entry: Entry) -> str:
    why = ""
    if entry.error_class is not None:
        why = f"<b>{escape(entry.error_class)}</b>: {escape(entry.error_message or '')}"
    tries = f"tries: {entry.attempts}" if entry.attempts else ""
    return (
        f'<td></td><td data-key="{place}"><b>{_WORDS[entry.state.value]}</b></td>'
        '<td data-key=""></td><td data-key="1"></td><td data-key="1"></td>'
        f'<td>{why}</td><td data-key="1">{tries}</td>'
        f'<td data-key=""><code>{escape(entry.name)}</code></td>'
    )


def _link(entry: Entry, file: str) -> str:
    return escape(f"{quote(entry.name)}/{quote(file)}")


_STYLE: Final = """
:root{color-scheme:dark;--back:#0e0f12;--card:#17191e;--ink:#eceef2;--faint:#a8adb6;
--line:#2c3038;--blue:#56b4e9;--orange:#e69f00;--yellow:#f0e442;--pink:#cc79a7}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);
font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.notice{margin:0;padding:.5rem 1rem;background:#3a2a00;color:#ffe2a6;font-size:.9rem;
text-align:center}
main{max-width:1600px;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.25rem 0 .75rem}
a{color:var(--blue)}
form{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;margin-bottom:.75rem}
fieldset{border:0;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:.4rem}
legend{position:absolute;clip-path:inset(50%)}
label{border:1px solid var(--line);border-left:5px solid var(--faint);border-radius:4px;
padding:.2rem .6rem;white-space:nowrap}
input[type=search]{font:inherit;padding:.3rem .6rem;min-width:16rem;color:inherit;
background:var(--card);border:1px solid var(--line);border-radius:4px}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.95rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--faint);position:sticky;top:0;background:var(--back)}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-decoration:underline dotted}
th[aria-sort=ascending] button::after{content:" \\2193"}
th[aria-sort=descending] button::after{content:" \\2191"}
td:first-child{width:170px}
td:nth-child(6){min-width:18rem}
img{display:block;max-width:160px;height:auto;border-radius:4px}
ul{margin:0;padding-left:1rem}
code{font-size:.8rem;overflow-wrap:anywhere}
code,.faint{color:var(--faint)}
tr td:first-child{border-left:5px solid var(--faint)}
tr.present td:first-child,label.present{border-left-color:var(--orange)}
tr.indeterminate td:first-child,label.indeterminate{border-left-color:var(--yellow)}
tr.absent td:first-child,label.absent{border-left-color:var(--blue)}
tr.failed td:first-child,label.failed{border-left-color:var(--pink)}
tr.present b{color:var(--orange)}tr.indeterminate b{color:var(--yellow)}
tr.failed b{color:var(--pink)}
tr[hidden]{display:none}
@media (max-width:700px){table,tbody,tr,td{display:block}thead{display:none}
td,td:first-child{border:0;width:auto;padding:.15rem .6rem}
tr{border-bottom:1px solid var(--line);border-left:5px solid var(--faint);padding:.5rem 0}
tr td:first-child{border-left:0}tr.present{border-left-color:var(--orange)}
tr.indeterminate{border-left-color:var(--yellow)}tr.absent{border-left-color:var(--blue)}
tr.failed{border-left-color:var(--pink)}input[type=search]{min-width:0;width:100%}}
@media print{:root{color-scheme:light;--back:#fff;--card:#fff;--ink:#000;--faint:#444;
--line:#bbb;--blue:#00507f;--orange:#8a5a00;--yellow:#6b6400;--pink:#8a2f5f}
form{display:none}.notice{background:#fff;color:#000;border:1px solid #000}
tr{break-inside:avoid}}
"""

_SCRIPT: Final = """
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const form = document.getElementById("filters");
  const words = document.getElementById("words");
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const parts = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = texts.get(row);
      row.hidden = !wanted.has(row.dataset.status) || !parts.every((part) => text.includes(part));
      count += !row.hidden;
    }
    document.getElementById("shown").value = `${count} of ${rows.length} shown`;
  };
  const sort = (event) => {
    const heading = event.currentTarget.closest("th");
    const down = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of document.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = (row) => row.cells[heading.cellIndex].dataset.key;
    const order = new Intl.Collator("en", {numeric: true});
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const numbers = Number(x) - Number(y);
      return (down ? 1 : -1) * (Number.isNaN(numbers) ? order.compare(x, y) : numbers);
    };
    body.append(...rows.sort(compare));
  };
  for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", sort);
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
"""
