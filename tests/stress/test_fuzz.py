"""A short form of `make fuzz`."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "fuzz.py"


def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--count", "40", "--out", str(tmp_path / "fuzz.json")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert list((tmp_path / "fuzz").iterdir()) == []
