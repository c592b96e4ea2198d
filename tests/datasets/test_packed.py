"""Packed clips are read as they were written, even if the writing was interrupted."""

import io
import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from datasets.pack_writer import CLIPS, FRAMES, PACK, PackWriter, write_fragment
from datasets.packed import PackedClips
from media.video import VideoError, open_clip
from tests.helpers.media import frame_numbers, numbered_frame

SIZE = (48, 64)


def add(writer, name, num_frames, rate=Fraction(25), first=0, quality=95):
    writer.folder.mkdir(exist_ok=True)
    part = writer.folder / ".part"
    frames = (numbered_frame(first + number, SIZE) for number in range(num_frames))
    writer.append(name, rate, f"{name}.mp4", part, write_fragment(part, name, frames, quality))
    part.unlink()


def pack(folder, shard_bytes=2**32):
    with PackWriter(folder, SIZE, shard_bytes) as writer:
        add(writer, "id2#b", 12)
        add(writer, "id10#c", 5, Fraction(30000, 1001), first=20)
        add(writer, "id2#a", 1, first=40)
        writer.finish()
    return folder


@pytest.fixture
def packed(tmp_path):
    return pack(tmp_path / "train")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_clips_in_natural_order_with_their_own_frames(packed):
    source = PackedClips(packed, SIZE, id_sampling=True)
    assert [tuple(clip) for clip in source.clips] == [
        ("id2#a", "id2"), ("id2#b", "id2"), ("id10#c", "id10"),
    ]  # fmt: skip
    assert [source.num_frames(index) for index in range(3)] == [1, 12, 5]
    assert source.frame_rate(2) == Fraction(30000, 1001)
    assert frame_numbers(source.read(0, [0])) == [40]
    assert frame_numbers(source.read(1, [11, 0, 3, 3])) == [11, 0, 3, 3]
    assert frame_numbers(source.read(2, [4, 0])) == [24, 20]
    assert frame_numbers(np.stack([*source.stream(2)])) == [20, 21, 22, 23, 24]
    frames = source.read(1, [5, 6])
    assert frames.dtype == np.uint8
    assert abs(frames[1].astype(int) - numbered_frame(6, SIZE)).mean() < 2


def test_colour_keeps_its_full_resolution(tmp_path):
    """Single columns of red and blue stay apart, which 4:2:0 would mix to one purple."""
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:, ::2, 0] = frame[:, 1::2, 2] = 255
    with PackWriter(tmp_path, (16, 32)) as writer:
        table = write_fragment(tmp_path / ".part", "a", [frame], 95)
        writer.append("a", Fraction(25), "", tmp_path / ".part", table)
        writer.finish()
    (found,) = PackedClips(tmp_path, (16, 32)).read(0, [0])
    assert abs(found.astype(int) - frame).max() < 40


def test_another_size_is_fitted(packed):
    cropped = PackedClips(packed, (48, 48)).read(1, [7])
    padded = PackedClips(packed, (64, 64), "pad").read(1, [7])
    assert cropped.shape == (1, 48, 48, 3)
    assert padded.shape == (1, 64, 64, 3)
    assert (padded[0, :8] == 0).all()
    assert frame_numbers(padded[:, 8:56]) == [7]
    assert not (cropped[:, :8] == 0).any()


def test_a_shard_is_an_archive_of_plain_pictures(packed, tmp_path):
    with tarfile.open(packed / "00000.tar") as archive:
        assert archive.getnames()[-7:-5] == ["id2#b/00011.jpg", "id10#c/00000.jpg"]
        file = archive.extractfile("id10#c/00002.jpg")
        frame = np.asarray(Image.open(io.BytesIO(file.read())))
        archive.extractall(tmp_path / "out", filter="data")
    assert (packed / "00000.tar").read_bytes()[-1024:] == bytes(1024)  # the end of an archive
    source = PackedClips(packed, SIZE)
    np.testing.assert_array_equal(source.read(2, [2])[0], frame)
    clip = open_clip(tmp_path / "out" / "id10#c")  # an unpacked folder of frames
    np.testing.assert_array_equal(clip.read([0, 4]), source.read(2, [0, 4]))


