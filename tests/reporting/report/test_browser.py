"""The report in a real browser: it loads nothing from elsewhere, fits a phone, has no axe fault."""

import pytest

from src import paths
from src.cli.report import main
from tests.reporting.conftest import predict, run_record, write_recipe_of

pytestmark = pytest.mark.usefixtures("toy", "coarse")


def test_pages_in_a_browser(browser):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here")
    predict("m")
    run_record("m", 0)
    write_recipe_of("tuned", "m")
    assert main(["--data", "toy"]) == 0
    home = paths.report_html("toy").parent
    paths_of = sorted(home.rglob("index.html"))
    assert len(paths_of) == 3
    for path in paths_of:
        for width, scheme in ((390, "light"), (1200, "dark"))[: 2 if path.parent == home else 1]:
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            page, asked, said = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
            page.wait_for_function("[...document.images].every(one => one.complete)")
            assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert all(url.startswith(("data:", home.as_uri())) for url in asked)
            assert said == []
            found = axe.Axe().run(page).response["violations"]
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
            context.close()
