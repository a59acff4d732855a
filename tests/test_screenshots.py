"""The pictures of the documentation are made by a script, and pages of runner fit into a phone and a wide screen."""

import re
import sys

import pytest
from comparing_runs import write_sweep
from documented import PAGES
from running import ROOT, job

from runner.tasks import start

sys.path.append(str(ROOT / "docs"))
import chromium
import make_screenshots

pytestmark = pytest.mark.rendered

DOCS = ROOT / "docs"
MOST_BYTES = 200_000
needs_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium (apt-get install chromium)")


def test_every_picture_is_made_by_the_script_and_shown_on_a_page():
    pictures = {path.name for path in DOCS.rglob("*") if path.suffix in (".png", ".jpg", ".svg", ".gif", ".webp")}
    links = [link for page in PAGES for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text())]
    shown = {link.rpartition("/")[2] for link in links}
    assert pictures == make_screenshots.PICTURES.keys() | make_screenshots.ELSEWHERE.keys() == shown
    assert [path.name for path in DOCS.glob("*.png") if path.stat().st_size > MOST_BYTES] == []


def test_the_commands_of_the_pictures_are_on_the_pages():
    written = " ".join((DOCS / "comparing.md").read_text().replace("\\\n", " ").replace("'", "").split())
    assert f"python -m runner {make_screenshots._GRID}" in written
    assert f"python -m runner {make_screenshots._COMPARE.removesuffix(' task.out=page')}" in written


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The HTML page of a comparison with long names."""
    folder = tmp_path_factory.mktemp("compared")
    write_sweep(folder / "sweep", {0.1: [0.9, 0.91, 0.89], 0.01: [0.8, 0.82, 0.81]}, note="a" * 90)
    assert start(job("task=compare", f"runs={folder}/sweep", f"task.out={folder}/page")) == 0
    return (folder / "page" / "comparison.html").as_uri()


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_comparison_fits_the_width_of_a_screen(comparison, width):
    with chromium.browse(width, 844) as page:
        page.open(comparison)
        assert page.evaluate("document.documentElement.scrollWidth") == width == page.evaluate("innerWidth")

        def each(names, value):
            return page.evaluate(f"[...document.querySelectorAll('{names}')].map(e => {value})")

        boxes = each("table,.figure", "e.getBoundingClientRect().right")
        assert len(boxes) >= 5 and max(boxes) <= width
        assert min(each("td,li,p", "parseFloat(getComputedStyle(e).fontSize)")) >= 14
        # A figure is not shrunk to less than its text needs; it scrolls inside its box
        assert min(each("img", "e.getBoundingClientRect().width")) >= 500


@needs_chromium
def test_a_comparison_is_dark_where_the_reader_wants_it(comparison):
    with chromium.browse(390, 844) as page:
        page.open(comparison)
        color = "getComputedStyle(document.querySelector('{}')).{}"
        light = page.evaluate(color.format("body", "backgroundColor"))
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        dark = [page.evaluate(color.format(name, "backgroundColor")) for name in ("body", "td")]
        assert light == "rgb(255, 255, 255)" and dark == ["rgb(23, 25, 28)"] * 2
        assert page.evaluate(color.format("body", "color")) == "rgb(221, 221, 221)"
        assert page.evaluate(color.format("img", "backgroundColor")) == "rgb(255, 255, 255)"
