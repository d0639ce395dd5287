"""The page in a real browser: Debian's Chromium, driven by playwright."""

import re

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from src.pages.environment import words
from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film, write_picture
from tests.web.conftest import serving
from tests.web.fakes import Inside

TWO = people((4, 4, 40, REAL), (60, 10, 30, FAKE))
say = words("en")
OPEN_ALL = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"
TOKEN = "a-token-of-some-length"
HOSTILE = '"><img src=x onerror=alert(1)>\u202egpj.png'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a picture of two people, a clip that turns fake, and files with odd names."""
    home = tmp_path_factory.mktemp("files")
    write_picture(home / "two.png", TWO)
    write_picture(home / "plain.png", people((20, 8, 40, FAKE)))
    turning = [people((20, 10, 40, colour)) for colour in (REAL,) * 12 + (FAKE,) * 38]
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
    # Of two people the first counts for the file, and the headline names who is called otherwise.
    assert picture.locator(".said").inner_text() == "real"
    assert picture.locator(".verdict strong.fake, .verdict .fake").all_inner_texts() == [
        "Person 2 is called fake."
    ]
    who = picture.locator("ul.people > li").all_inner_texts()
    assert [re.search(r"(Person \d)\s+(real|fake)", one).groups() for one in who] == [
        ("Person 1", "real"), ("Person 2", "fake"),
    ]  # fmt: skip
    # Faces of one colour: no place matters, so that no map is shown, each with its exact reason.
    chance = "no_better_than_chance"
    for line, whys in ((picture, (chance, "flat")), (clip, (chance, "hardly_any"))):
        assert line.locator("figure.map").count() == 0
        for kind, why in zip(("hirescam", "occlusion"), whys, strict=True):
            withheld = say("look.map_withheld", kind=say(f"look.kind_{kind}"))
            assert f"{withheld}, {say(f'look.withheld_{why}')}." in line.inner_text()
    # The clip is real for 12 frames of 50, then fake.
    assert clip.locator(".said").inner_text() == "fake"
    alt = clip.locator("svg.timeline").get_attribute("aria-label")
    low, high, threshold = map(float, re.findall(r"0\.\d+", alt))
    assert low < threshold < high
    assert clip.locator("svg.timeline").bounding_box()["height"] > 50
    assert "Without these 3 frames" in clip.inner_text()
    for line in (picture, clip):
        every = "all => all.length > 1 && all.every(one => one.naturalWidth > 0)"
        assert line.locator("article img").evaluate_all(every)
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
    frames = page.locator("section.wide ul.people img")  # those that decide, not larger than asked
    assert frames.evaluate_all("all => all.length && all.every(one => one.width <= 224)")
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


# Drops a folder as the browser would: [[path, its bytes], ...], `null` for a folder of its own.
DROP_FOLDER = """(files) => {
  const entry = ([path, bytes]) => ({
    isFile: true, isDirectory: false, name: path.split("/").pop(), fullPath: `/${path}`,
    file: (take) => take(new File([new Uint8Array(bytes)], path.split("/").pop())),
  });
  const folder = (children) => ({
    isFile: false, isDirectory: true, name: "folder", fullPath: "/folder",
    createReader: () => { let at = 0; return { readEntries: (take) => {
      take(children.slice(at, at + 100)); at += 100; } }; },
  });
  const inner = folder(files.slice(1).map(entry));
  const dropped = folder([entry(files[0]), inner]);
  const event = new DragEvent("drop", { bubbles: true, cancelable: true });
  const items = [{ webkitGetAsEntry: () => dropped }];
  Object.defineProperty(event, "dataTransfer", { value: { items, files: [] } });
  document.getElementById("drop").dispatchEvent(event);
}"""


def test_a_dropped_folder_is_walked_and_what_is_too_much_is_said(open_page, files):
    page = open_page()
    real = [*(files / "plain.png").read_bytes()]
    inner = [[f"folder/in/{number}.txt", []] for number in range(120)]
    page.evaluate(DROP_FOLDER, [["folder/notes.txt", []], *inner, ["folder/in/plain.png", real]])
    shown(page, "folder/in/plain.png")
    said = page.locator("#status")
    page.route("**/look/stream*", lambda route: None)  # nothing more is answered
    for count, warning in ((2000, ""), (2001, "Too many at once: only the first 2000 pictures")):
        many = [[f"folder/in/{number}.png", [1]] for number in range(count)]
        page.evaluate(DROP_FOLDER, [["folder/notes.txt", []], *many])
        page.locator("#files > li").nth(2000).wait_for(state="attached")
        assert said.inner_text().startswith("1 other files are no pictures and no clips")
        assert warning in said.inner_text()
        assert ("Too many" in said.inner_text()) == bool(warning)
        assert page.locator("#files > li").count() == 2001
        page.reload()
        page.evaluate(DROP_FOLDER, [["a.png", [1]]])


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
    assert page.locator("article .said").all_inner_texts() == ["real", "real"]
    assert page.locator("img[src=x]").count() == 0


@pytest.fixture
def slow(browser, tmp_path):
    """Serve by a fake that waits, with one place; returns the site, its worker and an open page."""
    worker = Inside()
    worker.gate.clear()
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    with serving([worker], uploads, most=1) as site:
        page = browser.new_context(locale="en-GB").new_page()
        page.set_default_timeout(10_000)
        page.clock.install()
        page.goto(site.address)
        yield site, worker, page
        page.context.close()
        worker.gate.set()


def drop(page, folder, name, data=b"\xff\xd8\xff a picture"):
    (folder / name).write_bytes(data)
    page.locator("#drop").drop({"files": [folder / name]})
    return page.locator("#files > li").filter(has_text=name)


def test_what_is_cancelled_while_the_server_is_full_is_never_sent(slow, tmp_path):
    _, worker, page = slow
    drop(page, tmp_path, "first.jpg").get_by_text("reading").wait_for()
    second, third = (drop(page, tmp_path, name) for name in ("second.jpg", "third.jpg"))
    second.get_by_text("the server is full; trying again in 5 s").wait_for()
    second.get_by_role("button").click()
    third.get_by_text("the server is full").wait_for()  # not held up by what is gone
    worker.gate.set()
    page.locator("#files details").wait_for()
    page.clock.fast_forward(60_000)
    page.locator("#files details").nth(1).wait_for()
    assert third.locator("details").count() == 1
    assert [name for _, name in worker.seen] == ["first.jpg", "third.jpg"]
    assert page.locator("#status").inner_text() == "All 2 files are done."


HEAR = """() => {
  window.heard = [];
  const status = document.getElementById("status");
  new MutationObserver(() => { if (status.textContent) window.heard.push(status.textContent); })
    .observe(status, { childList: true });
}"""


@pytest.mark.parametrize(
    ("data", "said", "tag"),
    [(b"\xff\xd8\xff a picture", "real", "SUMMARY"), (b"do: refuse", "could not be", "P")],
)
def test_who_waits_at_the_cancel_button_hears_how_far_it_is_and_keeps_the_focus(
    slow, tmp_path, data, said, tag
):
    _, worker, page = slow
    page.evaluate(HEAR)
    line = drop(page, tmp_path, "a.jpg", data)
    line.get_by_text("reading").wait_for()
    line.get_by_role("button", name="Cancel: a.jpg").focus()
    page.clock.fast_forward(6000)
    worker.gate.set()
    line.locator("details, .trouble").wait_for()
    focused = "() => [document.activeElement.tagName, document.activeElement.textContent]"
    where, text = page.evaluate(focused)
    assert where == tag
    assert said in text or "too many pixels" in text
    heard = page.evaluate("() => window.heard")
    assert re.match(r"a\.jpg: (waiting, place|reading)", heard[0])
    assert heard[-1].startswith(f"a.jpg: {said}")
    assert len(heard) <= 3  # not each step


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


@pytest.mark.parametrize(
    "dark",
    [pytest.param(False, id="light"), pytest.param(True, id="dark", marks=pytest.mark.nightly)],
)
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
