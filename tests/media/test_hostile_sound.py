"""Sound of strangers whose packets state more than they hold."""

from fractions import Fraction

import av
import numpy as np
import pytest

from media import sound
from media.sound import open_sound
from media.video_writer import VideoWriter
from tests.helpers.media import decode_sound

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
