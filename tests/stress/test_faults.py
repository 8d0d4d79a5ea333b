"""A short form of `make faults`."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "faults.py"


def test_a_run_ends_after_faults_as_it_does_without(tmp_path):
    numbers = ["--kills", "4", "--stops", "1", "--cuts", "1", "--full", "0", "--ranks", "0"]
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *numbers, "--out", str(tmp_path / "faults.json")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "kill -9" in result.stdout
