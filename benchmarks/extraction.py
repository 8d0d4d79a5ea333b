"""Images to codes: bytes a image on disk, images a second, and two ranks beside one process.

    python benchmarks/extraction.py --run runs/cifar10

Extracts all codes of a trained run once more, into folders of its own, by the real job: one
process with a thread, with two, and two ranks (gloo, a thread each). All must write the same
bytes. Listing and decoding the images is part of it. Prints a table and writes JSON.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
import tyro
from training import together

from vqvae2.cli.display import console, table
from vqvae2.data.images import open_images
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stages import Job, new_accelerator

FORMS = {"one process, a thread": (1, 1), "one process, two threads": (1, 2), "two ranks": (2, 1)}
"""Ranks, and threads of each."""


@dataclass(frozen=True)
class Options:
    """Measure extraction.

    Arguments:
        run: A run folder with a trained autoencoder.
        out: JSON file.
    """

    run: Path
    out: Path = Path("build/extraction.json")


def extract(folder: Path, threads: int) -> float:
    """Seconds for all codes of a run, as one rank."""
    torch.set_num_threads(threads)
    at = RunFolder(folder)
    run = at.read()
    accelerator = new_accelerator(run, at)
    accelerator.wait_for_everyone()
    begun = time.perf_counter()
    job = Job(at, run, open_images(run.data), accelerator)
    for _ in job.train(lambda stage: stage == "codes"):
        pass
    return time.perf_counter() - begun


def measure(source: Path, world: int, threads: int) -> tuple[dict[str, float], dict[str, str]]:
    """Figures, and a checksum of every shard."""
    folder = Path(tempfile.mkdtemp(prefix="vqvae2-extraction-"))
    try:
        for name in ("config.json", "data.json"):
            shutil.copy(source / name, folder / name)
        shutil.copytree(source / "model" / "autoencoder", folder / "model" / "autoencoder")
        seconds = max(together(world, extract, folder, threads))
        shards = sorted(RunFolder(folder).codes.glob("*.parquet"))
        sums = {path.name: blake2b(path.read_bytes()).hexdigest() for path in shards}
        count = sum(RunFolder(folder).read_data()[split] for split in ("train", "validation"))
        size = sum(path.stat().st_size for path in shards)
    finally:
        shutil.rmtree(folder)
    figures = {"images": count, "images_a_second": count / seconds, "bytes_each": size / count}
    return figures, sums


def main() -> None:
    options = tyro.cli(Options)
    run = RunFolder(options.run).read()
    codes = [grid.num_positions for grid in run.grids()]
    found, sums, rows = {}, [], []
    for name, (world, threads) in FORMS.items():
        found[name], own = measure(options.run, world, threads)
        sums.append(own)
        seen = found[name]
        rows.append(
            [name, f"{seen['images']:,}", f"{seen['images_a_second']:,.0f}",
             f"{seen['bytes_each']:.1f}", "yes" if own == sums[0] else "NO"]
        )  # fmt: skip
    columns = ["form", "images", "a second", "bytes each on disk", "same bytes as the first"]
    table(f"extraction of {' + '.join(map(str, codes))} codes of {run.data.size}x{run.data.size}",
          columns, rows)  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    if any(own != sums[0] for own in sums):
        console.print("The shards of several ranks are not those of one.")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
