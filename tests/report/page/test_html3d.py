import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leakloc.pipeline import Analysis
from leakloc.report import build_report, write_outputs
from leakloc.report.page import html3d

CHROMIUM = Path("/usr/bin/chromium")


def embedded(text: str) -> dict[str, object]:
    start = text.index('id="viewer-data">') + len('id="viewer-data">')
    values: dict[str, object] = json.loads(text[start : text.index("</script>", start)])
    return values


def image_of(values: dict[str, object], name: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(str(values[name]))))


def test_the_masks_lie_where_they_lay(analysis: Analysis) -> None:
    values = embedded(html3d.page(build_report(analysis), analysis))
    labels, volume = image_of(values, "labels"), image_of(values, "volume")
    np.testing.assert_array_equal(labels.affine, volume.affine)
    found = analysis.segmentation.collections
    true = found.geometry.lps_from_kji(np.argwhere(found.array > 0)).mean(axis=0)
    ijk = np.argwhere(np.asarray(labels.dataobj) == html3d.FLUID_VALUE).mean(axis=0)
    ras = nib.affines.apply_affine(labels.affine, ijk)
    np.testing.assert_allclose(ras * [-1, -1, 1], true, atol=0.01)
    signal = np.asarray(volume.dataobj, dtype=float)
    fluid = np.asarray(labels.dataobj) == html3d.FLUID_VALUE
    assert signal[fluid].mean() > 3 * signal[np.asarray(labels.dataobj) == 0].mean()


def test_texts_cannot_run(analysis: Analysis) -> None:
    evil = "<script>alert(1)</script>"
    first, *others = analysis.localization.collections
    marked = replace(
        analysis,
        localization=replace(
            analysis.localization,
            finding=analysis.localization.finding.model_copy(update={"summary": evil}),
            collections=(first.model_copy(update={"level": evil}), *others),
        ),
    )
    text = html3d.page(build_report(marked), marked)
    assert evil not in text and "&lt;script&gt;alert(1)" in text
    assert text.count("</script>") == 3  # the data, NiiVue, ours


def test_it_is_written_on_demand_only(
    analysis: Analysis, with_settings: Callable[..., Analysis], tmp_path: Path
) -> None:
    plain = write_outputs(with_settings(analysis, report__write=["json"]), tmp_path / "plain")
    assert plain.outputs.html3d is None and plain.outputs.pdf is None
    wanted = with_settings(analysis, report__write=["html3d", "pdf"])
    report = write_outputs(wanted, tmp_path / "all")
    assert report.outputs.html3d == "report3d.html" and report.outputs.pdf == "figures.pdf"
    assert (tmp_path / "all" / "figures.pdf").read_bytes().startswith(b"%PDF")
    assert "Niivue" in (tmp_path / "all" / "report3d.html").read_text(encoding="utf-8")
    assert write_outputs(wanted, tmp_path / "all", overwrite=True).outputs.pdf == "figures.pdf"


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
def test_it_opens_at_the_finding_in_a_browser(analysis: Analysis, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    file = tmp_path / "report3d.html"
    file.write_text(html3d.page(build_report(analysis), analysis), encoding="utf-8")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        tab = browser.new_context(offline=True, viewport={"width": 900, "height": 700}).new_page()
        trouble: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        assert tab.evaluate("() => document.body.dataset.ready") == "yes"
        spacing = np.array(analysis.triage.myelogram.geometry.spacing_ijk_mm)
        for collection, button in zip(
            analysis.localization.collections,
            tab.locator("[data-lps]:not(body)").all(),
            strict=True,
        ):
            button.click()
            lps = [float(x) for x in tab.get_attribute("body", "data-lps").split(",")]
            gap = np.linalg.norm(np.array(lps) - collection.epicenter_lps_mm)
            assert gap <= np.linalg.norm(spacing) / 2
        browser.close()
    assert trouble == [] and {url for url in requests if not url.startswith("data:")} == {
        file.as_uri()
    }
