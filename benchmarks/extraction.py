"""Images to codes: images/s, bytes on disk per image, and two processes against one.

    python benchmarks/extraction.py --run runs/cifar10

Extracts all codes of a trained run again, into temporary folders, by the stage of a run: one
process with one thread, with two, and two processes (gloo) with one thread each. All must write
the same bytes. Listing and decoding the images is included. Prints a table and writes JSON.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
import tyro
from processes import in_processes, write_results

from vqvae2.cli.display import console, table
from vqvae2.data.images import open_images
from vqvae2.runs.folder import RunFolder
from vqvae2.training.extraction import ExtractionStage
from vqvae2.training.session import TrainingSession, new_accelerator
from vqvae2.training.stages import train_run

FORMS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes": (2, 1)}
"""Number of processes, and of threads of each."""


@dataclass(frozen=True)
class Options:
    """Measure extraction.

    Arguments:
        run: A run folder with a trained autoencoder.
        out: JSON file.
    """

    run: Path
    out: Path = Path("build/extraction.json")


def extract(folder: Path, num_threads: int) -> float:
    """Seconds of the extraction of all codes of a run, by this process."""
    torch.set_num_threads(num_threads)
    run_folder = RunFolder(folder)
    config = run_folder.read()
    accelerator = new_accelerator(config, run_folder)
    accelerator.wait_for_everyone()
    start = time.perf_counter()
    session = TrainingSession(run_folder, config, open_images(config.data), accelerator)
    for _ in train_run(session, lambda stage: isinstance(stage, ExtractionStage)):
        pass
    return time.perf_counter() - start


def measure(
    source: Path, num_processes: int, num_threads: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics, and a checksum of every shard."""
    folder = Path(tempfile.mkdtemp(prefix="vqvae2-extraction-"))
    try:
        for name in ("config.json", "data.json"):
            shutil.copy(source / name, folder / name)
        shutil.copytree(source / "model" / "autoencoder", folder / "model" / "autoencoder")
        seconds = max(in_processes(num_processes, extract, folder, num_threads))
        shards = sorted(RunFolder(folder).codes.glob("*.parquet"))
        checksums = {path.name: blake2b(path.read_bytes()).hexdigest() for path in shards}
        summary = RunFolder(folder).read_data()
        assert summary is not None
        count = summary.num_train + summary.num_validation
        num_bytes = sum(path.stat().st_size for path in shards)
    finally:
        shutil.rmtree(folder)
    metrics = {
        "images": count,
        "images_per_second": count / seconds,
        "bytes_per_image": num_bytes / count,
    }
    return metrics, checksums


def main() -> None:
    options = tyro.cli(Options)
    config = RunFolder(options.run).read()
    results, checksums, rows = {}, [], []
    for name, (num_processes, num_threads) in FORMS.items():
        metrics, shards = measure(options.run, num_processes, num_threads)
        results[name] = metrics
        checksums.append(shards)
        rows.append(
            [name, f"{metrics['images']:,}", f"{metrics['images_per_second']:,.0f}",
             f"{metrics['bytes_per_image']:.1f}", "yes" if shards == checksums[0] else "NO"]
        )  # fmt: skip
    columns = ["form", "images", "images/s", "bytes per image on disk", "same bytes as the first"]
    counts = " + ".join(str(grid.num_positions) for grid in config.grids())
    side = config.data.size
    table(f"extraction of {counts} codes per {side}x{side} image", columns, rows)
    write_results(options.out, results)
    if any(shards != checksums[0] for shards in checksums):
        console.print("The shards of two processes are not those of one.")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
