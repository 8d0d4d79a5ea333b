import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_builds_and_the_package_imports_from_it(tmp_path):
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "vqvae2/py.typed" in names
    assert "vqvae2/report/template.html" in names
    assert {"vqvae2/app/static/app.js", "vqvae2/app/static/app.css"} <= {*names}
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    code = "import vqvae2, vqvae2.cli.train; print(vqvae2.__file__)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert Path(out.stdout.strip()).is_relative_to(tmp_path / "site")
