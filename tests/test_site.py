"""The documentation site: it builds without a warning, from every page, and needs no network to read."""

import re
import subprocess
import sys

import pytest
from running import ROOT

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site(site):
    names = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert {page.stem for page in site.glob("*.html")} == names | {"genindex", "search"}


def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = re.compile(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["'](https?:)?//""")
    assert [page.name for page in site.glob("*.html") if loaded.search(page.read_text())] == []
    styles = [*site.rglob("*.css")]
    assert styles
    assert [page.name for page in styles if re.search(r"(?:url\(|@import)\s*[\"']?https?://", page.read_text())] == []
