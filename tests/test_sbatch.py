"""docs/train.sbatch: its tasks form a group, and a job that was interrupted is queued again."""

import os
import subprocess
import sys

import pytest

from tests.helpers.processes import free_port
from tests.helpers.runs import REPOSITORY, environment, metrics, tiny

SCRIPT = REPOSITORY / "docs/train.sbatch"

# Starts two tasks on this machine, as `srun` does on many; the highest code is that of the step.
SRUN = """#!/bin/bash
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 "$@" &
    tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do
    wait "$task" || { found=$?; (( found > code )) && code=$found; }
done
exit "$code"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo other; else echo "$@" >> "$CALLS"; fi
"""


@pytest.fixture
def submit(tmp_path):
    """A function that runs the script with its arguments, by programs in place of SLURM's."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def run(*arguments, srun=SRUN, **variables):
        files = {
            "srun": srun,
            "scontrol": SCONTROL,
            "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
        }
        for name, content in files.items():
            (programs / name).write_text(content)
            (programs / name).chmod(0o755)
        job = {"SLURM_JOB_ID": str(free_port() % 10000), "SLURM_JOB_NODELIST": "node[1-2]"}
        calls = tmp_path / "calls"
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            cwd=REPOSITORY,
            env=environment() | job | {"PATH": path, "CALLS": str(calls)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended, calls.read_text().split() if calls.exists() else [], job["SLURM_JOB_ID"]

    return run


def test_bash_reads_the_script():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_two_tasks_train_together(tmp_path, submit):
    folder = tmp_path / "run"
    overrides = ("train.max_steps=2", "masks=null", "background=null")
    ended, calls, _ = submit(*tiny(folder, *overrides), "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "(2 on each of 2 processes) on cpu" in ended.stdout
    assert "no checkpoint to resume, starting at step 0" in ended.stdout
    assert [row["step"] for row in metrics(folder)] == [1, 2]
    assert calls == []


@pytest.mark.parametrize("code", [2, 143])
def test_only_a_run_that_has_saved_after_sigterm_is_queued_again(submit, code):
    ended, calls, job = submit(srun=f"#!/bin/bash\nexit {code}\n")
    assert ended.returncode == code
    assert calls == (["requeue", job] if code == 143 else [])


@pytest.mark.parametrize(
    ("variables", "expected"), [({"SLURM_CPUS_PER_TASK": "8"}, "8"), ({}, "1")]
)
def test_tasks_get_the_cores_of_the_job(submit, monkeypatch, variables, expected):
    """Since SLURM 22.05 `srun` takes their number from SRUN_CPUS_PER_TASK alone."""
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SRUN_CPUS_PER_TASK", raising=False)
    srun = '#!/bin/bash\necho "${SRUN_CPUS_PER_TASK:-none}" >> "$CALLS"\n'
    ended, calls, _ = submit(srun=srun, **variables)
    assert ended.returncode == 0, ended.stderr
    assert calls == [expected]