def test_names_of_any_length_and_script(tmp_path):
    names = ["é#" + "x" * 150, "日本 #1"]
    with PackWriter(tmp_path / "train", SIZE) as writer:
        for first, name in enumerate(names):
            add(writer, name, 2, first=10 * first)
        writer.finish()
    source = PackedClips(tmp_path / "train", SIZE, id_sampling=True)
    assert {clip.name for clip in source.clips} == set(names)
    for index, clip in enumerate(source.clips):
        assert frame_numbers(source.read(index, [1])) == [10 * names.index(clip.name) + 1]
    with tarfile.open(tmp_path / "train" / "00000.tar") as archive:
        assert f"{names[0]}/00001.jpg" in archive.getnames()


def test_many_shards(tmp_path):
    folder = pack(tmp_path / "train", shard_bytes=15_000)
    assert sorted(path.name for path in folder.glob("*.tar")) == ["00000.tar", "00001.tar"]
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            assert archive.getmembers()
    source = PackedClips(folder, SIZE)
    assert frame_numbers(source.read(1, range(12))) == [*range(12)]
    assert frame_numbers(source.read(2, range(5))) == [*range(20, 25)]


def test_processes_and_threads(packed):
    source = PackedClips(packed, SIZE)
    fresh = pickle.dumps(source)
    source.read(0, [0])  # opens the files
    assert pickle.dumps(source) == fresh
    unpickled = pickle.loads(fresh)
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda frame: unpickled.read(1, [frame])[0], [*range(12)] * 20)
        assert frame_numbers(np.stack([*read])) == [*range(12)] * 20


def test_report(packed):
    report = PackedClips(packed, (32, 32), id_sampling=True).inspect()
    assert (report.num_clips, report.num_identities, report.num_frames) == (3, 2, 18)
    assert report.sizes == {SIZE: 3}
    assert report.too_short == ["id2#a"]
    assert "3 clips, 2 ids, 18 frames; height x width: 48 x 64 (3)" in report.summary()


@pytest.mark.parametrize("shard_bytes", [2**32, 9_000])
@pytest.mark.parametrize("num_before", [0, 1, 2, 3])
def test_interrupted_anywhere_and_continued(tmp_path, num_before, shard_bytes):
    """The files are the same as without the interruption, even if half a clip had been written."""
    lengths = {"a": 3, "b": 4, "c": 2}
    folders = tmp_path / "whole", tmp_path / "parts"
    with PackWriter(folders[0], SIZE, shard_bytes) as writer:
        for name, num_frames in lengths.items():
            add(writer, name, num_frames)
        writer.finish()
    with PackWriter(folders[1], SIZE, shard_bytes) as writer:
        for name in [*lengths][:num_before]:
            add(writer, name, lengths[name])
    if num_before:
        with pytest.raises(UserError, match=rf"ended early, after {num_before} clips; start the"):
            PackedClips(folders[1], SIZE)
        for name, torn in ((FRAMES, b"half a frame"), (CLIPS, b'{"name": "x", "nu')):
            with (folders[1] / name).open("ab") as file:
                file.write(torn)
        for shard in folders[1].glob("*.tar"):
            with shard.open("ab") as file:
                file.write(b"half a clip" * 1000 if shard.name == writer.clips[-1].shard else b"")
    with PackWriter(folders[1], SIZE, shard_bytes) as writer:
        assert [clip.name for clip in writer.clips] == [*lengths][:num_before]
        for name in [*lengths][num_before:]:
            add(writer, name, lengths[name])
        writer.finish()
    assert contents(folders[0]) == contents(folders[1])


