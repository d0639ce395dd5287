"""The page in a real browser: Debian's Chromium, driven by playwright."""

import re

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film, write_picture
from tests.web.conftest import serving
from tests.web.fakes import Inside

TWO = people((4, 4, 40, REAL), (60, 10, 30, FAKE))
OPEN_ALL = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"
TOKEN = "a-token-of-some-length"
HOSTILE = '"><img src=x onerror=alert(1)>\u202egpj.png'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a picture of two people, a clip that turns fake, and files with odd names."""
    home = tmp_path_factory.mktemp("files")
    write_picture(home / "two.png", TWO)
    write_picture(home / "plain.png", people((20, 8, 40, FAKE)))
    turning = [people((20, 10, 40, colour)) for colour in (REAL, FAKE) for _ in range(25)]
    write_film(home / "clip.mp4", turning)
    (home / "text.jpg").write_text("this is no picture")
    (home / "notes.txt").write_text("nothing to look at")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "<script>document.title='taken'</script>, Steps: 20")
    Image.fromarray(people((20, 8, 40, REAL))).save(home / HOSTILE, pnginfo=info)
    return home


def shown(page, name):
    """Return the line of a file, when its evidence is there."""
    line = page.locator("#files > li", has=page.locator("article")).filter(has_text=name).first
    line.wait_for(state="attached", timeout=30_000)
    box = line.locator("> details")
    box.wait_for()
    if box.get_attribute("open") is None:
        box.locator("> summary").click()
    return line


def test_a_picture_and_a_clip_are_dropped_and_their_evidence_is_shown(open_page, files):
    page = open_page()
    page.locator("#drop").drop({"files": [files / "two.png", files / "clip.mp4"]})
    picture, clip = shown(page, "two.png"), shown(page, "clip.mp4")
    for line in (picture, clip):
        article = line.locator("article")
        assert article.locator(".said").inner_text() in ("real", "fake", "unsure")
        assert article.get_by_role("heading", name="Where a model looks").is_visible()
        assert re.search(r"Withheld|No map|fold 0", article.inner_text())
        assert article.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert picture.get_by_text("Person 2").first.is_visible()
    line = clip.locator("svg.timeline")
    assert line.bounding_box()["height"] > 50
    assert "from 0." in line.get_attribute("aria-label")
    # Kept for this process alone, on a page of its own, and gone when asked for.
    page.reload()
    page.get_by_role("link", name="clip.mp4").click()
    assert page.locator("svg.timeline").is_visible()
    page.get_by_role("link", name="Look at another file").click()
    page.get_by_role("button", name="Forget all of these").click()
    assert page.get_by_role("link", name="clip.mp4").count() == 0


def test_names_and_metadata_are_shown_as_text(open_page, files):
    page = open_page()
    page.locator("#drop").drop({"files": [files / HOSTILE]})
    line = shown(page, "onerror")
    assert "\\u202egpj.png" in line.locator("> details > summary").inner_text()
    assert line.locator("img[src=x]").count() == 0
    assert page.locator("script:not([src])").count() == 0
    assert page.title() == "Is this picture or clip real?"
    page.reload()  # the history has the name too
    assert page.locator("#history").get_by_text("onerror").is_visible()
    assert page.locator("#history img").count() == 0


def test_with_the_keyboard_alone(open_page, files):
    page = open_page()
    page.on("filechooser", lambda chooser: chooser.set_files(files / "plain.png"))
    wanted = ["Real or fake", "한국어", "Choose files", "Choose a folder"]
    for name in wanted:
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.inner_text() == name
        assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Shift+Tab")
    for place, key in enumerate(("Enter", "Space")):
        page.keyboard.press(key)
        page.locator("#files > li > details").nth(place).wait_for(timeout=30_000)
    assert page.locator("#status").inner_text() in ("plain.png: fake", "All 2 files are done.")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.locator(":focus").evaluate("one => one.tagName") == "SUMMARY"
    is_open = "() => document.activeElement.parentElement.open"
    before = page.evaluate(is_open)
    page.keyboard.press("Enter")
    assert page.evaluate(is_open) != before


def test_a_phone_has_no_sideways_scroll(open_page, files):
    page = open_page(phone=True, language="ko-KR")
    assert page.locator("html").get_attribute("lang") == "ko"
    page.locator("#drop").drop({"files": [files / "two.png", files / "clip.mp4"]})
    for name in ("two.png", "clip.mp4"):
        shown(page, name)
    page.evaluate(OPEN_ALL)
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    page.get_by_role("link", name="English").click()
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_folder_is_walked_and_what_is_no_media_is_left_out(open_page, files):
    page = open_page()
    page.locator("#folder").set_input_files(files)
    assert page.locator("#status").inner_text().startswith("1 other files are no pictures")
    page.locator("#files > li > details").nth(4).wait_for(timeout=60_000)
    text = shown(page, "text.jpg")
    assert "could not be read" in text.locator("> details > summary").inner_text()


def test_a_file_that_is_refused_says_why_and_costs_the_others_nothing(open_page, files, tmp_path):
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(3_000_001))
    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((900, 1200), np.uint8)).save(wide)
    page = open_page()
    page.locator("#drop").drop({"files": [large, wide, files / "plain.png"]})
    shown(page, "plain.png")
    said = page.locator("#files .trouble").all_inner_texts()
    assert any("at most 3 MB" in one for one in said)
    assert any("at most 1,000,000" in one for one in said)


def test_without_a_script_a_form_brings_the_evidence(open_page, files):
    page = open_page(script=False)
    page.locator("#file").set_input_files([files / "two.png", files / HOSTILE])
    page.get_by_role("button", name="Look at them").click()
    assert page.locator("article").count() == 2
    assert page.locator("article .said").first.inner_text() in ("real", "fake", "unsure")
    assert page.locator("img[src=x]").count() == 0


def test_the_printed_link_lets_in_from_a_page_of_another_site(browser, tmp_path):
    with serving([Inside()], tmp_path, token=TOKEN, port=8000) as site:
        page = browser.new_page()
        link = f"<a href='{site.address}/?token={TOKEN}'>the page</a>"
        page.route("http://chat.example/", lambda route: route.fulfill(
            body=link, content_type="text/html"))  # fmt: skip
        for _ in range(2):  # with a cookie too
            page.goto("http://chat.example/")
            page.get_by_role("link", name="the page").click()
            page.get_by_role("button", name="Choose files").wait_for()
            assert "token" not in page.url
        page.context.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault(open_page, files, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(dark=dark)
    found = faults(axe, page)
    page.locator("#drop").drop({"files": [files / "two.png", files / "clip.mp4"]})
    for name in ("two.png", "clip.mp4"):
        shown(page, name)
    page.evaluate(OPEN_ALL)
    assert found + faults(axe, page) == []


def faults(axe, page):
    results = axe.run(page).response
    return [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in results["violations"]
        if one["impact"] in ("serious", "critical")
    ]
