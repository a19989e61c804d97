"""The page in a real headless Chromium; skipped where there is none."""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakloc.pipeline import Analysis
from leakloc.relabel.corrections import with_corrected_fluid
from leakloc.report import Report, write_outputs
from leakloc.report.model import Corrections, positions_lps_mm

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, *others = analysis.triage.stacks
    first = replace(first, stack=replace(first.stack, description=EVIL), reason=f"named {EVIL}")
    crescent, *rest = analysis.localization.collections
    z = crescent.epicenter_lps_mm[2]  # in the middle of the sac, as that of a crescent may be
    line = analysis.segmentation.centerline.points_lps
    middle = line[np.abs(line[:, 2] - z).argmin()]
    collections = (crescent.model_copy(update={"epicenter_lps_mm": tuple(middle)}), *rest)
    marked = replace(
        analysis,
        localization=replace(analysis.localization, collections=collections),
        triage=replace(analysis.triage, stacks=(first, *others)),
        settings=analysis.settings.changed(report__write=["html"]),
    )
    folder = tmp_path_factory.mktemp("page") / "out"
    write_outputs(marked, folder)
    return folder / "report.html"


class Page:
    """A loaded report and everything that went wrong in it."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.tab = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.trouble.append(message.text))
        self.tab.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(report.as_uri())
        self.tab.wait_for_selector("#viewer[data-ready]", timeout=20_000)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.tab.evaluate("() => new Promise(d => requestAnimationFrame(() => setTimeout(d, 30)))")

    def at(self) -> list[int]:
        data = self.tab.evaluate("() => ({...document.getElementById('viewer').dataset})")
        return [int(data[axis]) for axis in "ijk"]

    def lps(self) -> np.ndarray:
        text = self.tab.get_attribute("#viewer", "data-lps")
        return np.array([float(x) for x in text.split(",")])

    def pixels(self, plane: str) -> np.ndarray:
        url = self.tab.evaluate("id => document.getElementById(id).toDataURL()", plane)
        image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))
        return np.asarray(image.convert("RGB"))

    def press(self, plane: str, *keys: str) -> None:
        self.tab.focus(f"#{plane}")
        for key in keys:
            self.tab.keyboard.press(key)
        self.settle()


@pytest.fixture(scope="module")
def shared(browser: Any, report: Path) -> Iterator[Page]:
    page = Page(browser, report, viewport={"width": 1600, "height": 1000})
    yield page
    page.context.close()


@pytest.fixture
def page(shared: Page) -> Page:
    shared.tab.emulate_media(media="screen")
    shared.press("sagittal", "1", "r", "-", "-", "-", "-")
    for what in ("masks", "names", "cross"):
        shared.tab.check(f"#show-{what}")
    shared.settle()
    return shared


def colored(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(pixels.astype(int) - color).sum(axis=-1) < 40).sum())


BLUE, ORANGE = (86, 180, 233), (230, 159, 0)


def test_it_loads_without_a_complaint_or_a_request(shared: Page, report: Path) -> None:
    assert shared.trouble == []
    outgoing = [url for url in shared.requests if not url.startswith("data:")]
    assert outgoing == [report.as_uri()]
    assert report.stat().st_size < 3_000_000


def test_header_text_stays_text(shared: Page) -> None:
    assert shared.tab.evaluate("() => window.hacked") is None
    assert EVIL in shared.tab.inner_text("body")


def test_masks_can_be_hidden(page: Page) -> None:
    before = page.pixels("sagittal")
    assert colored(before, BLUE) > 100 and colored(before, ORANGE) > 50
    page.tab.uncheck("#show-masks")
    page.settle()
    after = page.pixels("sagittal")
    assert colored(after, BLUE) == colored(after, ORANGE) == 0
    page.press("axial", "m")
    assert page.tab.is_checked("#show-masks")
    np.testing.assert_array_equal(page.pixels("sagittal"), before)


@pytest.mark.parametrize("what", ["names", "cross"])
def test_names_and_cross_hair_can_be_hidden(page: Page, what: str) -> None:
    before = page.pixels("coronal")
    page.tab.uncheck(f"#show-{what}")
    page.settle()
    assert (page.pixels("coronal") != before).any()


def test_a_collection_in_the_table_opens_its_slice(page: Page, analysis: Analysis) -> None:
    second = analysis.localization.collections[1]
    spacing = np.linalg.norm(np.array(analysis.triage.myelogram.geometry.spacing_ijk_mm))
    page.tab.click("table a[title='Show collection 2 in the viewer']")
    page.settle()
    assert np.linalg.norm(page.lps() - second.epicenter_lps_mm) <= spacing / 2
    status = page.tab.inner_text("#viewer-place")
    assert "collection 2" in status and "L2-L3" in status
    assert page.tab.evaluate("() => document.activeElement.id") == "sagittal"
    assert colored(page.pixels("axial"), ORANGE) > 20


def test_a_crescent_opens_in_its_fluid_and_not_in_its_hollow(page: Page) -> None:
    page.press("axial", "2")
    page.tab.click(".targets button >> nth=0")
    page.settle()
    assert "collection 1" in page.tab.inner_text("#viewer-place")
    at = page.at()
    page.press("axial", "2", "1")
    assert page.at() == at


def test_wheel_and_keys_step_through_slices(page: Page) -> None:
    i, j, k = page.at()
    page.press("sagittal", "ArrowRight", "ArrowUp", "ArrowLeft")
    assert page.at() == [i + 1, j, k]
    page.press("axial", "PageDown")
    assert page.at() == [i + 1, j, k - 10]
    page.press("coronal", "Shift+ArrowUp", "Shift+ArrowLeft")
    assert page.at() == [i, j, k - 9]
    page.press("coronal", "Home")
    assert page.at() == [i, 0, k - 9]
    page.tab.hover("#coronal")
    page.tab.mouse.wheel(0, -100)
    page.settle()
    assert page.at()[1] in (2, 3)
    page.tab.focus("#axial-slice")
    page.tab.keyboard.press("ArrowRight")
    page.settle()
    assert page.at()[2] == k - 8
    assert "slice" in page.tab.get_attribute("#axial-slice", "aria-valuetext")


def test_a_click_moves_the_cross_hair_in_all_planes(page: Page) -> None:
    before = page.at()
    box = page.tab.locator("#sagittal").bounding_box()
    page.tab.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.25 * box["height"])
    page.settle()
    i, j, k = page.at()
    shape = page.tab.evaluate(
        "() => JSON.parse(document.getElementById('viewer-data').textContent).shape"
    )
    assert i == before[0]
    assert j == pytest.approx(0.5 * shape[1], abs=1) and k == pytest.approx(0.75 * shape[0], abs=1)


def test_a_drag_changes_the_window(page: Page) -> None:
    page.tab.uncheck("#show-masks")
    page.settle()
    before, place = page.pixels("axial").mean(), page.at()
    box = page.tab.locator("#axial").bounding_box()
    x, y = box["x"] + 40, box["y"] + 40
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x, y + 80, steps=4)
    page.tab.mouse.up()
    page.settle()
    assert page.pixels("axial").mean() < before  # a higher window level gives a darker image
    assert page.at() == place
    page.tab.click("#window-reset")
    page.settle()
    assert page.pixels("axial").mean() == pytest.approx(before)


def test_left_of_the_patient_is_right_in_the_picture(page: Page) -> None:
    page.press("axial", "2")  # a collection on the patient's left
    columns = np.nonzero(np.abs(page.pixels("axial").astype(int) - ORANGE).sum(-1) < 40)[1]
    sac = np.nonzero(np.abs(page.pixels("axial").astype(int) - BLUE).sum(-1) < 40)[1]
    assert columns.mean() > sac.mean()


def test_zoom_enlarges_around_the_cross_hair(page: Page) -> None:
    before = colored(page.pixels("axial"), ORANGE)
    page.tab.click("#zoom-in")
    page.tab.click("#zoom-in")
    page.settle()
    assert page.tab.inner_text("#zoom-text") == "2×"
    assert colored(page.pixels("axial"), ORANGE) > 1.4 * before


def test_every_control_has_a_name(page: Page) -> None:
    unnamed = page.tab.evaluate(
        """() => [...document.querySelectorAll('button, input, canvas')].filter(e =>
        !(e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels.length)))
        .map(e => e.id)"""
    )
    assert unnamed == []


def test_a_phone_needs_no_sideways_scrolling(browser: Any, report: Path) -> None:
    page = Page(browser, report, viewport={"width": 360, "height": 740}, has_touch=True)
    try:
        width = page.tab.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 360
        for plane in ("sagittal", "coronal", "axial"):
            box = page.tab.locator(f"#{plane}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 360
        page.tab.locator("#axial").scroll_into_view_if_needed()
        box = page.tab.locator("#axial").bounding_box()
        before = page.at()
        page.tab.touchscreen.tap(box["x"] + 30, box["y"] + 30)
        page.settle()
        assert page.at() != before and page.trouble == []
    finally:
        page.context.close()


def test_paper_shows_planes_and_figures_but_no_controls(page: Page) -> None:
    page.tab.emulate_media(media="print")
    assert not page.tab.is_visible(".controls") and not page.tab.is_visible("#axial-slice")
    assert page.tab.is_visible("#sagittal") and page.tab.is_visible("h1")
    assert page.tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert page.tab.pdf().count(b"/Type /Page") >= 2


def downloaded(page: Page) -> Corrections:
    with page.tab.expect_download() as download:
        page.tab.get_by_role("button", name="Download corrections.json").press("Enter")
    return Corrections.model_validate_json(Path(download.value.path()).read_bytes())


def name_position(page: Page, name: str) -> tuple[float, float]:
    """Position of a vertebra's name in the sagittal view at zoom 1, in pixels of the window."""
    data = json.loads(page.tab.text_content("#viewer-data"))
    (lps,) = (v["lps"] for v in data["vertebrae"] if v["name"] == name)
    _, j, k = np.linalg.solve(np.array(data["affine"]), [*lps, 1.0])[:3]
    rows, columns, _ = data["shape"]
    _, j_mm, k_mm = data["spacing"]
    box = page.tab.locator("#sagittal").bounding_box()
    px_per_mm = box["height"] / (rows * k_mm)
    left = (box["width"] - columns * j_mm * px_per_mm) / 2
    x = max(left + ((j + 0.5) * j_mm - 27) * px_per_mm, 18)  # 27 mm anterior, as in viewer.js
    return box["x"] + x, box["y"] + (rows - 0.5 - k) * k_mm * px_per_mm


