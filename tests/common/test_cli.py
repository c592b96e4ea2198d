"""Tests of exit codes, errors in one line, and the choice of the device."""

import argparse
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
import torch

from common.cli import (
    EscapedStream,
    add_device_argument,
    pick_device,
    positive_int,
    run_entry_point,
    say,
)
from common.errors import UserError
from tests.helpers.runs import REPOSITORY


def parser():
    parser = argparse.ArgumentParser(prog="train.py")
    parser.add_argument("--steps", type=positive_int, default=1)
    parser.add_argument("overrides", nargs="*")
    add_device_argument(parser)
    return parser


def fail(arguments):
    raise UserError("clip.mp4: no frames")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (143, 143)])
def test_exit_code_of_main(returned, code):
    assert run_entry_point(lambda arguments: returned, parser(), []) == code


def test_user_error_is_one_line_and_exit_code_2(capsys):
    assert run_entry_point(fail, parser(), []) == 2
    captured = capsys.readouterr()
    assert captured.err == "train.py: error: clip.mp4: no frames\n"
    assert captured.out == ""


def test_debug_shows_the_traceback():
    with pytest.raises(UserError, match="no frames"):
        run_entry_point(fail, parser(), ["--debug"])


def test_a_traceback_has_no_control_characters(monkeypatch, capsys):
    """Names of files in it cannot control the terminal."""

    def broken(arguments):
        raise UserError("\x1b[2Ja.mp4\u202e: no frames")

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(UserError) as raised:
        run_entry_point(broken, parser(), ["--debug"])
    sys.excepthook(UserError, raised.value, raised.tb)
    found = capsys.readouterr().err
    assert found.startswith("Traceback (most recent call last):\n")
    assert "UserError: \\x1b[2Ja.mp4\\u202e: no frames\n" in found
    assert not set(found) & {"\x1b", "\u202e"}


def test_our_own_mistakes_keep_their_traceback():
    def broken(arguments):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_entry_point(broken, parser(), [])


def test_overrides_stand_anywhere():
    def check(arguments):
        assert arguments.overrides == ["a=1", "b=2"]
        assert (arguments.device, arguments.steps) == ("cpu", 3)

    run_entry_point(check, parser(), ["a=1", "--device", "cpu", "b=2", "--steps", "3"])


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_positive_int(number, capsys):
    with pytest.raises(SystemExit) as caught:
        run_entry_point(lambda arguments: None, parser(), ["--steps", number])
    assert caught.value.code == 2
    assert "--steps" in capsys.readouterr().err


@pytest.fixture
def machine(monkeypatch):
    """Pretend that there are so many CUDA devices, and MPS or not; return those made current."""

    chosen = []

    def build(num_cuda, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_cuda)
        monkeypatch.setattr(torch.cuda, "set_device", lambda index: chosen.append(index))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        return chosen

    return build


@pytest.mark.parametrize(
    ("num_cuda", "mps", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "cpu"),  # MPS is used only if asked for
        (2, True, "auto", "cuda"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (1, False, "cuda", "cuda"),
        (0, True, "mps", "mps"),
    ],
)
def test_device(machine, num_cuda, mps, name, device):
    chosen = machine(num_cuda, mps)
    assert pick_device(name) == torch.device(device)
    # Code that asks for the current device, such as the peak memory, gets this one.
    assert chosen == ([torch.device(device).index or 0] if device.startswith("cuda") else [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cuda", "0 CUDA devices here; use --device cpu"),
        ("cuda:0", "0 CUDA devices here"),
        ("mps", "not available here; use --device cpu"),
        ("gpu", "unknown; use auto, cpu, cuda, cuda:N or mps"),
        ("cuda:x", "unknown"),
    ],
)
def test_device_that_is_not_there(machine, name, reason):
    machine(0, False)
    with pytest.raises(UserError, match=f"--device {name}: {reason}"):
        pick_device(name)


def test_cuda_index_beyond_the_last(machine):
    machine(2, False)
    with pytest.raises(UserError, match="--device cuda:2: 2 CUDA devices here"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("num_cuda", "name", "device"),
    [(4, "auto", "cuda:2"), (4, "cuda", "cuda:2"), (4, "cpu", "cpu"), (0, "auto", "cpu")],
)
def test_several_processes_take_a_gpu_each(machine, num_cuda, name, device):
    chosen = machine(num_cuda, False)
    assert pick_device(name, local_rank=2) == torch.device(device)
    assert chosen == ([2] if device == "cuda:2" else [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("auto", "cuda:2: 2 CUDA devices here; start fewer processes"),
        ("cuda:1", "cuda:1: one device for several processes; use cuda or cpu"),
        ("mps", "mps: one device for several processes"),
    ],
)
def test_too_few_gpus_for_the_processes(machine, name, reason):
    machine(2, True)
    with pytest.raises(UserError, match=f"--device {reason}"):
        pick_device(name, local_rank=2)


