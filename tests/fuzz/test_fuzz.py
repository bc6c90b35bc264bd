"""Bad files of every kind, in child processes: see fuzz.py, which can be run by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")


def fuzz(count, jobs):
    """Make this many attempts, and return the exit code and the report."""
    script = Path(__file__).with_name("fuzz.py")
    command = [sys.executable, str(script), "--count", str(count), "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_bad_files_give_one_line_or_a_right_result():
    code, report = fuzz(count=250, jobs=2)
    assert code == 0, report


@pytest.mark.slow
def test_ten_thousand_bad_files_give_one_line_or_a_right_result():
    code, report = fuzz(count=10_000, jobs=2)
    assert code == 0, report
