"""The page of `vidatt report` in a real Chromium: nothing fails, every plot is there, what can be pressed works."""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testkit.commands import vidatt

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'vidatt[dev]'")
pytestmark = [pytest.mark.slow, pytest.mark.long]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser of the system, installed where that may be done without asking: as root, from Debian's archive."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        wanted = ["apt-get", "-o", "DPkg::Lock::Timeout=200", "install", "-y", "--no-install-recommends", "chromium"]
        subprocess.run(wanted, capture_output=True, timeout=400, check=False)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs Chromium, which is not here and could not be installed: apt-get install chromium")
    return found


class Visit:
    """A page that is open in the browser, and all that it complained of or asked the network for."""

    def __init__(self, browser: Any, page: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(page.as_uri())


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, made: tuple[Path, dict[str, Any]]) -> Iterator[Any]:
    """Opens the page; at the end nothing may have been complained of, and nothing asked for beside the file."""
    visits: list[Visit] = []

    def go(**options: Any) -> Any:
        visits.append(Visit(browser, made[0], **({"viewport": {"width": 1280, "height": 900}} | options)))
        return visits[-1].page

    yield go
    for one in visits:
        one.context.close()
        assert one.complaints == []
        assert [url for url in one.asked if not url.startswith(("file:", "data:"))] == []


def test_every_plot_and_picture_is_there(visit: Any, made: tuple[Path, dict[str, Any]]) -> None:
    page, result = visit(), made[1]
    sizes = page.eval_on_selector_all(
        ".plot svg", "all => all.map(e => [e.clientWidth, e.querySelectorAll('path').length])"
    )
    assert len(sizes) == result["plots"] >= 8
    assert all(width > 200 and paths > 5 for width, paths in sizes)
    loaded = page.eval_on_selector_all("img", "all => all.map(e => e.complete && e.naturalWidth > 0)")
    assert all(loaded)
    assert len(loaded) > result["frames"] >= 6 * result["videos"] * 0.5 > 0
    assert page.locator("article.card").count() == result["videos"]
    assert page.locator(".strip .truth").count() > 0
    assert page.locator(".picture rect.true").count() > 0
    for title in ("When: stan", "Where: threshold", "Paired tests", "Confusions", "Curves"):
        assert page.get_by_role("heading", name=title).count() >= 1, title


def test_tables_sort_by_pointer_and_by_key(visit: Any) -> None:
    page = visit()
    header = page.locator("#bars-r0 thead th", has_text="accuracy")
    column = "rows => rows.map(row => Number(row.cells[2].dataset.value))"
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    falling = page.eval_on_selector_all("#bars-r0 tbody tr", column)
    assert falling == sorted(falling, reverse=True)
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.eval_on_selector_all("#bars-r0 tbody tr", column) == sorted(falling)
    assert page.locator("#bars-r0 th[aria-sort]").count() == 1


def test_filters_leave_what_they_say(visit: Any) -> None:
    page = visit()
    name = page.locator("#bars-r0 tbody th").first.inner_text()
    page.locator('[data-filter="bars-r0"]').fill(name)
    assert page.locator("#bars-r0 tbody tr:visible").count() == 1
    assert page.locator('[data-count="bars-r0"]').inner_text() == "1 of 2"
    box = page.locator('[data-videos="r0"]')
    everything = box.locator("tbody tr").count()
    assert everything == 8
    counts = {}
    for choice in ("right", "wrong"):
        box.locator('[data-by="right"]').select_option(choice)
        counts[choice] = box.locator("tbody tr").count()
        assert box.locator("[data-shown]").inner_text() == f"{counts[choice]} of 8 videos"
        mark = {"right": "✓", "wrong": "✗"}[choice]
        assert all(text.startswith(mark) for text in box.locator("tbody td:nth-child(3)").all_inner_texts())
    assert counts["right"] + counts["wrong"] == everything
    box.locator('[data-by="right"]').select_option("")
    box.locator('[data-by="id"]').fill("no such video")
    assert box.locator("tbody tr").count() == 0


def test_a_press_on_the_matrix_shows_its_videos(visit: Any) -> None:
    page = visit()
    cells = page.locator('[data-matrix="r0"] button')
    panel = page.locator('[data-panel="r0"]')
    for n in range(cells.count()):
        cells.nth(n).click()
        assert cells.nth(n).get_attribute("aria-pressed") == "true"
        assert panel.locator("li").count() == int(cells.nth(n).inner_text())
        assert panel.locator("h4").inner_text().startswith("true ")
    assert page.locator('[data-matrix="r0"] [aria-pressed="true"]').count() == 1
    linked = panel.locator("a")
    for n in range(cells.count()):
        cells.nth(n).click()
        if linked.count():
            break
    linked.first.click()
    shown = page.evaluate("location.hash.slice(1)")
    top = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", shown)
    assert 0 <= top < 900


def test_the_matrix_is_one_stop_of_the_tab_key_and_arrows_move_in_it(visit: Any) -> None:
    page = visit()
    cells = page.locator('[data-matrix="r0"] button')
    assert page.locator('[data-matrix="r0"] button[tabindex="0"]').count() == 1
    cells.first.focus()
    if cells.count() > 1:
        before = page.evaluate("document.activeElement.getAttribute('aria-label')")
        for key in ("ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") != before
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_everything_can_be_reached_by_key_and_seen_when_it_is(visit: Any) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, outline, name = page.evaluate(
            "(() => { const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineStyle, "
            "(e.getAttribute('aria-label') || e.textContent || e.value || '').trim()]; })()"
        )
        assert outline != "none", (tag, name)
        assert name or tag == "INPUT"
        seen.add(tag)
    assert {"A", "BUTTON", "SUMMARY", "DIV"} <= seen


