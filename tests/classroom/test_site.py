"""The course as pages: what is there, what must not be there, and how it looks in a real browser."""

import os
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from labkit.classroom import mathml, site
from labkit.explore import page
from labkit.paths import checkout_root
from labkit.release import editions
from tests.jupyter_page import CHROMIUM, chromium

LABS = sorted((checkout_root() / "notebooks").glob("*.py"))
SHOWN = [source for source in LABS if source.stem in ("00_welcome", "05_rank")]


def explorer(name):
    """An explorer without networks."""

    def save(path):
        path.write_text(f"<!doctype html><html lang=en><title>{name}</title><h1>It moves</h1></html>")

    return SimpleNamespace(title=f"About {name}", save=save, let_go=lambda: None)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    for name in site.NEEDED:
        pytest.importorskip(name, reason="the extra `site` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "opened", explorer)
        patch.setattr(site, "sources", lambda: SHOWN)
        return site.build(tmp_path_factory.mktemp("site") / "new" / "site", ["rank", "bits"]).parent


class Links(HTMLParser):
    """Where a page leads to, what it asks for, and the places in it."""

    def __init__(self, path):
        super().__init__()
        self.to, self.places = [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found.get("id"), found.get("name")}
        for name in ("href", "src"):
            if found.get(name) is not None:
                self.to.append((tag, found[name]))


def read(folder):
    return {path: Links(path) for path in folder.rglob("*.html") if "_static" not in path.parts}


def test_no_link_leads_nowhere(pages):
    found, checked = read(pages), 0
    for path, links in found.items():
        for tag, link in links.to:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                assert tag == "a", f"{path.name} asks the network for {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if target in found:
                assert unquote(parts.fragment) in found[target].places, f"{path.name}: {link}"
            checked += 1
    assert checked > 100


def test_every_lab_and_guide_is_a_page_and_leads_to_the_next(pages):
    for name in ("docs/results", "docs/instructors", "docs/grading", "docs/research", "explorers", "search"):
        assert (pages / f"{name}.html").is_file()
    after = re.search(r'<a class="right-next"\s+href="([^"]+)"', (pages / "labs/00_welcome.html").read_text())
    assert after[1] == "05_rank.html"
    before = re.search(r'<a class="left-prev"\s+href="([^"]+)"', (pages / "labs/05_rank.html").read_text())
    assert before[1] == "00_welcome.html"


def test_outputs_are_there_and_pictures_have_words(pages):
    text = (pages / "labs/00_welcome.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<img [^>]*data:image/png[^>]*>", text)
    assert len(pictures) > 5 and all(re.search(r'alt="[^"]{20,}"', one) for one in pictures)
    assert "raise</span> <span" in text and "NotImplementedError" in text
    assert text.count("PASS") >= len(editions.instructor(SHOWN[0]).cells) // 40


def test_an_explorer_that_moves_stands_below_its_still(pages):
    text = (pages / "labs/05_rank.html").read_text()
    assert text.count("<iframe") == 1 and 'src="../explorers/rank.html"' in text
    assert text.index("RankExplorer</span><span") < text.index("<iframe")
    assert "It moves" in (pages / "explorers/rank.html").read_text()
    both = (pages / "explorers.html").read_text()
    assert 'src="explorers/rank.html"' in both and 'src="explorers/bits.html"' in both


def words(text):
    return re.findall(r"\w+|[^\w\s]", text)


def uncommented(code):
    return re.sub(r"(^|\s)#.*", "", code, flags=re.MULTILINE)


def answers(source):
    """The first words and signs of each solution of a lab; short ones are ordinary code."""
    text = source.read_text(encoding="utf-8")
    regions = re.findall(r"### BEGIN SOLUTION\n(.*?)\n\s*### END SOLUTION", text, re.DOTALL)
    assert regions
    found = [words(uncommented(region)) for region in regions]
    return [" ".join(region[:20]) for region in found if len(region) >= 12]


def said(notebook):
    """Words and signs of all cells and of all that they printed."""
    parts = []
    for cell in notebook.cells:
        parts.append(uncommented(cell.source) if cell.cell_type == "code" else cell.source)
        for output in cell.get("outputs", ()):
            texts = [output.get("text", ""), *output.get("data", {}).values()]
            parts += [re.sub(r"base64,[^\"']*", "", text) for text in texts if " " in text]
    return " ".join(words("\n".join(parts)))


@pytest.mark.parametrize("source", LABS, ids=[source.stem for source in LABS])
def test_no_answer_is_in_a_cell_or_in_what_it_printed(source):
    notebook = site.reading_edition(source)
    shown, solved = said(notebook), said(editions.instructor(source))
    for answer in answers(source):
        assert answer in solved, "the search finds an answer where one is"
        assert answer not in shown


def test_no_answer_is_in_the_pages(pages):
    for source in SHOWN:
        text = (pages / f"labs/{source.stem}.html").read_text(encoding="utf-8")
        seen = visible(text)
        assert " ".join(words("raise NotImplementedError")) in seen, "the search would find code"
        for answer in answers(source):
            assert answer not in seen


def visible(page):
    """Words and signs that a page shows."""
    return " ".join(words(unescape(re.sub(r"<[^>]+>", "", page))))


def test_a_lab_that_was_not_built_from_its_source_is_refused(tmp_path):
    source = tmp_path / "00_welcome.py"
    text = SHOWN[0].read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="00_welcome.ipynb is missing; make it with `labkit build 00`"):
        site.reading_edition(source)
    built = editions.instructor(source)
    nbformat.write(built, source.with_suffix(".ipynb"))
    site.reading_edition(source)
    source.write_text(text.replace("# Lab 00", "# The lab 00"), encoding="utf-8")
    assert site.reading_edition(source).cells[0].source.startswith("# The lab 00"), "words print nothing"
    source.write_text(text.replace("viewer(case)", "viewer(case, None)"), encoding="utf-8")
    with pytest.raises(ValueError, match="older than 00_welcome.py; make it anew with `labkit build 00`"):
        site.reading_edition(source)


