"""The page in a real browser: what it shows is what the model computes.

The tests need Playwright and Chromium, and are skipped where either is missing.
"""

import json
import shutil
import statistics
import threading

import numpy as np
import pytest

from numpyvit import Classifier
from numpyvit.engine.process import process_settings
from numpyvit.look.page import page_html
from numpyvit.look.samples import accuracy_images, some_of_each_class
from numpyvit.look.server import Server
from numpyvit.look.session import Session
from numpyvit.look.snapshot import snapshot

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
STROKES = {
    3: [(80, 60), (200, 60), (130, 140), (200, 180), (150, 240), (80, 220)],
    7: [(70, 70), (200, 70), (170, 140), (130, 230)],
}
VIEWS = ["patches", "stream", "block", "attention", "head", "opinion", "learn"]


@pytest.fixture(scope="module")
def url():
    """Serve the page of the packaged model."""
    classifier = Classifier.mnist()
    test = accuracy_images(classifier, None)
    with process_settings():
        session = Session(classifier, some_of_each_class(test), test)
        session.find_gradients()
        with Server(session, page_html, 0) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            yield server.url
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield found
        found.close()


@pytest.fixture
def page(browser, url):
    """Open the page. Complaints of the browser and requests to other servers fail the test."""
    found = browser.new_page(viewport={"width": 1280, "height": 900})
    problems = []
    found.on("console", lambda message: problems.append(message.text))
    found.on("pageerror", lambda error: problems.append(str(error)))
    origin = url.split("/?")[0]
    found.on("request", lambda r: r.url.startswith((origin, "data:")) or problems.append(r.url))
    open_page(found, url)
    yield found
    found.close()
    assert problems == []


def open_page(page, url, place=""):
    page.goto("about:blank")
    page.goto(f"{url}#{place}")
    page.wait_for_selector("body[data-started]")


