import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from media.images import fit_frames, read_image, write_image
from tests.helpers.media import numbered_frame


def smooth(height, width):
    """Make a picture that scaling hardly changes."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 127 * (x + y)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.jpg", "a.jpeg", "A.PNG"])
def test_read_image_of_every_kind(tmp_path, name):
    image = smooth(30, 41)
    options = {"lossless": True} if "webp" in name else {"quality": 98}
    Image.fromarray(image).save(tmp_path / name, **options)
    read = read_image(tmp_path / name)
    assert (read.shape, read.dtype) == ((30, 41, 3), np.uint8)
    assert abs(read.astype(int) - image).max() <= (6 if ".jp" in name else 0)


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])  # with its own suffix and another
def test_heic_says_what_to_do(tmp_path, monkeypatch, name):
    brand = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
    (tmp_path / name).write_bytes(brand + bytes(range(256)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        UserError, match=r"not an image: this is HEIC; run `pip install pillow-heif"
    ):
        read_image(tmp_path / name)


def test_heic_is_read_where_its_plugin_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = smooth(32, 48)
    pillow_heif.from_pillow(Image.fromarray(image)).save(tmp_path / "a.heic", quality=98)
    assert abs(read_image(tmp_path / "a.heic").astype(int) - image).max() <= 8


def test_a_large_picture_is_read_without_a_raw_warning(tmp_path):
    """Pillow's warning stays hidden even from users who switch all warnings on."""
    Image.fromarray(smooth(30, 41)).save(tmp_path / "a.png")
    code = (
        "from PIL import Image; Image.MAX_IMAGE_PIXELS = 1000; import media.images as images; "
        f"print(images.read_image({str(tmp_path / 'a.png')!r}).shape)"
    )
    command = [sys.executable, "-W", "always::Warning:PIL", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(30, 41, 3)\n", "")


def test_reading_leaves_the_filters_of_warnings_alone(tmp_path):
    """Filters hold for all threads, and each change makes Python repeat earlier warnings."""
    Image.fromarray(smooth(30, 41)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.resetwarnings()
        read_image(tmp_path / "a.png")
        assert warnings.filters == []


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_read_image_converts_modes(tmp_path, mode):
    grey = np.repeat(np.repeat(np.uint8([[0, 255]]), 8, axis=0), 8, axis=1)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), grey[..., None].repeat(3, 2))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 25700, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 1, 100, 255]


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = [[200, 0, 0], [255, 255, 255], [204, 204, 204]]  # the last is 255 * (1 - 51 / 255)
    assert read_image(tmp_path / "a.png")[0].tolist() == expected


def test_palette_with_transparency(tmp_path):
    palette = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "a.png", transparency=0)
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    image = smooth(20, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture is shown turned clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def truncated_png():
    buffer = io.BytesIO()
    Image.fromarray(numbered_frame(1, (200, 200))).save(buffer, "png")
    return buffer.getvalue()[:300]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "no such file"),
        (b"", "not an image: the file is empty"),
        (b"some words", "not an image: the file holds text"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "not an image: this is a git-lfs pointer",
        ),
        (bytes(range(256)), "not an image: its format is unknown"),
        (truncated_png(), "not an image that can be read"),
    ],
)
def test_what_is_not_an_image_is_one_line(tmp_path, contents, message):
    path = tmp_path / "source.png"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_folder_is_not_an_image(tmp_path):
    with pytest.raises(UserError, match="folder"):
        read_image(tmp_path)


def test_write_image(tmp_path):
    frame = numbered_frame(5)
    write_image(tmp_path / "new" / "a.png", frame)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), frame)
    write_image(tmp_path / "new" / "a.jpg", smooth(32, 32))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.jpg", "a.png"]


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg"])
@pytest.mark.parametrize("size", [(30, 41), (1, 1), (2, 300), (300, 3)])
def test_what_is_written_is_what_pillow_writes(tmp_path, name, size):
    """With quality 95, which PNG does not have; also of pictures with few rows or columns."""
    frame = smooth(*size)
    write_image(tmp_path / name, frame)
    expected = io.BytesIO()
    Image.fromarray(frame).save(expected, "png" if "png" in name.lower() else "jpeg", quality=95)
    assert (tmp_path / name).read_bytes() == expected.getvalue()


@pytest.mark.parametrize("name", ["a.zip/b.png", "~a.png", "http:/a.png", "imageio:chelsea.png"])
def test_any_name_is_that_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_image(name, numbered_frame(5))
    np.testing.assert_array_equal(read_image(name), numbered_frame(5))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_write_image_refuses(tmp_path):
    with pytest.raises(UserError, match=r"cannot write a \.psd image; use \.png"):
        write_image(tmp_path / "a.psd", numbered_frame(0))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", numbered_frame(0))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_frames_of_the_right_size_are_untouched(fit):
    frames = numbered_frame(3)[None]
    assert fit_frames(frames, (48, 64), fit) is frames


def test_crop_cuts_the_sides_evenly():
    frames = np.zeros((2, 40, 100, 3), np.uint8)
    frames[:, :, 30:70] = 255  # the square in the middle
    assert fit_frames(frames, (20, 20), "crop").min() > 230
    frames = frames.transpose(0, 2, 1, 3)
    assert fit_frames(np.ascontiguousarray(frames), (20, 20), "crop").min() > 230


def test_crop_without_scaling_copies_pixels():
    frame = np.random.default_rng(0).integers(0, 256, (1, 412, 411, 3), np.uint8)
    cropped = fit_frames(frame, (411, 411), "crop")
    np.testing.assert_array_equal(cropped, frame[:, :411])


def test_pad_keeps_everything_and_centres():
    frames = np.full((1, 40, 80, 3), 200, np.uint8)
    padded = fit_frames(frames, (40, 40), "pad")[0]
    assert (padded[10:30] == 200).all()
    assert (padded[:10] == 0).all()
    assert (padded[30:] == 0).all()


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (90, 30)])
def test_a_circle_stays_a_circle(fit, size):
    y, x = np.mgrid[:150, :200]
    disc = (np.hypot(y - 74.5, x - 99.5) < 24).astype(np.uint8) * 255
    fitted = fit_frames(disc[None, ..., None].repeat(3, -1), size, fit)[0, ..., 0] / 255
    assert fitted.sum(0).max() == pytest.approx(fitted.sum(1).max(), rel=0.06)


def test_scaling_down_is_anti_aliased():
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    fitted = fit_frames(checkerboard[None, ..., None].repeat(3, -1), (16, 16), "crop")
    assert abs(fitted.astype(int) - 127).max() < 16


def test_a_damaged_avif_is_not_called_heic(tmp_path):
    """Its first brand is one that HEIC has too."""
    box = b"ftypmif1\0\0\0\0mif1avifmiaf"
    (tmp_path / "a.avif").write_bytes((len(box) + 4).to_bytes(4) + box + bytes(100))
    with pytest.raises(UserError, match="AVIF") as raised:
        read_image(tmp_path / "a.avif")
    assert "HEIC" not in str(raised.value)
