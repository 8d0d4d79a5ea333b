"""The cost of streamed images: memory for one and for ten times the data, and images/s.

    python benchmarks/streaming.py --images 4000

Writes shards of built-in images, then reads equally many batches of each in a process of its own.
Memory is the peak of that process minus its memory at the start. Prints a table and writes JSON.
"""

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
from processes import in_process, peak_mib, write_results

from vqvae2.cli.display import console, table
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.order import batch_indices
from vqvae2.data.synthetic import CLASS_NAMES, labels_of, render

BATCH, IMAGES_PER_SHARD = 64, 2000


@dataclass(frozen=True)
class Options:
    """Measure streaming.

    Arguments:
        images: Number of images of the smaller set; the larger has ten times as many.
        side: Side of the images.
        window: Number of images that are shuffled together.
        steps: Number of batches of 64 that are read.
        out: JSON file.
    """

    images: int = 4000
    side: int = 64
    window: int = 2048
    steps: int = 200
    out: Path = Path("build/streaming.json")


def write_shards(folder: Path, kind: str, options: Options, count: int) -> int:
    """Writes `count` training images and one shard of 256 validation images; the bytes of all."""
    firsts = {f"train-{n:05d}": n for n in range(0, count, IMAGES_PER_SHARD)}
    for name, first in {**firsts, "val": count}.items():
        size = 256 if name == "val" else min(IMAGES_PER_SHARD, count - first)
        indices = range(first, first + size)
        labels = labels_of(indices, 0).tolist()
        files = [encoded(image) for image in render(indices, options.side, 0).images]
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
    start, before = time.perf_counter(), peak_mib()
    train = open_images(config).train
    seconds_to_open = time.perf_counter() - start
    start = time.perf_counter()
    for step in range(options.steps):
        train.batch(batch_indices(train.order, BATCH, 0, step))
        train.prefetch(batch_indices(train.order, BATCH, 0, step + 8))
    return {
        "images": len(train),
        "seconds_to_open": seconds_to_open,
        "images_per_second": options.steps * BATCH / (time.perf_counter() - start),
        "memory_mib": peak_mib() - before,
    }


def main() -> None:
    options = tyro.cli(Options)
    results, rows = {}, []
    for kind in ("parquet", "tar"):
        for count in (options.images, 10 * options.images):
            folder = Path(tempfile.mkdtemp(prefix="vqvae2-shards-"))
            try:
                console.print(f"writing {count:,} images as {kind}")
                size = write_shards(folder, kind, options, count)
                metrics = in_process(read, str(folder), options)
            finally:
                shutil.rmtree(folder)
            results[f"{kind} {count}"] = {**metrics, "mib_on_disk": size / 2**20}
            rows.append(
                [kind, f"{metrics['images']:,}", f"{size / 2**20:,.0f}",
                 f"{metrics['seconds_to_open']:.1f}", f"{metrics['images_per_second']:,.0f}",
                 f"{metrics['memory_mib']:.0f}"]
            )  # fmt: skip
    columns = ["shards", "images", "MiB on disk", "s to open", "images/s", "MiB of memory"]
    table("streaming", columns, rows)
    write_results(options.out, results)


if __name__ == "__main__":
    main()