def wait_for(page, condition):
    """Wait until an expression is true. (Playwright's own function needs eval in the page.)"""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def draw(page, digit):
    """Draw a digit with the mouse, and wait until it has been traced."""
    page.click("#clear")
    before = page.evaluate("trace ? trace.id : 0")
    box = page.locator("#pad").bounding_box()
    points = [
        (box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280)
        for x, y in STROKES[digit]
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    wait_for(page, f"trace && trace.id !== {before}")


@pytest.mark.parametrize("digit", STROKES)
def test_a_drawing_is_classified_as_by_the_classifier(page, digit):
    draw(page, digit)
    pixels, shown = page.evaluate("[Array.from(trace.pixels), trace.probabilities]")
    images = np.array(pixels, np.uint8).reshape(1, 28, 28, 1)
    wanted = Classifier.mnist().predict(images)[0]
    assert wanted.argmax() == digit
    assert np.abs(wanted - shown).max() < 1e-6
    bars = page.locator("#bars meter").evaluate_all("bars => bars.map((bar) => bar.value)")
    assert np.abs(wanted - bars).max() < 1e-6


@pytest.mark.parametrize("mode", ["forward", "backward"])
@pytest.mark.parametrize("view", ["patches", "stream", "block", "attention", "head"])
def test_the_operands_of_a_number_add_up_to_it(page, url, view, mode):
    """Every cell that a view shows is computed again, by the page, from its formula."""
    open_page(page, url, f"view={view}&mode={mode}&block=1")
    errors = page.evaluate(
        """async () => {
          const steps = [...values.keys()].filter((name) => name.startsWith("step."));
          const formulas = steps.map((name) => model.steps[Number(name.slice(5))].formula);
          await load(formulas.flatMap(usedSteps).map(stepName));
          const found = [];
          for (let n = 0; n < 200; n++) {
            const k = Math.floor(Math.random() * steps.length);
            if (!formulas[k]) continue;
            const array = values.get(steps[k]);
            const i = Math.floor(Math.random() * array.length);
            found.push(Math.abs(evaluate(formulas[k], i) - array[i]) / largest(array));
          }
          return found;
        }"""
    )
    assert len(errors) > 100
    assert max(errors) < 1e-4  # the model computes in float32


def test_attention_rows_sum_to_one(page, url):
    open_page(page, url, "view=attention&block=2")
    sums = page.evaluate(
        """() => {
          const a = stepValues(attentionStep("a", "attention_forward"));
          const N = model.tokens;
          return Array.from({ length: a.length / N }, (_, r) =>
            a.subarray(r * N, (r + 1) * N).reduce((x, y) => x + y, 0));
        }"""
    )
    assert np.allclose(sums, 1, atol=1e-5)


def test_a_gradient_is_proven_and_a_broken_backward_is_not(page, url):
    open_page(page, url, "view=patches&mode=backward")
    index = page.evaluate(
        """async () => {
          await load(["dimages"]);
          const d = values.get("dimages");
          const best = d.reduce((most, x, k) => (Math.abs(x) > Math.abs(d[most]) ? k : most), 0);
          await select("dimages", best);
          return best;
        }"""
    )
    assert index >= 0
    page.click("#prove")
    page.wait_for_selector(".proof svg")
    assert "They agree to" in page.locator(".proof .good").inner_text()
    page.get_by_label("A mistake in the backward pass").select_option("mean")
    page.wait_for_selector(".proof .error")
    assert "the backward pass is wrong" in page.locator(".proof .error").inner_text()


def test_ten_steps_lower_the_loss_and_undo_restores_it(page, url):
    draw(page, 3)
    page.get_by_role("button", name="Learn", exact=True).click()
    before = page.evaluate("trace.loss")
    page.click("#ten")
    wait_for(page, f"trace.loss < {json.dumps(before)}")
    assert "The price" in page.locator("#learned").inner_text()
    page.click("#undo")
    wait_for(page, f"trace.loss === {json.dumps(before)}")  # the same bits


def test_the_tour_visits_views_that_work(page):
    page.click("#start-tour")
    stops = page.evaluate("TOUR.length")
    assert stops >= 10
    for n in range(1, stops + 1):
        wait_for(page, f"location.hash.includes('tour={n}')")
        assert page.locator("#tour h2").inner_text().startswith(f"{n} of {stops}")
        assert page.locator("#view .error").count() == 0
        if n < stops:
            page.get_by_role("button", name="Next", exact=True).click()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_the_window(page, url, view, width):
    page.set_viewport_size({"width": width, "height": 900})
    open_page(page, url, f"view={view}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#view .error").count() == 0


def test_the_address_remembers_the_place(page, url):
    place = "view=block&mode=backward&block=2&cell=step.700%3A5"
    open_page(page, url, place)
    assert page.evaluate("[chosen.view, chosen.mode, chosen.block]") == ["block", "backward", 2]
    assert page.evaluate("selected") == {"name": "step.700", "index": 5}


@pytest.mark.slow
def test_answers_while_drawing_come_quickly(page):
    draw(page, 7)
    times = page.evaluate(
        """async () => {
          const times = [];
          const blob = await new Promise((done) => document.getElementById("pad").toBlob(done));
          for (let n = 0; n < 30; n++) {
            const start = performance.now();
            await ask("/predict", blob, "image/png");
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    assert statistics.median(times) < 50


def test_a_page_from_the_disk_shows_the_same_numbers(browser, tmp_path):
    classifier = Classifier.mnist()
    example = some_of_each_class(accuracy_images(classifier, None))[4]
    path = tmp_path / "page.html"
    path.write_text(snapshot(classifier, [example]))
    page = browser.new_page()
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    for view in VIEWS:
        open_page(page, path.as_uri(), f"view={view}&mode=backward")
        assert page.locator("#view .error").count() == 0
    shown = page.evaluate("trace.probabilities")
    wanted = classifier.predict(example.pixels[None])[0]
    assert np.abs(wanted - shown).max() < 1e-6
    session = Session(classifier, [example])
    session.trace("mine", example.pixels, example.label)
    for n in range(0, len(session.steps.steps), 40):
        array = session.arrays("mine", 1, [n], [], [], False)[f"step.{n}"]
        in_page = page.evaluate(f"Array.from(stepValues({n}))")
        assert np.array_equal(array.ravel(), np.array(in_page, np.float32))
    page.close()
    assert problems == []
