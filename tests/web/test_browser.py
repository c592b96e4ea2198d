"""The page in a browser, with real files."""

import re
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest
from PIL import Image

from tests.helpers.media import numbered_frame, write_clip, write_sound_clip
from tests.helpers.pages import (
    PATIENCE,
    box,
    chromium,
    download,
    give,
    message,
    press_animate,
    served,
    wait_for_message,
)
from tests.helpers.runs import call, error_line, step_file
from web import __main__ as demo

LONG = 600  # frames


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """source.png, wide.png, driving.mp4 (10 frames, with sound), phone.mov (12 frames that players
    rotate), long.mp4 (LONG frames), and text.png, which is not a picture.
    """
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(numbered_frame(21, (32, 32))).save(folder / "source.png")
    Image.fromarray(numbered_frame(42, (30, 50))).save(folder / "wide.png")
    (folder / "text.png").write_text("not a picture\n")
    write_sound_clip(folder / "driving.mp4", [4], num_frames=10)
    write_clip(folder / "phone.mov", 12, (64, 48), Fraction(30000, 1001), rotation=90)
    write_clip(folder / "long.mp4", LONG, (32, 32), gop=100)
    return folder


@pytest.fixture(scope="module")
def address(tiny_run, tmp_path_factory) -> Iterator[str]:
    """The address of a served page."""
    with served(tmp_path_factory.mktemp("temporary"), step_file(tiny_run, 8)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    """The page, just opened. It may send requests only to its own server."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Animate").wait_for()
    yield page
    page.close()
    others = [url for url in requests if urlsplit(url).scheme not in ("data", "blob")]
    assert {urlsplit(url).netloc for url in others} == {urlsplit(address).netloc}


def test_result_is_shown_and_can_be_downloaded(page, files, tmp_path):
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / "driving.mp4")
    press_animate(page)
    path = download(page, tmp_path)
    assert path.name == "source--driving.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        assert [(f.width, f.height) for f in container.decode(stream)] == [(32, 32)] * 10
        assert len(container.streams.audio) == 1
    assert re.match(
        r"source--driving\.mp4: 10 frames, with sound, in \d+\.\d s$",
        message(page, "Notes").splitlines()[0],
    )
    shown = box(page, "Result").locator("video")
    page.wait_for_function("video => video.videoWidth == 32", arg=shown.element_handle())
    assert shown.evaluate("video => getComputedStyle(video).imageRendering") == "pixelated"
    assert box(page, "Source image").bounding_box()["height"] > 200  # so it is enlarged


def test_wrong_file_and_then_the_right_one(page, files, tmp_path):
    press_animate(page)
    assert message(page, "Error") == "There is no source yet: drop an image there."
    give(page, "Source image", files / "text.png")
    give(page, "Driving clip", files / "driving.mp4")
    press_animate(page)
    wait_for_message(page, "Error", "text.png: not an image: the file holds text")
    assert not page.get_by_role("button", name="Download").is_visible()
    give(page, "Source image", files / "source.png")
    press_animate(page)
    with av.open(str(download(page, tmp_path))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    assert not page.get_by_label("Error", exact=True).is_visible()


def test_options(page, files, tmp_path):
    give(page, "Source image", files / "wide.png")
    give(page, "Driving clip", files / "phone.mov")
    page.get_by_role("button", name="Options").click()
    page.get_by_text("Reference frame", exact=True).wait_for()
    page.get_by_label("masks", exact=True).check()
    page.get_by_text("Reference frame", exact=True).wait_for(state="hidden")
    page.get_by_label(re.compile(r"^\s*Start")).fill("0.1")
    page.get_by_label("side-by-side", exact=True).check()
    press_animate(page)
    with av.open(str(download(page, tmp_path))) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        sizes = [(frame.width, frame.height) for frame in container.decode(stream)]
    assert sizes == [(96, 32)] * 9  # frames 3 .. 11
    assert "wide.png: 50 x 30 pixels, cropped" in message(page, "Notes")
    assert "phone.mov: 48 x 64 pixels, cropped" in message(page, "Notes")


def choose_background(page, kind):
    page.get_by_label("Background", exact=True).click()
    page.get_by_role("option", name=kind).click()


def test_uploaded_masks(page, files, tmp_path):
    """Black masks show nothing of the figure."""
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / "driving.mp4")
    choose_background(page, "a colour")  # at first it is green
    page.get_by_role("button", name="Options").click()
    group = page.locator("fieldset", has=page.get_by_text("Masks", exact=True))
    group.get_by_label("files", exact=True).check()
    masks = []
    for number in range(10):
        masks.append(tmp_path / f"{number}.png")
        Image.new("L", (32, 32)).save(masks[-1])
    upload = page.locator(".file").filter(visible=True).locator("input[type=file]")
    for given in (masks[:9], masks):
        upload.set_input_files(given)
        rows = page.locator(".file").filter(visible=True).locator("tr")
        rows.nth(len(given) - 1).wait_for(state="attached")
        press_animate(page)
        if given is not masks:
            assert message(page, "Error") == (
                "masks pictures: has 9 masks, and 10 driving frames are animated; give a clip or a "
                "folder with a mask for each"
            )
            page.locator(".file").filter(visible=True).get_by_label("Clear").click()
    with av.open(str(download(page, tmp_path))) as container:
        for frame in container.decode(video=0):
            green = frame.to_ndarray(format="rgb24").astype(int) - (0, 255, 0)
            assert abs(green).max() < 12


def test_background(page, files, tmp_path):
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / "driving.mp4")
    choose_background(page, "an image")
    give(page, "Image", files / "wide.png")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Paste back", exact=True).check()
    press_animate(page)
    assert message(page, "Error") == (
        "paste back keeps what surrounds the source, background replaces it; leave one out"
    )
    page.get_by_label("Paste back", exact=True).uncheck()
    press_animate(page)
    assert download(page, tmp_path).suffix == ".mp4"
    assert "wide.png: 50 x 30 pixels" in message(page, "Notes")
    choose_background(page, "transparent")
    box(page, "Image").wait_for(state="hidden")
    press_animate(page)
    page.get_by_role("button", name="Download").wait_for(state="hidden")
    path = download(page, tmp_path)
    assert path.suffix == ".webm"
    with av.open(str(path)) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"


def test_examples(page, tmp_path):
    """Two clicks on puppets, and one on a background, are enough."""
    for label in ("Example images", "Example clips", "Example backgrounds"):
        gallery = page.locator(".examples", has=page.get_by_text(label, exact=True))
        gallery.locator("button.gallery-item").nth(2).wait_for()
        assert gallery.locator("button.gallery-item").count() == 3
        gallery.locator("button.gallery-item").nth(1).click()
    for label in ("Source image", "Driving clip", "Image"):
        box(page, label).get_by_role("button", name=re.compile("Clear|Remove")).wait_for()
    press_animate(page)
    path = download(page, tmp_path)
    assert path.name == "puppet-2--clip-2.mp4"
    assert "background-2.png" not in message(page, "Notes")  # it has the shape of the model
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 48


@pytest.mark.parametrize(("form", "suffix"), [("gif", ".gif"), ("png", ".zip")])
def test_formats_and_masks(page, files, tmp_path, form, suffix):
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / "driving.mp4")
    page.get_by_role("button", name="Options").click()
    page.get_by_label(form, exact=True).check()
    page.get_by_text("Sound", exact=True).wait_for(state="hidden")
    page.get_by_label("Save masks", exact=True).check()
    press_animate(page)
    path = download(page, tmp_path)
    masks = download(page, tmp_path, "Download masks")
    assert (path.name, masks.name) == (f"source--driving{suffix}", f"source--driving-masks{suffix}")
    for found in (path, masks):
        if form == "png":
            with zipfile.ZipFile(found) as archive:
                names = sorted(archive.namelist())
            assert sum(name.endswith(".png") for name in names) == 10
        else:
            assert Image.open(found).n_frames == 10
    shown = box(page, "Result").locator("img")
    if form == "gif":
        page.wait_for_function("picture => picture.naturalWidth == 32", arg=shown.element_handle())
    else:
        assert not box(page, "Result").first.is_visible()


def test_a_file_that_the_browser_cannot_show(page, files):
    give(page, "Source image", files / "text.png")
    box(page, "Source image").and_(page.locator(".unshown")).wait_for()
    assert page.locator(".toast-body").count() == 0


def test_stop(page, files, tmp_path):
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / "long.mp4")
    press_animate(page)
    page.get_by_text(re.compile(rf"\d+/{LONG}")).wait_for()  # progress
    page.get_by_role("button", name="Stop").click()
    assert message(page, "Stopped") == "There is no result."
    give(page, "Driving clip", files / "driving.mp4")
    press_animate(page)
    assert download(page, tmp_path).name == "source--driving.mp4"


def test_files_of_the_server_stay_there(page, address):
    for path in (demo.__file__, "/etc/hostname"):
        assert page.request.get(f"{address}gradio_api/file={path}").status == 403


@pytest.fixture
def unchanged_environment(monkeypatch) -> None:
    """Undo what `main` sets in the environment at the end of the test."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def refused(capsys, unchanged_environment) -> Callable[..., str]:
    """A function that starts the page, which fails, and returns its error line."""

    def run(*arguments: object) -> str:
        assert call(demo, *arguments) == 2
        return error_line(capsys, "python -m web")

    return run


def test_without_gradio(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refused().endswith("pip install -e '.[web]'")


def test_port_that_is_taken(refused, tiny_run):
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused("--checkpoint", step_file(tiny_run, 8), "--port", port)
    assert f"--port {port}: " in line
    assert line.endswith("choose another")


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_there_cannot_be(capsys, port):
    with pytest.raises(SystemExit) as ended:
        call(demo, "--port", port)
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(f"error: argument --port: {port}: must be a port, from 1 to 65535")


def test_checkpoint_that_is_not_there(refused, tmp_path):
    pytest.importorskip("gradio")
    assert "none.pt: cannot be read" in refused("--checkpoint", tmp_path / "none.pt")