def test_one_gpu_may_be_shown_to_each_process(machine):
    machine(1, False)
    advice = "start fewer processes, or set LOCAL_RANK=0 if each process sees a GPU of its own"
    with pytest.raises(UserError, match=f"cuda:2: 1 CUDA devices here; {advice}"):
        pick_device("cuda", local_rank=2)


def test_characters_that_control_a_terminal_are_escaped(capsys):
    """The names in an untrusted file may hold such characters."""

    def main(arguments):
        say("a\x1b[31m\nb")
        raise UserError("e\nf", ["g\nh", "i"])

    assert run_entry_point(main, parser(), []) == 2
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[31m\\nb\n"
    assert captured.err.splitlines()[-3:] == ["train.py: error: e\\nf", "  g\\nh", "  i"]


def test_log_lines_are_escaped():
    """In a process of its own: pytest has set up logging here."""
    code = (
        "import argparse, logging, common.cli as cli\n"
        "def main(_): logging.getLogger('a').warning('%s: odd', 'c\\nd\\x07')\n"
        "cli.run_entry_point(main, argparse.ArgumentParser(), [])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr == "c\\nd\\x07: odd\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_names_that_the_terminal_cannot_show(variables):
    code = (
        "import argparse, os, sys, common.cli as cli\n"
        "from tqdm import tqdm\n"
        "def main(_):\n"
        "    name = os.fsdecode(b'\\xff') + '\\u65e5'\n"
        "    cli.say(name); tqdm.write(name); tqdm.write(name, file=sys.stderr)\n"
        "    raise cli.UserError(name)\n"
        "sys.exit(cli.run_entry_point(main, argparse.ArgumentParser(prog='a'), []))"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, env=os.environ | variables)
    assert ended.returncode == 2, ended.stderr
    for line in (*ended.stdout.splitlines(), *ended.stderr.splitlines()):
        assert b"\\udcff" in line
    assert len(ended.stdout.splitlines()) == len(ended.stderr.splitlines()) == 2


def test_wrong_arguments_are_escaped(capsys):
    parser = argparse.ArgumentParser(prog="a.py")
    with pytest.raises(SystemExit, match="2"):
        run_entry_point(lambda _: None, parser, ["\x1b[31mred\n"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: \\x1b[31mred\\n\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
@pytest.mark.parametrize(
    ("streams", "code", "shown"),
    [
        ("2>&1", 0, "out"),
        ("3>&1 >&- 2>&3", 0, ""),
        ("2>&-", 0, "out"),
        ("<&- >&- 2>&-", 0, ""),
        ("3>&1 >/dev/full 2>&3", 2, "a: error: what it prints is lost: No space left on device"),
        (">/dev/full 2>/dev/full", 2, ""),
        ("2>&1 | true", 141, ""),
    ],
)
@pytest.mark.parametrize("num_lines", [1, 10_000])
def test_streams_that_are_closed_or_full(tmp_path, streams, code, shown, num_lines):
    script = tmp_path / "a.py"
    script.write_text(
        "import argparse, sys, time; from common import cli\n"
        "def main(_):\n"
        "    time.sleep(0.1)  # so that the other end of the pipe is closed\n"
        f"    print('out' + {num_lines - 1} * '\\nout')\n"
        "    if sys.stdin is None: cli.say('said'), cli.say('said', sys.stderr)\n"
        "sys.exit(cli.run_entry_point(main, argparse.ArgumentParser(prog='a'), []))"
    )
    command = f'"$0" "$1" {streams}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": ""},
    )
    assert ended.returncode == code
    assert ended.stderr == ""
    assert set(ended.stdout.splitlines()) == {shown} - {""}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
def test_an_error_that_cannot_be_shown(tmp_path):
    code = (
        "import argparse, sys; from common import cli, errors\n"
        "def main(_): raise errors.UserError('x')\n"
        "sys.exit(cli.run_entry_point(main, argparse.ArgumentParser(prog='a'), []))"
    )
    for closed in ("2>&-", "2>/dev/full"):
        command = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code]
        ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
        assert ended.returncode == 2


def test_an_error_of_no_stream_keeps_its_traceback():
    def broken(arguments):
        raise BrokenPipeError("of a worker")

    with pytest.raises(BrokenPipeError, match="of a worker"):
        run_entry_point(broken, parser(), [])


def test_a_stream_that_escapes_what_libraries_print(capsys):
    with redirect_stderr(EscapedStream(sys.stderr)):
        print("a\x1b[31m\rb\nc", file=sys.stderr)
        sys.stderr.writelines(["d\x07\n", "e\n"])
        logging.StreamHandler().emit(logging.makeLogRecord({"msg": "\x9b2J"}))
        assert not sys.stderr.isatty()
        sys.stderr.flush()
    assert capsys.readouterr().err == "a\\x1b[31m\\rb\nc\nd\\x07\ne\n\\x9b2J\n"
