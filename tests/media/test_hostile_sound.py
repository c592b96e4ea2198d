"""Sound of strangers whose packets state more than they hold, or times that cannot be right."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from common.errors import UserError
from media import sound
from media.sound import open_sound
from media.video_writer import VideoWriter
from tests.helpers.media import decode_sound, write_sound_clip

BLOCK = 65_535  # samples of a packet
LEVEL = 1000


def checksum(content, polynomial, num_bits):
    found = 0
    for byte in content:
        found ^= byte << (num_bits - 8)
        for _ in range(8):
            found = (found << 1) ^ (polynomial if found >> (num_bits - 1) else 0)
            found &= 2**num_bits - 1
    return found.to_bytes(num_bits // 8)


def write_flac(path, rates):
    """Write a packet of BLOCK equal samples for each rate; FLAC states it in every packet."""
    info = BLOCK.to_bytes(2) * 2 + bytes(6) + ((48_000 << 44) | (15 << 36)).to_bytes(8) + bytes(16)
    content = b"fLaC" + bytes((0x80, 0, 0, len(info))) + info
    for number, rate in enumerate(rates):
        # Block size and rate stand behind the number; one channel, 16 bits; all samples equal.
        head = bytes((0xFF, 0xF8, 0x7D, 0x08, number)) + (BLOCK - 1).to_bytes(2) + rate.to_bytes(2)
        head += checksum(head, 0x07, 8)
        packet = head + bytes(1) + LEVEL.to_bytes(2)
        content += packet + checksum(packet, 0x8005, 16)
    path.write_bytes(content)
    return path


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = sound._packets(container, stream, Fraction(0))
        yield from sound._decoded(packets, stream.codec_context, Fraction(0), int)


@pytest.mark.parametrize("rate", [1, 999])
def test_packets_of_another_rate_than_the_header(tmp_path, rate):
    """A file of 300 bytes took 12 GB: 65,535 samples, one a second, are 18 hours at 48 kHz."""
    path = write_flac(tmp_path / "a.flac", [48_000, rate, rate, 48_000])
    loud = [frame for frame in decoded(path) if frame.to_ndarray().any()]  # others fill gaps
    assert {frame.sample_rate for frame in loud} == {48_000}
    assert [frame.samples for frame in loud] == [48_000, BLOCK - 48_000] * 2


def test_a_packet_of_a_minute_is_resampled_in_parts(tmp_path):
    path, target = write_flac(tmp_path / "a.flac", [1000, 1000]), tmp_path / "out.mp4"
    frames = [*decoded(path)]
    assert {frame.samples for frame in frames} == {1000, BLOCK % 1000}
    assert sum(frame.samples for frame in frames) == 2 * BLOCK
    assert all((frame.to_ndarray() == LEVEL).all() for frame in frames)
    with VideoWriter(target, Fraction(1), sound=open_sound(path)) as writer:
        for _ in range(70):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    samples = np.asarray(decode_sound(target)[0])
    assert len(samples) / 48_000 == pytest.approx(70, abs=0.1)
    assert samples[48_000:-48_000].min() > 0


def write_with_gap(path, codec, hours, rate=48_000):
    """Write a second of sound, .mkv, whose second half begins `hours` later."""
    whole = write_sound_clip(
        path.with_name(f"whole-{path.name}"), [], 1, codec=codec, sample_rate=rate, sound=(0, 1)
    )
    with av.open(str(whole)) as container, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux(audio=0):
            if packet.pts is not None:
                packet.pts += round((packet.pts * packet.time_base > 0.5) * hours * 3600 * 1000)
                packet.dts, packet.stream = packet.pts, stream
                target.mux(packet)
    return path


def write_hours(path, source, hours):
    """Write a frame for each hour, with the sound of `source`."""
    times = [Fraction(3600 * number) for number in range(hours + 1)]
    with VideoWriter(path, Fraction(1, 3600), sound=open_sound(source), times=times) as writer:
        for _ in range(hours):
            writer.write(np.zeros((32, 32, 3), np.uint8))


def sound_times(path):
    with av.open(str(path)) as container:
        return [p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None]


@pytest.mark.parametrize(
    ("codec", "rate"), [("aac", 48_000), ("aac", 96_000), ("libmp3lame", None)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_gap_that_mp4_cannot_say(tmp_path, monkeypatch, suffix, codec, rate):
    """FFmpeg let the sound after it follow at once, hours too early."""
    monkeypatch.setattr(sound, "MAX_SILENCE", 60)
    source = write_with_gap(tmp_path / "a.mkv", codec, 13, rate or 48_000)
    target = tmp_path / f"out{suffix}"
    with pytest.raises(UserError, match=r"gaps of more than 1 minutes.*--audio none"):
        write_hours(target, source, 14)
    assert not target.exists()
    # Where the video ends before, or its pictures go on, nothing is wrong.
    with VideoWriter(target, Fraction(1), sound=open_sound(source)) as writer:
        for _ in range(90):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    assert len(decode_sound(target)[0]) / 48_000 == pytest.approx(90, abs=2)


@pytest.mark.parametrize(
    ("name", "codec", "hours"), [("a.mp4", "aac", 5), ("a.webm", "libopus", 13)]
)
def test_a_gap_that_can_be_said_is_copied(tmp_path, name, codec, hours):
    source = write_with_gap(tmp_path / "a.mkv", codec, hours)
    write_hours(tmp_path / name, source, hours + 1)
    times = sound_times(tmp_path / name)
    assert times == pytest.approx(sound_times(source)[-len(times) :], abs=0.002)
    assert times[-1] > hours * 3600


def test_a_packet_that_is_said_to_last_for_hours(tmp_path):
    """The copied sound went on for 12 hours after the last frame."""
    source = write_sound_clip(tmp_path / "whole.mp4", [], 1, sound=(0, 1))
    with av.open(str(source)) as container, av.open(str(tmp_path / "a.mov"), "w") as target:
        stream = target.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux(audio=0):
            if packet.pts is not None:
                packet.stream = stream
                if packet.pts > 40_000:
                    packet.duration = 2**31 - 1
                target.mux(packet)
    write_hours(tmp_path / "out.mp4", tmp_path / "a.mov", 2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(2 * 3600)


@pytest.mark.parametrize("start", [2**62, 2**45])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_pictures_that_begin_in_millions_of_years(tmp_path, suffix, start):
    """The time of the sound from there on has more than 64 bits; there is none."""
    source = write_sound_clip(tmp_path / f"a{suffix}", [], 1, sound=(0, 1))
    for moment in (start, -start):
        opened = replace(open_sound(source), start=Fraction(moment))
        with VideoWriter(tmp_path / f"out{suffix}", Fraction(25), sound=opened) as writer:
            writer.write(np.zeros((32, 32, 3), np.uint8))


def test_sound_without_times_long_before_the_pictures(tmp_path):
    with av.open(str(write_flac(tmp_path / "a.flac", [48_000] * 3))) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        for packet in packets:
            packet.pts = packet.dts = None
        assert not [*sound._decoded(iter(packets), stream.codec_context, Fraction(2**62), int)]


def test_hours_of_sound_in_a_few_packets(tmp_path, monkeypatch):
    """A clip of 200 pictures and 2 MB of sound, which lasts for a thousand hours, took hours."""
    monkeypatch.setattr(sound, "MAX_ENCODED", 100)
    source, target = write_flac(tmp_path / "a.flac", [1000] * 3), tmp_path / "out.mp4"
    with pytest.raises(UserError, match=r"a\.flac: its sound lasts for more than.*--audio none"):
        write_hours(target, source, 2)
    assert not target.exists()
    # Its beginning, or as many pictures as seconds, is nothing special.
    for num_frames, rate in ((5, Fraction(1, 10)), (200, Fraction(1))):
        with VideoWriter(target, rate, sound=open_sound(source)) as writer:
            for _ in range(num_frames):
                writer.write(np.zeros((32, 32, 3), np.uint8))