def test_a_click_on_a_name_selects_the_vertebra(page: Page) -> None:
    page.tab.evaluate("() => { document.getElementById('correct').open = false; }")
    page.tab.locator("#sagittal").scroll_into_view_if_needed()
    before = page.at()
    page.tab.mouse.click(*name_position(page, "L4"))
    page.settle()
    assert page.tab.input_value("#correct-vertebra") == "L4"
    assert page.tab.evaluate("() => document.activeElement.id") == "correct-name"
    assert page.at() == before


def test_corrections_are_made_with_the_keyboard_and_downloaded(browser: Any, report: Path) -> None:
    page = Page(browser, report, viewport={"width": 1600, "height": 1000})
    try:
        tab = page.tab
        tab.locator("#correct > summary").press("Enter")
        tab.locator("#correct-vertebra").press("S")  # first option that starts with S
        assert tab.input_value("#correct-vertebra") == "S1"
        tab.locator("#correct-name").select_option("L5")
        tab.locator("#correct-rename").press("Enter")
        tab.locator("#correct-disc").select_option("L3-L4")
        tab.locator("#correct-move").press("Enter")
        tab.locator("#correct-disc").select_option("L1-L2")
        tab.locator("#correct-delete").press("Space")
        tab.locator("[data-collection-mark='2']").select_option("false")
        assert tab.locator("#correct-list li").count() == 4
        tab.locator("#correct-download").press("Enter")
        assert "name or initials" in tab.inner_text("#correct-status")
        tab.locator("#correct-reader").fill("AB")
        made = downloaded(page)
        assert made.reader == "AB"
        assert [(v.name, v.new_name) for v in made.vertebrae] == [("S1", "L5")]
        assert {d.name: d.lps_mm is None for d in made.discs} == {"L3-L4": False, "L1-L2": True}
        assert made.discs[0].lps_mm == pytest.approx(page.lps(), abs=0.1)
        assert [(c.id, c.is_fluid) for c in made.collections] == [(2, False)]
        known = positions_lps_mm(Report.load(report.parent))
        named = ("S1", "L3-L4", "L1-L2", "2")
        assert made.positions_lps_mm == {name: known[name] for name in named}
        tab.get_by_role("button", name="Remove: Disc L1-L2").click()
        assert len(downloaded(page).discs) == 1
        assert page.trouble == []
    finally:
        page.context.close()


