"""A short form of `make faults`."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "faults.py"


def test_what_faults_interrupt_ends_as_if_nothing_had_happened(tmp_path):
    few = ["--kills", "4", "--stops", "1", "--cuts", "1", "--full", "0", "--ranks", "0"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *few, "--out", str(tmp_path / "faults.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
