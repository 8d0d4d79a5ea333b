"""Images to codes: images/s of each part, of all parts in turn, and of the overlapped whole.

    python benchmarks/extraction.py --images data/imagenette128 --size 128
    python benchmarks/extraction.py --run runs/cifar10

With `--images`: decoding files, encoding decoded images and writing a shard alone, then all three
one after the other, batch by batch, then `extract_shard`, which overlaps them. The last two must
write the same bytes. They alternate, and the fastest repetition counts. The script also runs
beside another version of the package (PYTHONPATH), whose `extract_shard` it then measures.

With `--run`: all codes of a trained run, by the stage of a run: one process with one thread, with
two, and two processes (gloo) with one thread each. All must write the same bytes; listing and
decoding the images is included. Prints a table and writes JSON.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
import tyro
from processes import in_processes, write_results
from torch import Tensor

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import console, table
from vqvae2.data import extraction
from vqvae2.data.codes import CodesInfo, write_shard
from vqvae2.data.extraction import describe_codes, extract_shard
from vqvae2.data.images import ImageDataset, load_images, open_images
from vqvae2.data.order import inference_batch_size
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import find_preset
from vqvae2.training.extraction import ExtractionStage
from vqvae2.training.session import TrainingSession, new_accelerator
from vqvae2.training.stages import train_run
from vqvae2.weights import load_autoencoder

FORMS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes": (2, 1)}
"""Number of processes, and of threads of each."""


@dataclass(frozen=True)
class Options:
    """Measure extraction.

    Arguments:
        run: A run folder with a trained autoencoder.
        images: A folder of images to extract the codes of.
        size: Side to which they are resized, pixels.
        preset: Whose autoencoder is used with `--images` and without `--run`, untrained.
        limit: Images, at most; 8,192 make a shard.
        in_memory: Decode the images beforehand, so that decoding is a copy.
        repeats: Of each measurement.
        out: JSON file.
    """

    run: Path | None = None
    images: Path | None = None
    size: int = 64
    preset: str = "images64"
    limit: int = 2000
    in_memory: bool = False
    repeats: int = 3
    out: Path = Path("build/extraction.json")


# --- the parts


def new_autoencoder(options: Options, images: Tensor) -> VQVAE:
    """That of the run, or an untrained one whose codebooks have started from images."""
    if options.run is not None:
        model = load_autoencoder(RunFolder(options.run).autoencoder)
        assert isinstance(model, VQVAE)
        return model
    torch.manual_seed(0)
    config = find_preset(options.preset)().autoencoder.model
    model = config.build().eval()
    assert isinstance(model, VQVAE)
    model.start_codebooks(images, torch.Generator().manual_seed(0))
    return model


@dataclass
class Parts:
    """The work of one shard.

    Arguments:
        model: Encodes the images.
        dataset: The images.
        info: Of the shard.
        indices: Of the images in the shard.
        folder: Where shards are written.
    """

    model: VQVAE
    dataset: ImageDataset
    info: CodesInfo
    indices: Tensor
    folder: Path

    def __post_init__(self) -> None:
        self.batches = self.indices.split(inference_batch_size(self.dataset.size))
        self.pixels = list(map(self.dataset.batch, self.batches))
        self.codes = self.join(list(map(self.encode_batch, self.pixels)))

    @torch.no_grad()
    def encode_batch(self, pixels: Tensor) -> list[Tensor]:
        """Codes of images (B, 3, S, S) uint8."""
        return self.model.encode(pixels.float() / 255)

    def join(self, batches: list[list[Tensor]]) -> list[Tensor]:
        """The codes of all batches."""
        return [torch.cat(maps) for maps in zip(*batches, strict=True)]

    def decode(self) -> None:
        """Decodes all images."""
        for part in self.batches:
            self.dataset.batch(part)

    def encode(self) -> None:
        """Encodes images that are decoded."""
        for pixels in self.pixels:
            self.encode_batch(pixels)

    def write(self) -> None:
        """Writes codes that are there."""
        self.write_codes(self.folder / "written.parquet", self.codes)

    def write_codes(self, path: Path, codes: list[Tensor]) -> None:
        """Writes one shard."""
        levels = [maps.numpy() for maps in codes]
        write_shard(path, self.info, levels, self.dataset.labels[self.indices].numpy())

    def in_turn(self) -> None:
        """Decodes and encodes batch after batch, then writes."""
        batches = [self.encode_batch(self.dataset.batch(part)) for part in self.batches]
        self.write_codes(self.folder / "in-turn.parquet", self.join(batches))

    def overlapped(self) -> None:
        """The extraction of the package."""
        path = self.folder / "overlapped.parquet"
        path.unlink(missing_ok=True)
        for _ in extract_shard(self.model, self.dataset, self.info, path, 0):
            pass


def seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_parts(options: Options) -> None:
    assert options.images is not None
    # Without memory for the images they are decoded when they are used.
    memory = 1e3 if options.in_memory else 0.0
    dataset = load_images(options.images, options.size, memory_gib=memory)
    count = min(options.limit, len(dataset))
    first = dataset.batch(torch.arange(64) * len(dataset) // 64).float() / 255
    model = new_autoencoder(options, first)
    info = describe_codes(model, dataset)
    extraction.IMAGES_PER_SHARD = count
    with tempfile.TemporaryDirectory(prefix="vqvae2-extraction-") as folder:
        parts = Parts(model, dataset, info, torch.arange(count), Path(folder))
        best: dict[str, float] = {}
        works = {
            "decode": parts.decode, "encode": parts.encode, "write": parts.write,
            "in turn": parts.in_turn, "extract_shard": parts.overlapped,
        }  # fmt: skip
        for _ in range(options.repeats):
            for name, work in works.items():
                best[name] = min(best.get(name, float("inf")), seconds(work))
        shards = [(Path(folder) / name).read_bytes() for name in SHARDS]
    best["sum of the parts"] = best["decode"] + best["encode"] + best["write"]
    best["same bytes"] = shards[0] == shards[1]
    rows = [
        [name, f"{1000 * best[name] / count:.2f}", f"{count / best[name]:,.0f}",
         f"{best['in turn'] / best[name]:.2f}"]
        for name in (*list(works)[:3], "sum of the parts", *list(works)[3:])
    ]  # fmt: skip
    side, threads = options.size, torch.get_num_threads()
    title = f"{count:,} images at {side}x{side}, {threads} threads"
    table(title, ["part", "ms per image", "images/s", "times in turn"], rows)
    write_results(options.out, {"images": count, "seconds": best})
    console.print("same bytes" if best["same bytes"] else "The two shards differ.")
    raise SystemExit(not best["same bytes"])


SHARDS = ("in-turn.parquet", "overlapped.parquet")


# --- the stage of a run


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


def measure_processes(run: Path, out: Path) -> None:
    config = RunFolder(run).read()
    results, checksums, rows = {}, [], []
    for name, (num_processes, num_threads) in FORMS.items():
        metrics, shards = measure(run, num_processes, num_threads)
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
    write_results(out, results)
    if any(shards != checksums[0] for shards in checksums):
        console.print("The shards of two processes are not those of one.")
        raise SystemExit(1)


def main() -> None:
    options = tyro.cli(Options)
    if options.images is not None:
        measure_parts(options)
    elif options.run is not None:
        measure_processes(options.run, options.out)
    else:
        raise SystemExit("Give --images, --run or both.")


if __name__ == "__main__":
    main()