def edited_points(page: Page, analysis: Analysis, edit: str) -> np.ndarray:
    """Centers of the painted or erased voxels of the myelogram, from the downloaded file."""
    page.tab.evaluate("() => { document.getElementById('correct').open = true; }")
    page.tab.locator("#correct-reader").fill("AB")
    made = downloaded(page)
    before = analysis.segmentation
    after = with_corrected_fluid(before, [made], analysis.settings.segmentation)
    had, has = before.collections.array > 0, after.collections.array > 0
    voxels = has & ~had if edit == "painted" else had & ~has
    return before.collections.geometry.lps_from_kji(np.argwhere(voxels))


def sagittal_position(page: Page) -> tuple[float, float]:
    """A position posterior to the canal in the sagittal view, in pixels of the window."""
    page.tab.evaluate("() => document.getElementById('sagittal').scrollIntoView()")
    box = page.tab.locator("#sagittal").bounding_box()
    return box["x"] + 0.8 * box["width"], box["y"] + 0.25 * box["height"]


@pytest.mark.slow
def test_fluid_is_painted_and_erased_with_mouse_and_keys(
    browser: Any, report: Path, analysis: Analysis
) -> None:
    page = Page(browser, report, viewport={"width": 1600, "height": 1000})
    try:
        tab, opened = page.tab, page.at()
        start = sagittal_position(page)
        tab.mouse.click(*start)  # moves the cross-hair there
        page.settle()
        middle, at = page.lps(), page.at()
        tab.check("input[name=brush][value=paint]")
        tab.mouse.move(*start)
        tab.mouse.down()
        tab.mouse.up()
        page.settle()
        assert at != opened and page.at() == at
        assert "painted" in tab.inner_text("#viewer-place")
        points = edited_points(page, analysis, "painted")
        assert np.linalg.norm(points.mean(axis=0) - middle) < 1.5
        assert np.linalg.norm(points - middle, axis=1).max() < 4.5
        start = sagittal_position(page)
        tab.mouse.move(*start)
        tab.mouse.down()
        tab.mouse.move(start[0], start[1] + 60, steps=3)
        tab.mouse.up()
        page.settle()
        line = edited_points(page, analysis, "painted")
        data = json.loads(tab.text_content("#viewer-data"))
        height_mm = data["shape"][0] * data["spacing"][2]
        drag_mm = 60 * height_mm / tab.locator("#sagittal").bounding_box()["height"]
        longer_mm = np.ptp(line[:, 2]) - np.ptp(points[:, 2])
        assert longer_mm == pytest.approx(drag_mm, abs=data["spacing"][2])
        tab.locator("#brush-undo").press("Enter")
        assert len(edited_points(page, analysis, "painted")) == len(points)
        page.press("sagittal", "Shift+ArrowRight", "ArrowDown", " ")  # another slice, lower
        assert page.at() == [at[0] + 1, at[1], at[2] - 1]
        assert len(edited_points(page, analysis, "painted")) > len(points)
        page.press("sagittal", "z", "z", "b")
        assert len(tab.locator("#correct-list li").all()) == 0

        page.press("sagittal", "1", "e", " ")
        erased = edited_points(page, analysis, "erased")
        assert np.linalg.norm(erased - page.lps(), axis=1).max() < 4.5
        assert "erased" in tab.inner_text("#viewer-place")
        tab.get_by_role("button", name="Remove: Fluid erased").click()
        assert "erased" not in tab.inner_text("#viewer-place")
        assert page.trouble == []
    finally:
        page.context.close()


