"""The HTML page of an evaluation: its content, and how a browser shows it from disk."""

import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from evaluation.page import write_page
from evaluation.published_tables import TABLES
from evaluation.report import MeasuredClip, summarize
from evaluation.results_folder import clip_path
from tests.helpers.media import write_clip

COLUMNS = ("source", "driving", "prediction", "4x error")
NAMES = ("id1#a", "b & <c>")
ABOUT = {
    "checkpoint": "runs/<i>demo</i>/best.pt",
    "step": 8,
    "age": "step 8",
    "data": "puppets",
    "split": "test",
    "animator": "motion",
    "image_size": [16, 24],
    "num_clips": 2,
    "num_frames": 4,
    "measured_with": {
        "detector": {
            "name": "dlib",
            "weights": "dlib 20",
            "convention": "68 landmarks",
            "licence": "non-commercial",
        }
    },
    "left_out": ["no lpips: pip install lpips"],
}


class Reader(HTMLParser):
    """Reads text, links and table rows of a page, and (row, number) for bold numbers.

    It fails if a tag is not closed.
    """

    def __init__(self, page):
        super().__init__()
        self.text, self.links, self.rows, self.bold, self._open = [], [], [], [], []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open or not data.strip():
            return
        self.text.append(data.strip())
        if "tr" in self._open:
            self.rows[-1].append(data.strip())
        if "strong" in self._open:
            self.bold.append((self.rows[-1][0], data.strip()))


@pytest.fixture
def folder(tmp_path):
    """A page of two clips with the metrics 0.1, 0.2 and 0.3, 0.4, and keypoints in one frame."""
    akd = {NAMES[0]: [1.0, np.nan], NAMES[1]: [np.nan, np.nan]}
    clips = [
        MeasuredClip(
            name,
            2,
            {
                "l1": np.array(l1),
                "baseline_l1": np.array([0.3, 0.3]),
                "akd": np.array(akd[name]),
                "baseline_akd": np.array(akd[name]),
                "l1_salient": np.array(l1),
                "baseline_l1_salient": np.array(l1),
            },
        )
        for name, l1 in zip(NAMES, ([0.1, 0.2], [0.3, 0.4]), strict=True)
    ]
    for name in NAMES:
        write_clip(tmp_path / clip_path(name), 3, (16, 96))
    summaries = summarize(clips)
    for metric in ("psnr", "ssim"):
        summaries[metric] = summaries["l1"]
        summaries[f"baseline_{metric}"] = summaries["baseline_l1"]
    page = tmp_path / "index.html"
    write_page(page, ABOUT, summaries, clips, COLUMNS, TABLES["vox"])
    return tmp_path


def test_numbers(folder):
    page = Reader((folder / "index.html").read_text())
    rows = {row[0]: row[1:] for row in reversed(page.rows)}  # the first table counts
    assert rows["l1 ↓"][1:] == [
        *("0.2500", "0.2500 (-1.0206 to 1.5206)", "0.0446 to 0.4554", "0.3000", "4"),
    ]
    assert rows["akd ↓"][1:] == ["1.000", "1.000 (-)", "-", "1.000", "1"]  # three frames left out
    assert ["l1 ↓", "0.1500", "0.3000"] in page.rows  # the first clip
    assert ["akd ↓", "-", "-"] in page.rows  # the second one
    assert rows["FOMM"] == ["0.0413", "24.28", "0.791"]
    assert rows["this model"][0] == "0.2500"


def test_the_better_side_is_bold(folder):
    """0.25 is better than 0.3 if lower is better, and worse otherwise; equal numbers are not bold.
    The clips have 0.15 and 0.35 against 0.3.
    """
    assert Reader((folder / "index.html").read_text()).bold == [
        *(("l1 ↓", "0.2500"), ("psnr ↑", "0.30"), ("ssim ↑", "0.3000")),
        *(("l1 ↓", "0.1500"), ("l1 ↓", "0.3000")),
    ]


def test_text_of_the_page(folder):
    text = "\n".join(Reader((folder / "index.html").read_text()).text)
    assert "runs/<i>demo</i>/best.pt, step 8, animator motion" in text  # as text, not as markup
    assert "2 clips, 4 frames, 24 \N{MULTIPLICATION SIGN} 16 pixels" in text.replace("\n", " ")
    assert "detector: dlib; dlib 20; 68 landmarks; licence: non-commercial" in text
    assert "no lpips: pip install lpips" in text
    assert "they come from other detectors" in text
    assert "repeating it is perfect there, which lifts its mean PSNR" in text
    assert "b & <c>" in text


def test_links_are_the_clips_beside_it(folder):
    links = Reader((folder / "index.html").read_text()).links
    assert [unquote(link) for link in links] == [f"clips/{name}.mp4" for name in NAMES]
    assert all("#" not in link and (folder / unquote(link)).is_file() for link in links)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_in_a_browser(folder, scheme, width):
    """The page opens from disk: clips load, no network requests, no sideways scrolling."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no browser here")
    asked, said = [], []
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto((folder / "index.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState)")
        sizes = page.evaluate(
            "[...document.querySelectorAll('video')].map(v => [v.videoWidth, v.videoHeight])"
        )
        assert sizes == [[96, 16]] * 2
        assert page.evaluate("document.documentElement.scrollWidth") == width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(17, 19, 22)") == (scheme == "dark")
        heights = page.evaluate(
            "[...document.querySelectorAll('video')].map(v => v.clientHeight - v.clientWidth / 6)"
        )
        assert min(heights) > 50  # room for the controls below the picture
        browser.close()
    assert {Path(url.removeprefix("file://")).parts[0] for url in asked} == {"/"}
    assert not said