def test_more_clips_later(packed):
    with PackWriter(packed, SIZE) as writer:
        add(writer, "id3#new", 6, first=30)
        writer.finish()
    source = PackedClips(packed, SIZE)
    assert [clip.name for clip in source.clips] == ["id2#a", "id2#b", "id3#new", "id10#c"]
    assert frame_numbers(source.read(2, [5])) == [35]
    assert frame_numbers(source.read(3, [4])) == [24]
    with tarfile.open(packed / "00000.tar") as archive:
        assert len(archive.getnames()) == 24


def test_finishing_again_touches_nothing(packed):
    times = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    with PackWriter(packed, SIZE) as writer:
        writer.finish()
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == times


def test_one_size_in_a_pack(packed):
    with pytest.raises(UserError, match=r"holds frames of 48 x 64, not 32 x 32"):
        PackWriter(packed, (32, 32))


def cut(path, num_bytes=100):
    path.write_bytes(path.read_bytes()[:-num_bytes])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda folder: cut(folder / "00000.tar"), r"00000\.tar: has \d+ bytes instead of \d+; "),
        (lambda folder: (folder / "00000.tar").unlink(), r"00000\.tar: no such file or directory"),
        (lambda folder: cut(folder / FRAMES), r"frames\.bin: has 188 bytes instead of 288; "),
        (lambda folder: (folder / FRAMES).unlink(), r"frames\.bin: no such file or directory"),
        (lambda folder: cut(folder / CLIPS, 10), r"frames\.bin: has 288 bytes instead of 272; "),
        (lambda folder: (folder / CLIPS).write_text("[]\n"), r"clips\.jsonl: damaged; "),
        (lambda folder: (folder / CLIPS).write_text('{"name": 1}\n'), r"clips\.jsonl: damaged; "),
        (lambda folder: cut(folder / PACK, 10), r"pack\.json: damaged; "),
        (lambda folder: (folder / PACK).write_text("[1]"), r"pack\.json: damaged; "),
        (
            lambda folder: (folder / PACK).write_text(json.dumps({"format": 2})),
            r"pack\.json: format 2, this version reads 1; ",
        ),
    ],
)
def test_damaged_packs_are_refused_in_one_line(packed, harm, expected):
    harm(packed)
    with pytest.raises(UserError, match=expected) as caught:
        PackedClips(packed, SIZE)
    assert "copy the folder again, or remove it and prepare the clips again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shard_that_lost_clips_is_not_continued(tmp_path):
    with PackWriter(tmp_path / "train", SIZE) as writer:
        add(writer, "a", 3)
    cut(tmp_path / "train" / "00000.tar")
    with (
        PackWriter(tmp_path / "train", SIZE) as writer,
        pytest.raises(UserError, match=r"00000\.tar: shorter than clips\.jsonl says; copy"),
    ):
        add(writer, "b", 3)


def test_a_changed_byte_is_noticed_where_it_is_read(packed):
    """A JPEG decoder would show a changed picture without a warning."""
    source = PackedClips(packed, SIZE)
    data = source.jpeg(1, 4)
    path = packed / "00000.tar"
    whole = path.read_bytes()
    place = whole.index(data) + len(data) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    harmed = PackedClips(packed, SIZE)
    with pytest.raises(VideoError, match=r"00000\.tar: frame 4 of id2#b is damaged; copy"):
        harmed.read(1, [0, 4])
    assert frame_numbers(harmed.read(1, [3, 5])) == [3, 5]


def test_frames_that_do_not_exist(packed):
    source = PackedClips(packed, SIZE)
    for frame in (-1, 12):
        with pytest.raises(VideoError, match=f"id2#b has no frame {frame}, only 12"):
            source.read(1, [frame])


def test_id_sampling_needs_ids(tmp_path):
    with PackWriter(tmp_path, SIZE) as writer:
        add(writer, "plain", 2)
        writer.finish()
    with pytest.raises(UserError, match=r"no clip is named id#name.*\(plain\)"):
        PackedClips(tmp_path, SIZE, id_sampling=True)