@pytest.mark.slow
def test_fluid_is_painted_with_a_finger_without_scrolling(
    browser: Any, report: Path, analysis: Analysis
) -> None:
    page = Page(browser, report, viewport={"width": 390, "height": 844}, has_touch=True)
    try:
        tab = page.tab
        start = sagittal_position(page)
        tab.touchscreen.tap(*start)
        page.settle()
        middle = page.lps()
        tab.locator("input[name=brush][value=paint]").tap()
        start = sagittal_position(page)
        scrolled = tab.evaluate("() => scrollY")
        protocol = page.context.new_cdp_session(tab)
        for kind, y in (("touchStart", 0), ("touchMove", 30), ("touchMove", 60)):
            touch = {
                "type": kind,
                "touchPoints": [{"x": start[0], "y": start[1] + y}],
            }
            protocol.send("Input.dispatchTouchEvent", touch)
        protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.settle()
        assert tab.evaluate("() => scrollY") == scrolled
        line = edited_points(page, analysis, "painted")
        assert np.linalg.norm(line - middle, axis=1).min() < 4.0
        assert np.ptp(line[:, 2]) > 15
        assert page.trouble == []
    finally:
        page.context.close()


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_the_answer_is_on_the_first_screen(
    browser: Any, report: Path, size: tuple[int, int]
) -> None:
    width, height = size
    page = Page(browser, report, viewport={"width": width, "height": height})
    try:
        for part in ("h1", ".caveat", ".large", ".key-images figure >> nth=1"):
            box = page.tab.locator(part).bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] <= height, part
        box = page.tab.locator("#viewer").bounding_box()
        assert box["y"] < 1.5 * height
        heights = [plane.bounding_box()["height"] for plane in page.tab.locator(".plane").all()]
        assert heights[0] == pytest.approx(heights[1], abs=3)
    finally:
        page.context.close()


