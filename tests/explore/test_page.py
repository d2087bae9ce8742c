"""An explorer written as one HTML file, opened from the disk in a real browser, moved by keyboard."""

import os
import re

import ipywidgets as widgets
import pytest
import torch

from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.page import EXPLORERS
from tests.jupyter_page import CHROMIUM, chromium


class Brighter(Explorer):
    """A network for each value of a slider."""

    title = "Brighter <and> darker"
    organ = "brain"  # in four channels

    def __init__(self, cases):
        torch.manual_seed(0)
        self.networks = [torch.nn.Conv2d(4, 4, 1) for _ in range(4)]
        self.which = widgets.IntSlider(value=1, max=3, description="Which", **LOOK)
        self._open(cases, (self.which,))

    def choice(self):
        return self.which.value

    def nearby(self):
        return [0, 1, 2, 3]

    def network(self, choice, own):
        return self.networks[choice]

    def words(self, choice):
        return f"Network {choice} </script>."

    def shown(self):
        return {"first": 0}


@pytest.fixture(scope="module")
def page(case, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        explorer = Brighter([case])
        path = explorer.save(tmp_path_factory.mktemp("page") / "brighter.html")
        assert (explorer.which.value, explorer.slice.value) == (1, 1), "it is left as it was"
    return path


def test_it_needs_nothing_but_itself(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|url\(""", text)
    assert len(text) < 8 << 20
    assert text.count("</script>") == 1, "words of a network end no script"
    assert "being computed" not in text, "nothing comes later to a page"


def test_a_page_is_never_written_over_and_its_name_says_what_it_is(page, case, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    with pytest.raises(ValueError, match="end it in .html"):
        Brighter([case]).save(page.with_suffix(".png"))


def test_every_explorer_that_is_offered_is_there():
    import importlib

    for name, made in EXPLORERS.items():
        assert issubclass(getattr(importlib.import_module(f"labkit.explore.{name}"), made), Explorer)


@pytest.mark.browser
@pytest.mark.parametrize("width, scheme", [(1440, "light"), (390, "dark")])
def test_arrow_keys_change_picture_words_and_what_a_screen_reader_hears(page, width, scheme):
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("there is no Chromium")
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        errors = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(page.as_uri())
        assert tab.title() == "Brighter <and> darker"
        value = tab.get_by_role("slider", name="Which")
        before = tab.locator("#image").get_attribute("src")
        assert "Network 1" in tab.get_by_role("status").last.inner_text()
        tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        assert value.get_attribute("aria-valuetext") == "2"
        assert tab.locator("#image").get_attribute("src") != before
        assert "Network 2 </script>." in tab.locator("#words").inner_text()
        assert "Network 2" in tab.locator("#image").get_attribute("alt")
        tab.keyboard.press("End")
        assert "Network 3" in tab.locator("#words").inner_text()
        tab.get_by_role("slider", name="Slice").focus()
        tab.keyboard.press("Home")
        assert tab.locator("#slice-said").inner_text() == "1", "a volume of three slices has one in reach"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not errors
