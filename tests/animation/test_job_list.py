"""Job lists: which files of a folder are sources and driving clips."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animation.job_list import list_jobs, read_pairs
from common.errors import UserError
from tests.helpers.media import write_clip


def test_supported_suffixes_and_a_remark_on_other_files(tmp_path, caplog):
    sources, clips = tmp_path / "sources", tmp_path / "clips"
    sources.mkdir()
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    names = ["a.webp", "b.JPG", "c.bmp", "d.gif", "e.tif"]
    for name in names:
        picture.save(sources / name)
    (sources / "f.heic").touch()  # reading it gives an error that says what is needed
    for path in (sources / "g.psd", sources / "h.psd"):
        path.touch()
    for name in ("a.m4v", "b.mts"):
        write_clip(clips / name, 2)
    (clips / "song.mp3").touch()
    jobs = list_jobs(str(sources), str(clips), None, tmp_path / "out", ".mp4")
    assert [Path(job.source).name for job in jobs[::2]] == [*names, "f.heic"]
    assert {Path(job.driving).name for job in jobs} == {"a.m4v", "b.mts"}
    assert caplog.messages == [
        f"--source {sources}: left out 2 .psd files",
        f"--driving {clips}: left out 1 .mp3 file",
    ]


def test_a_table_of_many_columns_is_told_in_a_short_line(tmp_path):
    names = ["source", "driving", *(f"c{number}" for number in range(100_000))]
    (tmp_path / "pairs.csv").write_text(",".join(names) + "\n")
    with pytest.raises(UserError, match=r"its columns are source, driving, c0, .* \.\.\.;") as r:
        read_pairs(tmp_path / "pairs.csv", None, tmp_path / "out", ".mp4")
    assert len(str(r.value)) < 600