def test_without_the_extra_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "NEEDED", ("json", "no_such_module_1"))
    with pytest.raises(ValueError, match=r"no_such_module_1, which .* uv pip install -e '.\[site\]'"):
        site.build(tmp_path / "site")
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "NEEDED", ())
    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    for out in (tmp_path, kept):
        with pytest.raises(ValueError, match="nothing is overwritten"):
            site.build(out)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"] and kept.read_text() == "mine"


def test_a_fault_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    for name in site.NEEDED:
        pytest.importorskip(name, reason="the extra `site` is not installed")
    monkeypatch.setattr(site, "sources", lambda: [])
    monkeypatch.setattr(site, "_toctree", lambda name, pages: "\n[a guide](docs/none.md)\n")
    with pytest.raises(ValueError, match="docs/none.md"):
        site.build(tmp_path / "site", [])
    assert not list(tmp_path.iterdir())


def test_formulas_are_drawn_by_the_browser_itself(pages):
    assert "<msub>" in mathml.mathml(r"\big(R_1 + \dots + R_n\big) \Big/ 2")
    with pytest.raises(ValueError, match=r"\\nosuch"):
        mathml.mathml(r"\nosuch x")
    text = (pages / "labs/05_rank.html").read_text()
    assert text.count("<math") > 10 and "mathjax@" not in text.lower()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_in_a_browser_from_the_folder(pages, width):
    """Wide and narrow: nothing runs out of the page; search finds; the dark look is two clicks away."""
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("there is no Chromium")
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": width, "height": 900})
        errors = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        for path in sorted([*pages.glob("labs/*.html"), *pages.glob("docs/*.html"), pages / "index.html"]):
            tab.goto(path.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.name
            assert tab.locator("h1:visible").first.is_visible()
            assert tab.locator(".search-button__button").locator("visible=true").count() == 1, path.name
        tab.locator("code.literal span.pre").first.evaluate(
            "code => code.textContent = 'a/long/path'.repeat(9)"
        )
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, (
            "a long path in a sentence wraps"
        )
        tab.goto((pages / "labs/00_welcome.html").as_uri())
        tab.locator("a.right-next").click()
        assert "Rank" in tab.title()
        frame = tab.locator("iframe.explorer")
        frame.scroll_into_view_if_needed()
        assert frame.content_frame.get_by_text("It moves").is_visible()
        tab.goto((pages / "search.html").as_uri() + "?q=singular")
        tab.locator("#search-results li a").first.wait_for()
        light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.get_by_role("button", name="Color mode").locator("visible=true").first.click()
        tab.get_by_role("button", name="Dark", exact=True).locator("visible=true").first.click()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
        # from a folder no browser lets a page read another: the search lists pages without excerpts
        assert set(errors) <= {"Failed to fetch"}
        if folder := os.environ.get("LABKIT_SCREENSHOTS"):
            for name in ("labs/05_rank", "index", "docs/results"):
                tab.goto((pages / f"{name}.html").as_uri())
                tab.screenshot(path=Path(folder, f"site-{Path(name).name}-{width}.png"))
