"""What streamed images cost: memory while the data grow tenfold, and images a second.

    python benchmarks/streaming.py --images 4000

Writes shards of built-in images, then reads as many steps of batches from each in a process of
its own. Held is what the process has beyond its start, at its peak. Prints a table, writes JSON.
"""

import json
import multiprocessing
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
import tyro
from PIL import Image

from vqvae2.cli.display import console, table
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.order import batch_indices
from vqvae2.data.synthetic import CLASS_NAMES, labels_of, render

BATCH, IMAGES_A_SHARD = 64, 2000


@dataclass(frozen=True)
class Options:
    """Measure streaming.

    Arguments:
        images: Of the smaller set; the larger has ten times as many.
        side: Of the images.
        window: Images that are shuffled together.
        steps: Batches of 64 that are read.
        out: JSON file.
    """

    dataset: int = 4000
    side: int = 64
    window: int = 2048
    steps: int = 200
    out: Path = Path("build/streaming.json")


def write_shards(folder: Path, kind: str, options: Options, count: int) -> int:
    """Shards of `count` training images and one of 256 held out; bytes of them all."""
    firsts = {f"train-{n:05d}": n for n in range(0, count, IMAGES_A_SHARD)}
    for name, first in {**firsts, "val": count}.items():
        own = range(first, first + (256 if name == "val" else min(IMAGES_A_SHARD, count - first)))
        labels = labels_of(own, 0).tolist()
        files = [encoded(image) for image in render(own, options.side, 0).images]
        if kind == "tar":
            write_tar(folder / f"{name}.tar", files, labels)
        else:
            write_parquet(folder / f"{name}.parquet", files, labels)
    return sum(path.stat().st_size for path in folder.iterdir())


def encoded(image: torch.Tensor) -> bytes:
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, files: list[bytes], labels: list[int]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (file, label) in enumerate(zip(files, labels, strict=True)):
            for ending, data in [("png", file), ("cls", str(label).encode())]:
                entry = tarfile.TarInfo(f"{number:06d}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))


def write_parquet(path: Path, files: list[bytes], labels: list[int]) -> None:
    from datasets import ClassLabel, Dataset, Features, disable_progress_bars
    from datasets import Image as ImageFeature

    disable_progress_bars()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(CLASS_NAMES))})
    cells = [{"bytes": file, "path": None} for file in files]
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(
        path, batch_size=256
    )


def read(source: str, options: Options) -> dict[str, float]:
    """Reads batches in the order of training."""
    torch.set_num_threads(1)
    config = DataConfig(source=source, size=options.side, stream=True, window=options.window)
    begun, before = time.perf_counter(), peak()
    train = open_images(config).train
    opened = time.perf_counter() - begun
    begun = time.perf_counter()
    for step in range(options.steps):
        train.batch(batch_indices(train.order, BATCH, 0, step))
        train.prefetch(batch_indices(train.order, BATCH, 0, step + 8))
    return {
        "images": len(train),
        "seconds_to_open": opened,
        "images_a_second": options.steps * BATCH / (time.perf_counter() - begun),
        "mib_held": peak() - before,
    }


def peak() -> float:
    """MiB of this process at its peak; unlike `ru_maxrss` without those of who started it."""
    status = Path("/proc/self/status").read_text().split()
    return float(status[status.index("VmHWM:") + 1]) / 1024


def main() -> None:
    options = tyro.cli(Options)
    found, rows = {}, []
    for kind in ("parquet", "tar"):
        for count in (options.dataset, 10 * options.dataset):
            folder = Path(tempfile.mkdtemp(prefix="vqvae2-shards-"))
            try:
                console.print(f"writing {count:,} images as {kind}")
                size = write_shards(folder, kind, options, count)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seen = pool.apply(read, (str(folder), options))
            finally:
                shutil.rmtree(folder)
            found[f"{kind} {count}"] = {**seen, "mib_on_disk": size / 2**20}
            rows.append(
                [kind, f"{seen['images']:,}", f"{size / 2**20:,.0f}",
                 f"{seen['seconds_to_open']:.1f}", f"{seen['images_a_second']:,.0f}",
                 f"{seen['mib_held']:.0f}"]
            )  # fmt: skip
    columns = ["shards", "images", "MiB on disk", "s to open", "images a second", "MiB held"]
    table("streamed", columns, rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
