"""Many users of the app at once: what is lost, how long they wait, whether its memory grows.

    python tests/stress/app_users.py --run RUN --users 20 --minutes 5

Each user is a page in one real browser that draws an image again and again. Prints a table and
writes JSON.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tyro
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from app_browser import ARGUMENTS, CHROMIUM, Problems, app_process

from vqvae2.cli.display import console

DONE = "document.querySelector('#status')?.innerText.startsWith('Done:')"
QUEUE = "queue is full"


@dataclass(frozen=True)
class Options:
    """Open the app in many pages at once and draw.

    Arguments:
        run: A run folder or saved pipeline with priors.
        users: Number of pages.
        minutes: How long they draw.
        out: File for the results.
    """

    run: str
    users: int = 20
    minutes: float = 5
    out: Path = Path("app-users.json")


@dataclass
class Results:
    """What happened.

    Arguments:
        users: Pages.
        seconds: Duration.
        waits: Seconds from the click to the complete image, of each request.
        refused: Requests with the message that the queue is full.
        problems: Errors, empty if all went well.
        memory: Megabytes of the server, at intervals.
    """

    users: int
    seconds: float = 0
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def main() -> None:
    """Runs the trial."""
    options = tyro.cli(Options)
    with app_process(options.run) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        results = trial(browser, address, psutil.Process(process.pid), options)
        browser.close()
    options.out.write_text(json.dumps(asdict(results), indent=1))
    show(results)
    if results.problems or not results.waits:
        sys.exit(1)


def trial(browser: Any, address: str, server: psutil.Process, options: Options) -> Results:
    """All users draw until the time is over, and wait for their last image."""
    results, problems = Results(options.users), []
    pages: list[Page] = []
    for _ in range(options.users):
        page = browser.new_context().new_page()
        page.set_default_timeout(120_000)
        problems.append(Problems(page, address))
        page.goto(address)
        page.get_by_role("button", name="Draw", exact=True).wait_for()
        page.get_by_label("number input for Number of images").first.fill("1")
        page.keyboard.press("Tab")
        pages.append(page)
    begin = time.monotonic()
    started: dict[int, float] = {}
    next_memory = begin
    while (now := time.monotonic()) - begin < 60 * options.minutes or started:
        is_over = now - begin >= 60 * options.minutes
        if now - begin > 60 * options.minutes + 300:
            results.problems.append(f"{len(started)} requests were never answered")
            break
        if now >= next_memory:
            results.memory.append(server.memory_info().rss // 1_000_000)
            next_memory = now + 5
        for number, page in enumerate(pages):
            visit(number, page, started, results, is_over)
        time.sleep(0.1)
    results.seconds = time.monotonic() - begin
    results.problems += [text for problem in problems for text in problem.found]
    return results


def visit(
    number: int, page: Page, started: dict[int, float], results: Results, is_over: bool
) -> None:
    """Looks at one page: counts an image that is complete, and asks for the next."""
    if number in started:
        if page.evaluate(DONE):
            results.waits.append(time.monotonic() - started.pop(number))
        elif page.get_by_text(QUEUE).count():
            results.refused += 1
            started.pop(number)
        return
    if not is_over:
        page.evaluate("document.querySelector('#status').innerText = ''")
        page.get_by_label("Seed").first.fill(str(len(results.waits)))
        page.get_by_role("button", name="Draw", exact=True).click()
        started[number] = time.monotonic()


def show(results: Results) -> None:
    """Prints the figures."""
    waits = sorted(results.waits) or [0.0]
    memory = results.memory or [0]
    half = memory[len(memory) // 2]
    console.print(
        f"{results.users} users for {results.seconds:.0f} s: {len(results.waits)} images, wait "
        f"{statistics.median(waits):.1f} s (median), {waits[-1]:.1f} s (longest); "
        f"{results.refused} refused by the queue, {len(results.problems)} problems; memory "
        f"{memory[0]} MB at first, {half} MB halfway, {memory[-1]} MB at the end"
    )
    for problem in results.problems[:10]:
        console.print(f"  {problem}")


if __name__ == "__main__":
    main()
