import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from leakloc.localization.result import (
    CystOnPath,
    InterlaminarWindow,
    LevelAlternative,
    NarrowestDepth,
    RootDiverticulum,
)
from leakloc.pipeline import Analysis
from leakloc.report import build_report, overlays, write_outputs
from leakloc.report.page import html
from leakloc.report.page.viewer import make_viewer
from leakloc.segmentation.result import Candidate

EVIL = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"
VOID = {"meta", "img", "br", "link", "input"}


class Outline(HTMLParser):
    """Collects tags and checks that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(name: str = "overview", collection: int | None = None) -> overlays.Picture:
    rgb = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    kind = "overview" if collection is None else "axial"
    return overlays.Picture(name, kind, "Overview <of> fluid", collection, rgb, b"")


def with_description(analysis: Analysis, text: str) -> Analysis:
    first, *others = analysis.triage.stacks
    stack = replace(first.stack, description=text)
    stacks = (replace(first, stack=stack, reason=f"name is {text}"), *others)
    return replace(analysis, triage=replace(analysis.triage, stacks=stacks))


def test_the_page_is_whole_and_accessible(analysis: Analysis) -> None:
    outline = Outline(html.page(build_report(analysis), [picture()]))
    assert outline.of("html") == [{"lang": "en"}]
    assert len(outline.of("h1")) == 1
    assert all(image["alt"] for image in outline.of("img"))
    assert all(th.get("scope") == "col" for th in outline.of("th"))
    headings = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(headings))


def test_texts_from_headers_cannot_run(analysis: Analysis) -> None:
    text = html.page(build_report(with_description(analysis, EVIL)), [picture()])
    outline = Outline(text)
    assert "&lt;script&gt;" in text
    assert not outline.of("script")
    assert len(outline.of("img")) == 1
    assert not any("onerror" in attributes for _, attributes in outline.tags)


def test_nothing_is_fetched_from_anywhere(analysis: Analysis) -> None:
    text = html.page(build_report(analysis), [picture()])
    outline = Outline(text)
    assert not outline.of("link") and not outline.of("script")
    for image in outline.of("img"):
        assert str(image["src"]).startswith("data:image/webp;base64,")
    for anchor in outline.of("a"):
        assert str(anchor["href"]).startswith("#")
    policy = next(m for m in outline.of("meta") if "http-equiv" in m)
    assert "default-src 'none'" in str(policy["content"])
    assert "url(" not in text and "@import" not in text


def test_finding_comes_before_everything_but_the_notice(analysis: Analysis) -> None:
    text = html.page(build_report(analysis), [picture()])
    order = [
        text.index("Not a medical device"),
        text.index("<h1>Epidural fluid, dorsal, "),
        text.index("<img"),
        text.index("<h2>Collections"),
        text.index("<h2>Series"),
        text.index("<h2>Provenance"),
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("with_viewer", [True, False])
def test_every_link_leads_somewhere(analysis: Analysis, with_viewer: bool) -> None:
    viewer = make_viewer(analysis, 200_000) if with_viewer else None
    outline = Outline(html.page(build_report(analysis), [picture()], viewer))
    places = {attributes.get("id") for _, attributes in outline.tags}
    links = [str(anchor["href"]) for anchor in outline.of("a")]
    assert len(links) > 5 and all(link[1:] in places for link in links)
    assert ("#viewer" in links) == with_viewer
    shown = [anchor["data-lps"] for anchor in outline.of("a") if "data-lps" in anchor]
    bodies, discs = analysis.levels.vertebrae, analysis.levels.discs
    assert len(shown) == (2 + len(bodies) + len(discs) if with_viewer else 0)


def test_figures_are_next_to_their_collection(analysis: Analysis) -> None:
    pictures = [picture(), picture("collection-2-axial", 2)]
    text = html.page(build_report(analysis), pictures)
    second = text[text.index("<h3>Collection 2") :]
    assert second.count("<img") == 1 == text[: text.index("<h3>Collection 2")].count("<img")


def test_title_of_the_overview_is_not_repeated(analysis: Analysis) -> None:
    drawn = overlays.picture(analysis)
    assert 0 < drawn.title_px < drawn.rgb.shape[0] / 4
    (shown,) = Outline(html.page(build_report(analysis), [drawn])).of("img")
    assert shown["height"] == str(drawn.rgb.shape[0] - drawn.title_px)


def answers(analysis: Analysis) -> dict[str, str]:
    """Texts of the values in large type, by name."""
    text = html.page(build_report(analysis))
    large = text[text.index('class="large"') : text.index("</dl>")]
    plain = (re.sub(r"<[^>]+>", " ", part).split() for part in large.split("<dt>")[1:])
    names = re.findall(r"<dt>([^<]+)</dt>", large)
    words = (" ".join(part) for part in plain)
    return {name: rest.removeprefix(name).strip() for name, rest in zip(names, words, strict=True)}


def test_each_confidence_states_what_it_refers_to(analysis: Analysis, leakless: Analysis) -> None:
    assert answers(analysis) == {
        "Level": "L4-L5 or L3-L4",
        "Confidence in fluid": "0.86 definite",
    }
    assert answers(leakless) == {
        "Field of view": "L1 to S1",
        "Confidence in absence": "0.86 of visible fluid",
    }


def test_the_first_screen_names_an_alternative_level_once(analysis: Analysis) -> None:
    first, *others = analysis.localization.collections
    other = LevelAlternative(level="L5-S1", score=0.2, basis=("cross-section 95% of the largest",))
    first = first.model_copy(update={"alternatives": (other,)})
    text = html.page(build_report(with_collections(analysis, first, *others)))
    header = text[text.index("<header") : text.index("</header>")]
    assert header.count("L5-S1") == 1
    assert header.count("numbering confidence") == 1


def with_collections(analysis: Analysis, *found: object, leak: str = "present") -> Analysis:
    located = analysis.localization
    finding = located.finding.model_copy(update={"leak": leak})
    return replace(analysis, localization=replace(located, collections=found, finding=finding))


def test_the_most_certain_collection_comes_first(analysis: Analysis) -> None:
    definite, possible = analysis.localization.collections
    others = tuple(
        LevelAlternative(level=level, score=0.2, basis=("similar cross-section",))
        for level in ("L5-S1", "L3-L4")
    )
    numbered = with_collections(
        analysis,
        possible.model_copy(update={"id": 1, "volume_ml": 9.0}),
        definite.model_copy(update={"id": 2, "alternatives": others}),
    )
    text = html.page(build_report(numbered))
    assert "L3-L4 to L4-L5; largest at L4-L5</h1>" in re.sub("</?span[^>]*>", "", text)
    assert answers(numbered)["Level"].startswith("L4-L5 or L5-S1 or L3-L4")
    assert text.index("<h3>Collection 2") < text.index("<h3>Collection 1")
    assert "1: L2-L3, possible" in text
    buttons = [c["id"] for c in make_viewer(numbered, 200_000).data["collections"]]
    assert buttons == [2, 1]


def test_an_indeterminate_result_states_the_reason(analysis: Analysis) -> None:
    none = with_collections(analysis, leak="indeterminate")
    report = build_report(none)
    text = html.page(report)
    assert "<h1>Epidural fluid: indeterminate</h1>" in text
    caveat = text[text.index('class="caveat"') :][:400]
    assert report.finding.summary in caveat
    possible = with_collections(
        analysis, analysis.localization.collections[1], leak="indeterminate"
    )
    assert "<h1>Possible epidural fluid, left, " in html.page(build_report(possible))


def test_unnamed_levels_are_stated_at_the_top(analysis: Analysis) -> None:
    (first, _) = analysis.localization.collections
    unnamed = with_collections(
        analysis, first.model_copy(update={"level": None, "segments": (), "alternatives": ()})
    )
    finding = unnamed.localization.finding.model_copy(update={"level": None})
    unnamed = replace(
        unnamed,
        levels=replace(analysis.levels, status="unlabelled"),
        localization=replace(unnamed.localization, finding=finding),
    )
    text = html.page(build_report(unnamed))
    assert "<h1>Epidural fluid, dorsal, 50 mm long, level not named</h1>" in text
    assert "Vertebral levels could not be named" in text[: text.index("</header>")]
    assert answers(unnamed)["Level"] == "not named"


def test_thickness_at_the_edge_of_the_images_is_a_minimum(analysis: Analysis) -> None:
    located = analysis.localization
    cut = [
        s.model_copy(update={"dorsal": s.dorsal.model_copy(update={"truncated": s.present})})
        for s in located.fluid_by_segment
    ]
    changed = replace(analysis, localization=replace(located, fluid_by_segment=tuple(cut)))
    assert "at least" not in html.page(build_report(analysis))
    text = html.page(build_report(changed))
    assert "<td>at least 4.5 (90)</td>" in text
    assert "the fluid extends to the edge of the images</caption>" in text


def test_root_diverticula_have_a_section(analysis: Analysis) -> None:
    roots = tuple(
        RootDiverticulum(
            root=root, side=side, max_diameter_mm=mm, volume_ml=0.2,
            center_lps_mm=(8.0, 12.0, -40.0), sac_distance_mm=1.0,
        )
        for root, side, mm in (("S2", "left", 13.2), ("L4", "right", 6.1))
    )  # fmt: skip
    finding = analysis.localization.finding.model_copy(update={"root_diverticula": roots})
    found = replace(analysis, localization=replace(analysis.localization, finding=finding))
    text = html.page(build_report(found), viewer=make_viewer(analysis, 200_000))
    section = text[text.index('<section id="roots">') :]
    section = section[: section.index("</section>")]
    assert "Largest perineural cyst or root sleeve diverticulum: left S2 root, 13 mm" in section
    assert section.index(">S2</a>") < section.index(">L4</a>")
    assert "<td>right</td><td>6.1</td>" in section
    assert "Not assessed." in html.page(build_report(analysis))


def test_the_page_stays_below_3_mb(analysis: Analysis) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1400, 3), dtype=np.uint8)
    many = [
        replace(picture(f"collection-1-axial-{n}", 1), rgb=noise) for n in range(6)
    ]  # noise is the worst to compress
    text = html.page(build_report(analysis), many)
    assert len(text.encode()) < 3_000_000
    assert "The axial figure is overlays/collection-1-axial-" in text


def test_other_numberings_say_what_the_finding_would_be_called(analysis: Analysis) -> None:
    text = html.page(build_report(analysis))
    row = text[text.index("<td>-1</td>") :][:80]
    assert "<td>L3-L4</td>" in row


@pytest.mark.parametrize(
    ("segment", "shift", "name"),
    [
        ("L4-L5", 1, "L5-S1"),
        ("L5-S1", 1, "S1-S2"),
        ("L1-L2", -1, "T12-L1"),
        ("S4-S5", 1, "not named"),
        ("C1-C2", -1, "not named"),
        (None, 1, "not named"),
    ],
)
def test_shifted_names(segment: str | None, shift: int, name: str) -> None:
    assert html._shifted(segment, shift, 5) == name


def test_nothing_found_says_what_that_does_not_mean(leakless: Analysis) -> None:
    text = html.page(build_report(leakless))
    assert "<h1>No epidural fluid detected, L1 to S1</h1>" in text and "does not exclude" in text
    Outline(text)


def test_no_identity_on_the_page(analysis: Analysis, folder: Path) -> None:
    write_outputs(analysis, folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    info = analysis.study.info
    assert str(info.patient_id) not in text and str(info.accession_number) not in text


def test_a_broken_page_costs_only_the_page(
    analysis: Analysis,
    with_settings: Callable[..., Analysis],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> str:
        raise ValueError

    monkeypatch.setattr(html, "page", broken)
    report = write_outputs(with_settings(analysis, report__write=["html"]), folder)
    assert report.outputs.html is None
    assert report.quality.warnings[-1].code == "page_not_written"
    assert not (folder / "report.html").exists()


def test_path_to_a_collection_is_reported(analysis: Analysis) -> None:
    report = build_report(analysis)
    (target,) = report.planning.targets
    changed = target.model_copy(
        update={
            "interlaminar": (
                InterlaminarWindow(segment="L5-S1", along_canal_mm=-31, skin_to_canal_mm=None),
            ),
            "narrowest_posterior_depth": NarrowestDepth(
                depth_mm=2.5, lps_mm=(1, 2, -3), level="L5-S1"
            ),
            "cysts": (CystOnPath(volume_ml=0.4, center_lps_mm=(-4, 90, -120)),),
        }
    )
    planning = report.planning.model_copy(update={"targets": (changed,)})
    text = html.page(report.model_copy(update={"planning": planning}))
    way = text[text.index('id="planning"') : text.index('id="series"')]
    assert "<td>L5-S1</td><td>31 below</td><td>unknown</td>" in way
    assert "2.5 mm at L5-S1 (L 1.0 mm, P 2.0 mm, F 3.0 mm)" in way
    assert "0.40 mL at R 4.0 mm" in way


def test_rejected_candidates_are_listed_with_reason(leakless: Analysis) -> None:
    candidate = Candidate(
        id=0,
        accepted=False,
        probability=0.15,
        volume_ml=2.4,
        center_lps=np.array([-12.0, 40.0, 8.0]),
        reason=f"Lies behind the spine {EVIL}.",
        mimics=("seroma",),
        compartments=(),
    )
    smaller = [replace(candidate, volume_ml=0.01 * n) for n in range(20)]
    seen = replace(leakless.segmentation, candidates=(*smaller, candidate))
    report = build_report(replace(leakless, segmentation=seen))
    assert report.rejected[0].volume_ml == 2.4 and len(report.rejected) == 21
    text = html.page(report, (), make_viewer(leakless, 100_000))
    part = text[text.index("Rejected candidates") : text.index('id="levels"')]
    assert 'data-lps="-12.00,40.00,8.00"' in part and "2.40" in part
    assert "&lt;script&gt;" in part and "<script>" not in part
    assert f"{21 - html.MAX_REJECTED_LISTED} more" in part