def test_the_theme_is_that_of_the_system(page: Page) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        page.tab.emulate_media(color_scheme=scheme)
        found[scheme] = page.tab.evaluate(background)
    assert found["light"] == "rgb(255, 255, 255)" and found["dark"] == "rgb(14, 15, 18)"
    page.tab.emulate_media(media="print", color_scheme="dark")
    assert page.tab.evaluate(background) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
@pytest.mark.slow
def test_axe_finds_no_violation(browser: Any, report: Path, width: int, scheme: str) -> None:
    axe = Path(os.environ.get("LEAKLOC_AXE", "node_modules/axe-core/axe.min.js"))
    if not axe.exists():
        pytest.skip("needs the npm package axe-core (path of axe.min.js in LEAKLOC_AXE)")
    page = Page(
        browser,
        report,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        bypass_csp=True,
    )
    try:
        page.tab.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
        page.tab.evaluate(axe.read_text(encoding="utf-8"))
        result = page.tab.evaluate("() => axe.run({resultTypes: ['violations']})")
        assert [violation["id"] for violation in result["violations"]] == []
    finally:
        page.context.close()


def test_a_browser_that_alters_images_is_reported(browser: Any, report: Path) -> None:
    context = browser.new_context()
    context.add_init_script(
        """const read = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...at) {
          const made = read.apply(this, at);
          made.data[4 * 1000] ^= 3;
          return made;
        };"""
    )
    tab = context.new_page()
    tab.goto(report.as_uri())
    tab.wait_for_selector("#viewer[data-ready=no]", timeout=20_000)
    assert "alters pictures" in tab.inner_text("#viewer-place")
    context.close()


def test_without_scripts_the_figures_remain(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert tab.is_visible("figure img") and "needs JavaScript" in tab.inner_text("#viewer")
    context.close()
