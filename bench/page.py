"""Measure the page: first paint, a typed query, layout shift, on this machine and as on a slow phone.

`python -m bench.page` prints the figures of docs/benchmarks.md. It needs Debian's chromium and the starter model.
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, load_texts, run_server, wait_until_ready
from app.service.demo_gallery import find_gallery

HOST = "127.0.0.1"
ROUNDS = 10
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WEB = Path(__file__).parent.parent / "app" / "web"
QUERIES = ("red car", "a cat next to a cake", "blue house", "yellow flower", "smiling face", "green tree", "笑脸", "狗")
# Lighthouse's slow 4G phone: 1.6 Mbit/s, 150 ms round trip, a quarter of the processor's speed.
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 93_750}

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
SHOWN = """() => {
    window.shown = new Promise(resolve => new MutationObserver((_, self) => {
        if (!document.querySelector('.tile')) return;
        requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now())));
        self.disconnect();
    }).observe(document, { subtree: true, childList: true }));
}"""
SHIFTS = """() => new Promise(resolve => {
    let sum = 0;
    new PerformanceObserver(list => { for (const one of list.getEntries()) if (!one.hadRecentInput) sum += one.value })
        .observe({ type: 'layout-shift', buffered: true });
    setTimeout(() => resolve(sum), 200);
})"""
# From the last key to the frame that shows the new results, the pause before the search included.
TYPED = """words => {
    const box = document.getElementById('box'), at = document.getElementById('results');
    let key = 0;
    box.addEventListener('input', () => (key = performance.now()));
    window.typed = new Promise(resolve => new MutationObserver((_, self) => {
        if (box.value !== words || new URLSearchParams(location.search).get('q') !== words) return;
        self.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - key)));
    }).observe(at, { subtree: true, childList: true }));
}"""


def main() -> None:
    table = Table("what", "figure")
    folder = find_gallery()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        port = free_port(HOST, 0)
        url = f"http://{HOST}:{port}"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with run_server(Path(scratch), HOST, port) as process, Client(url) as client:
            wait_until_ready(client, process)
            job = client.upload_bulk([("gallery.zip", folder / "gallery.zip")])
            while (job := client.job(job["id"]))["state"] in ("queued", "running"):
                time.sleep(0.1)
            load_texts(client, folder / "texts.jsonl")
            measure_first_paint(browser, url, job["total"], table, slow=False)
            measure_first_paint(browser, url, job["total"], table, slow=True)
            measure_typing(browser, url, table)
            measure_scrolling(browser, url, table)
        browser.close()
    ours = [path for path in WEB.rglob("*.*") if path.is_file() and "docs" not in (path.stem, path.parent.name)]
    size = sum(len(gzip.compress(path.read_bytes())) for path in ours)
    table.add_row("our script, style and page, compressed", f"{size / 1000:.0f} kB in {len(ours)} files")
    Console().print(table)


def measure_first_paint(browser: Browser, url: str, total: int, table: Table, *, slow: bool) -> None:
    """Time the first paint and the first grid places, each time in a browser with an empty cache."""
    painted, shown = [], []
    for _ in range(ROUNDS):
        page = browser.new_page(viewport={"width": 360, "height": 740} if slow else {"width": 1280, "height": 800})
        if slow:
            line = page.context.new_cdp_session(page)
            line.send("Network.enable")
            line.send("Network.emulateNetworkConditions", SLOW)
            line.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.add_init_script(f"({SHOWN})()")
        page.goto(url)
        shown.append(page.evaluate("window.shown"))
        painted.append(page.evaluate(PAINTED))
        page.context.close()
    where = "as on a slow phone" if slow else "here"
    table.add_row(f"first paint, {total} pictures, {where}", format_times(painted))
    table.add_row(f"places of the first pictures painted, {where}", format_times(shown))


def measure_typing(browser: Browser, url: str, table: Table) -> None:
    """Time from the last key of a query to its results."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    page.locator(".tile").first.wait_for()
    taken = []
    for words in QUERIES * 3:
        page.locator("#box").fill("")
        page.wait_for_timeout(500)
        page.evaluate(TYPED, words)
        page.locator("#box").press_sequentially(words, delay=30)
        taken.append(page.evaluate("window.typed"))
    page.context.close()
    table.add_row("typed query, last key to results (60 ms of it a pause)", format_times(taken))


def measure_scrolling(browser: Browser, url: str, table: Table) -> None:
    """Measure layout shift and frame times over the whole list, and how many tiles the document holds at most."""
    for width in (360, 1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(url)
        page.locator(".tile").first.wait_for()
        most = 0
        page.evaluate(FRAMES)
        while not is_at_end(page):
            page.mouse.wheel(0, 1500)
            page.wait_for_timeout(30)
            most = max(most, page.locator(".tile").count())
        frames = sorted(page.evaluate("window.frames_ms"))
        shift = page.evaluate(SHIFTS)
        page.context.close()
        slow = frames[int(len(frames) * 0.95)]
        said = f"shift {shift:.4f}; at most {most} tiles in the document; 95 of 100 frames within {slow:.0f} ms"
        table.add_row(f"scrolled through all pictures, {width} px wide", said)


FRAMES = """() => {
    window.frames_ms = [];
    let last = performance.now();
    const step = now => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(step); };
    requestAnimationFrame(step);
}"""


def is_at_end(page: Page) -> bool:
    """Whether the page has listed every picture and the window is at the end."""
    return bool(
        page.evaluate(
            """/newest first/.test(document.getElementById('count').textContent)
            && scrollY + innerHeight >= document.documentElement.scrollHeight - 2"""
        )
    )


def format_times(values: list[Any]) -> str:
    """Median and worst in milliseconds."""
    known = [float(value) for value in values if value is not None]
    return f"p50 {statistics.median(known):.0f} ms, worst {max(known):.0f} ms"


if __name__ == "__main__":
    main()