def test_attention_can_be_taken_off_and_changed(visit: Any) -> None:
    page = visit()
    section = page.locator('section[data-run="r0"]')
    heats = section.locator("img.heat:visible")
    frames = section.locator(".picture").count()
    assert heats.count() == frames > 0
    assert set(heats.evaluate_all("all => all.map(e => e.dataset.stream)")) == {"mean of the streams"}
    section.get_by_label("clip", exact=True).check()
    assert set(heats.evaluate_all("all => all.map(e => e.dataset.stream)")) == {"clip"}
    section.get_by_label("nobody").check()
    assert heats.count() == 0
    section.get_by_label("rgb", exact=True).check()
    section.locator('input[type="range"]').fill("0.2")
    assert heats.first.evaluate("e => getComputedStyle(e).opacity") == "0.2"
    cards = section.locator("article.card:visible").count()
    section.get_by_label("random").uncheck()
    assert section.locator("article.card:visible").count() < cards


def test_a_class_can_be_picked_out_of_the_curves(visit: Any) -> None:
    page = visit()
    select = page.locator("#plot-r0-pr select")
    name = select.locator("option").nth(1).inner_text()
    select.select_option(name)
    assert page.locator("#plot-r0-pr .picked").count() == 1
    select.select_option("no class")
    assert page.locator("#plot-r0-pr .picked").count() == 0


def test_light_and_dark(visit: Any) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        ground = "getComputedStyle(document.body).backgroundColor"
        grounds[scheme] = page.evaluate(ground)
        other = {"light": "dark", "dark": "light"}[scheme]
        assert page.locator("#theme").inner_text() == other
        page.locator("#theme").click()
        grounds[f"{scheme}, pressed"] = page.evaluate(ground)
        letters = page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill")
        assert letters == page.evaluate("getComputedStyle(document.body).color")
    assert grounds["light"] == grounds["dark, pressed"] == "rgb(255, 255, 255)"
    assert grounds["dark"] == grounds["light, pressed"] == "rgb(20, 23, 27)"


CONTRASTS = """
cell => {
  const bend = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const scale = text.startsWith("color(") ? 1 : 255;
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((v) => bend(Number(v) / scale));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  return Array.from({ length: 101 }, (_, s) => {
    cell.style.setProperty("--s", s);
    cell.classList.toggle("hot", s > 50);
    const style = getComputedStyle(cell), a = light(style.color), b = light(style.backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_the_matrix_can_be_read_at_every_depth(visit: Any, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    found = page.locator('[data-matrix="r0"] button').first.evaluate(CONTRASTS)
    assert len(found) == 101
    assert min(found) >= 4.5


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_no_scrolling_to_the_side(visit: Any, width: int) -> None:
    page = visit(viewport={"width": width, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    small = page.eval_on_selector_all(
        ".plot svg", "all => all.map(e => e.clientWidth / e.viewBox.baseVal.width * 9 * 4 / 3 * 3 / 4)"
    )
    assert min(small) > 7.5 * width / 390  # pixels of the letters of 9 points
    page.locator('[data-matrix="r0"] button').first.tap()
    assert page.locator('[data-panel="r0"] li').count() > 0


def test_on_paper_it_is_light_and_open(visit: Any) -> None:
    page = visit(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()") == "#1a1d21"
    assert not page.locator("header.bar").is_visible()
    assert page.locator("dt", has_text="fingerprint").first.is_visible()
    assert not page.locator(".controls:visible").count()
    assert page.locator('[data-videos="r0"] tbody tr').first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_it_can_be_read(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".js-only:visible").count() == 0
    for title in ("Curves", "Confusions", "Where it looked", "Precision and recall"):
        assert page.get_by_role("heading", name=title).first.is_visible()


def test_it_is_told_to_those_who_do_not_see_it(visit: Any) -> None:
    page = visit()
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(e => Number(e.tagName[1]))")
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, a, select, input, img, [role=img], [role=region]")].filter((e) =>
        !(e.getAttribute("aria-label") || e.textContent.trim() || e.getAttribute("alt") || e.labels?.length))
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('th')].every((e) => e.scope)")
    twice = page.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);"
        " return ids.filter((id, n) => ids.indexOf(id) !== n); })()"
    )
    assert twice == []


def test_the_command_says_what_is_in_the_page(made: tuple[Path, dict[str, Any]]) -> None:
    page, result = made
    assert result["bytes"] == page.stat().st_size < 10_000_000
    assert result["measured"] == len(result["chapters"]) == 2
    assert any("attends to no cells" in note for note in result["notes"])
    text = page.read_text()
    assert re.search(r"\d+% of the weight lies in the true intervals, which are \d+% of the time", text)


def test_the_commands_on_the_page_find_the_runs(made: tuple[Path, dict[str, Any]]) -> None:
    text = made[0].read_text()
    commands = re.findall(r"<pre><code>(vidatt fit-head .*?)</code></pre>", text)
    assert len(commands) == 2
    for command in commands:
        done = vidatt(*shlex.split(html.unescape(command))[1:], "--device", "cpu", "--json", "-qq")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["finished_before"] is True