@pytest.mark.parametrize("quality", [50, 90, 95, 100])
def test_noise(tmp_path, quality):
    """Frames of noise have the most details, and so the largest JPEG files."""
    noise = np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)
    with PackWriter(tmp_path, (256, 256)) as writer:
        table = write_fragment(tmp_path / ".part", "a", [noise], quality)
        writer.append("a", Fraction(25), "", tmp_path / ".part", table)
        writer.finish()
    (found,) = PackedClips(tmp_path, (256, 256)).read(0, [0])
    error = abs(found.astype(int) - noise).mean()
    assert error < {50: 40, 90: 12, 95: 7, 100: 2}[quality]


@pytest.mark.parametrize("change", [lambda data: data[:-512], lambda data: data + bytes(512)])
def test_a_part_that_another_program_changed(tmp_path, change):
    with PackWriter(tmp_path / "train", SIZE) as writer:
        add(writer, "a", 3)
        part = tmp_path / "part"
        table = write_fragment(part, "b", [numbered_frame(0, SIZE)], 95)
        part.write_bytes(change(part.read_bytes()))
        with pytest.raises(UserError, match=r"part: has \d+ bytes instead of \d+; another program"):
            writer.append("b", Fraction(25), "", part, table)
        writer.finish()
    source = PackedClips(tmp_path / "train", SIZE)
    assert frame_numbers(np.stack([*source.stream(0)])) == [0, 1, 2]


def test_interrupted_within_a_character(tmp_path):
    with PackWriter(tmp_path, SIZE) as writer:
        add(writer, "日本", 2)
    lines = tmp_path / CLIPS
    lines.write_bytes(2 * lines.read_bytes())
    content = lines.read_bytes()
    lines.write_bytes(content[: content.rindex("本".encode()) + 1])
    with PackWriter(tmp_path, SIZE) as writer:
        assert [clip.name for clip in writer.clips] == ["日本"]
        writer.finish()
    assert PackedClips(tmp_path, SIZE).clips[0].name == "日本"


def test_interrupted_before_the_first_clip(tmp_path):
    """Such a pack is empty, and may be continued with another image size."""
    (tmp_path / PACK).write_text(json.dumps({"format": 1, "image_size": [32, 32]}))
    with PackWriter(tmp_path, SIZE) as writer:
        add(writer, "a", 2)
        writer.finish()
    assert PackedClips(tmp_path, SIZE).num_frames(0) == 2


@pytest.mark.parametrize("name", [CLIPS, FRAMES, "00000.tar"])
def test_files_that_no_writer_wrote_are_not_emptied(tmp_path, name):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / name).write_text("mine")
    with (
        PackWriter(folder, SIZE) as writer,
        pytest.raises(UserError, match=f"holds {name}, which no earlier run wrote; move it away"),
    ):
        add(writer, "a", 2)
    assert (folder / name).read_text() == "mine"
    assert not (folder / PACK).exists()


def test_a_disk_that_fails_at_the_end(tmp_path):
    writer = PackWriter(tmp_path / "train", SIZE)
    add(writer, "a", 2)
    os.close(writer._lines.fileno())
    with pytest.raises(UserError, match="train: cannot be written: bad file descriptor"):
        writer.__exit__()


def test_checksum_is_of_the_frames(tmp_path):
    """The second pack differs from the first in the quality of one clip."""
    checksums = []
    for name, quality in (("a", 95), ("b", 94), ("c", 95)):
        with PackWriter(tmp_path / name, SIZE, 2**32) as writer:
            add(writer, "clip", 2, quality=quality)
            writer.finish()
        checksums.append(PackedClips(tmp_path / name, SIZE).content_checksum())
    assert checksums[0] == checksums[2] != checksums[1]
