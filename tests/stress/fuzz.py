"""Fuzzing: random changes of every kind of file that the package reads.

    python tests/stress/fuzz.py           # or: make fuzz

Valid files are changed at random: bits, runs of bytes, cuts, insertions; in JSON also fields that
get unusual values. Each changed file must be read, or refused with an error of one line, within
some seconds and without ending the process. Prints a table of counts and writes JSON; inputs that
broke a reader are saved.
"""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from streaming import encoded, write_parquet, write_tar

from vqvae2.cli.display import console, table
from vqvae2.data.codes import CodesInfo, read_codes, read_info, read_shard, write_shard
from vqvae2.data.config import DataConfig
from vqvae2.data.decode import decode_image
from vqvae2.data.images import open_images
from vqvae2.data.synthetic import render
from vqvae2.priors import GatedPixelCNNConfig, Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import demo
from vqvae2.training import checkpoint
from vqvae2.weights import (
    code_fingerprint,
    load_autoencoder,
    load_prior,
    save_autoencoder,
    save_prior,
)

SECONDS = 20
"""A reader that takes longer counts as hanging."""

INPUTS_PER_PROCESS = 250
"""One that ends its process costs no more than these."""

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.5, 1e308, -1e308, float("nan"),
    float("inf"), "", "x", "../../x", "\x00", "\x1b[2J", "é\ud800", [], {}, [[]], {"kind": "x"},
    [1, 2, 3], "a" * 100_000,
)  # fmt: skip

ReaderCase = tuple[bytes, Callable[[bytes], object]]
"""A valid file, and a function that reads a changed one in its place."""


@dataclass(frozen=True)
class Options:
    """Count how readers treat changed files.

    Arguments:
        count: Number of inputs of each kind.
        kinds: images, shards, checkpoints, models, codes, configs.
        seed: Seed of the changes.
        out: JSON file; inputs that broke a reader are written beside it.
    """

    count: int = 10_000
    kinds: tuple[str, ...] = ("images", "shards", "checkpoints", "models", "codes", "configs")
    seed: int = 0
    out: Path = Path("build/fuzz.json")


# Valid files


def small_run() -> RunConfig:
    """A run with models of a few kilobytes."""
    run = demo()
    codebooks = tuple(
        replace(codebook, num_codes=8, code_size=4) for codebook in run.autoencoder.model.codebooks
    )
    sizes = {"channels": 8, "residual_channels": 4}
    model = replace(run.autoencoder.model, num_residual_blocks=1, codebooks=codebooks, **sizes)
    prior = GatedPixelCNNConfig(
        num_layers=1, num_output_blocks=0, num_conditioning_blocks=1, kernel=3, **sizes
    )
    levels = tuple(replace(level, prior=prior) for level in run.levels)
    autoencoder = replace(run.autoencoder, model=model)
    data = DataConfig(size=16, synthetic_images=64)
    return replace(run, autoencoder=autoencoder, levels=levels, data=data, num_classes=12)


def image_bytes() -> list[bytes]:
    """Files of every format that Pillow writes."""
    image = Image.fromarray(render([3], 24, 0).images[0].permute(1, 2, 0).numpy())
    rotated = Image.Exif()
    rotated[0x0112] = 6
    formats: list[tuple[str, str, dict[str, Any]]] = [
        ("png", "RGB", {}), ("png", "RGBA", {}), ("png", "P", {}), ("png", "I;16", {}),
        ("jpeg", "RGB", {"exif": rotated}), ("jpeg", "L", {"progressive": True}),
        ("gif", "P", {}), ("webp", "RGB", {}), ("bmp", "RGB", {}), ("tiff", "RGB", {}),
        ("tiff", "F", {}), ("ppm", "RGB", {}), ("avif", "RGB", {}),
    ]  # fmt: skip
    files = []
    for name, mode, options in formats:
        file = io.BytesIO()
        converted = image.convert("I" if mode == "I;16" else mode).convert(mode)
        with contextlib.suppress(KeyError, OSError):  # a format that this Pillow does not have
            converted.save(file, name, **options)
            files.append(file.getvalue())
    return files


def write_models(folder: Path) -> str:
    """Writes an autoencoder, priors, a checkpoint, codes and a config; the code fingerprint."""
    run = small_run()
    torch.manual_seed(0)
    autoencoder = run.autoencoder.model.build()
    digest = code_fingerprint(autoencoder)
    save_autoencoder(folder / "autoencoder", autoencoder)
    for level, config in enumerate(run.levels):
        prior = Prior(config.prior, run.domain(level))
        save_prior(folder / "priors" / str(level), prior, digest)
    saved = checkpoint.Checkpoint(3, dict(autoencoder.state_dict()), {"best": 0.5})
    checkpoint.write_checkpoint(folder / "step-00000003.safetensors", saved)
    train = open_images(run.data).train
    levels = [codes.numpy() for codes in autoencoder.encode(train.batch(range(20)) / 255)]
    grids = tuple(run.grids())
    info = CodesInfo(autoencoder=digest, dataset="x", grids=grids, num_images=20)
    write_shard(folder / "train-00000.parquet", info, levels, train.labels[:20].numpy())
    RunFolder(folder / "run").write_config(run)
    return digest


def write_shards(folder: Path) -> list[Path]:
    """Writes shards of images of each kind; the training shards."""
    batch = render(range(24), 16, 0)
    files, labels = [encoded(image) for image in batch.images], batch.labels.tolist()
    paths = []
    for kind, write in (("parquet", write_parquet), ("tar", write_tar)):
        (folder / kind).mkdir()
        write(folder / kind / f"train.{kind}", files[:16], labels[:16])
        write(folder / kind / f"val.{kind}", files[16:], labels[16:])
        paths.append(folder / kind / f"train.{kind}")
    return paths


# Changes


def changed(valid: bytes, dice: random.Random) -> bytes:
    """A file with one to four changes."""
    data = bytearray(valid)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        start = dice.randrange(len(data) + 1)
        # Headers and footers are where changes matter most.
        if dice.random() < 0.4:
            start = dice.choice((dice.randrange(64), len(data) - dice.randrange(64)))
        start = min(max(start, 0), len(data))
        length = min(dice.choice((1, 2, 4, 8, 64, 1000)), 1 + len(data) - start)
        match dice.randrange(7):
            case 0:
                del data[start:]
            case 1:
                del data[start : start + length]
            case 2:
                data[start : start + length] = dice.randbytes(length)
            case 3:
                data[start:start] = dice.randbytes(length)
            case 4:
                data[start : start + length] = bytes((dice.choice((0, 255, 127)),)) * length
            case 5:
                data[start:start] = data[: dice.randrange(len(data) + 1)]
            case _:
                if start < len(data):
                    data[start] ^= 1 << dice.randrange(8)
        data = data or bytearray(b"\0")
    return bytes(data)


def changed_json(valid: bytes, dice: random.Random) -> bytes:
    """JSON with odd values in some fields; sometimes changed as any other file."""
    if dice.random() < 0.25:
        return changed(valid, dice)
    if dice.random() < 0.01:
        return b"[" * 100_000
    document = json.loads(valid)
    for _ in range(dice.choice((1, 1, 2, 5))):
        parent, key = dice.choice(list(fields(document)))
        match dice.randrange(8):
            case 0 if isinstance(parent, dict):
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[dice.choice(("x", "kind", key + "s"))] = parent.pop(key)
            case 2 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case 3 if isinstance(parent[key], int | float):
                parent[key] = parent[key] * dice.choice((-1, 2, 3, 1000, 10**6, 10**12))
            case _:
                parent[key] = copy.deepcopy(dice.choice(ODD_VALUES))
        if not list(fields(document)):
            break
    return json.dumps(document).encode(errors="surrogatepass")


def fields(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (parent, key) of a JSON document."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in list(keys):
        yield value, key
        yield from fields(value[key])


# Readers


def in_place_of(path: Path, read: Callable[[], object]) -> ReaderCase:
    """A valid file, and a reader that first writes changed bytes in its place."""
    valid = path.read_bytes()

    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return read()
        finally:
            path.write_bytes(valid)

    return valid, write_and_read


def reader_cases(kind: str, folder: Path) -> list[ReaderCase]:
    """The valid files of a kind with their readers."""
    if kind == "images":
        return [(valid, lambda data: decode_image(data, 16)) for valid in image_bytes()]
    if kind == "shards":
        return [in_place_of(path, partial(stream, path)) for path in write_shards(folder)]
    digest = write_models(folder)
    autoencoder, prior = folder / "autoencoder", folder / "priors" / "1"
    codes, state = folder / "train-00000.parquet", folder / "step-00000003.safetensors"
    grids = read_info(codes).grids
    load = partial(load_autoencoder, autoencoder)
    cases = {
        "checkpoints": [
            (state, lambda: checkpoint.read_checkpoint(state)),
            (state, lambda: checkpoint.latest(folder)),
        ],
        "models": [
            (autoencoder / "model.safetensors", load),
            (prior / "model.safetensors", lambda: load_prior(prior, digest)),
        ],
        "codes": [
            (codes, lambda: read_codes(folder, "train", digest)),
            (codes, lambda: read_shard(codes, grids)),
        ],
        "configs": [
            (folder / "run" / "config.json", lambda: RunFolder(folder / "run").read().check()),
            (autoencoder / "config.json", load),
            (prior / "config.json", lambda: load_prior(prior, digest)),
        ],
    }
    return [in_place_of(path, read) for path, read in cases[kind]]


def stream(path: Path) -> object:
    """Reads images of the shards beside `path`."""
    config = DataConfig(source=str(path.parent), size=16, stream=True, window=64)
    train = open_images(config).train
    return train.batch(range(min(8, len(train))))


class Timeout(BaseException):
    """A reader took too long."""


def outcome_of(read: Callable[[bytes], object], data: bytes) -> str:
    """What became of an input: "read", "refused", or what went wrong."""
    signal.alarm(SECONDS)
    try:
        read(data)
        return "read"
    except Timeout:
        return "hangs"
    except (ValueError, OSError, MemoryError) as error:
        return "refused" if "\n" not in str(error) else f"more than one line: {error!r:.80}"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    finally:
        signal.alarm(0)


def fuzz_part(kind: str, seed: int, count: int, broken: Path, outcomes: Any) -> None:
    """Tries some inputs of a kind, and puts the outcome of each into a queue."""

    def raise_timeout(number: int, frame: object) -> None:
        raise Timeout

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, raise_timeout)
    folder = Path(tempfile.mkdtemp(prefix="vqvae2-fuzz-"))
    os.environ["VQVAE2_CACHE"] = str(folder / "cache")
    try:
        cases = reader_cases(kind, folder)
        change = changed_json if kind == "configs" else changed
        for number in range(count):
            dice = random.Random(f"{kind} {seed} {number}")
            valid, read = dice.choice(cases)
            data = change(valid, dice)
            path = broken / f"{kind}-{seed}-{number}"
            path.write_bytes(data)  # so that it is there if the process ends here
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = outcome_of(read, data)
            outcomes.put(outcome)
            if outcome in ("read", "refused"):
                path.unlink()
    finally:
        shutil.rmtree(folder)


def fuzz(kind: str, options: Options, broken: Path) -> Counter[str]:
    """Tries all inputs of a kind, in processes that may crash; counts of outcomes."""
    context, counts = multiprocessing.get_context("spawn"), Counter[str]()
    for part, first in enumerate(range(0, options.count, INPUTS_PER_PROCESS)):
        count = min(INPUTS_PER_PROCESS, options.count - first)
        queue, outcomes = context.SimpleQueue(), []
        arguments = (kind, 1000 * options.seed + part, count, broken, queue)
        process = context.Process(target=fuzz_part, args=arguments)
        process.start()
        last = time.monotonic()
        while process.is_alive() or not queue.empty():
            if not queue.empty():
                outcomes.append(queue.get())
                last = time.monotonic()
            elif time.monotonic() - last > 3 * SECONDS:  # not even the alarm ended the reader
                process.kill()
            else:
                process.join(0.05)
        counts.update(outcomes)
        if process.exitcode or len(outcomes) < count:
            counts[f"the process ended with {process.exitcode}"] += 1
    return counts


def main() -> None:
    options = tyro.cli(Options)
    broken = options.out.parent / "fuzz"
    broken.mkdir(parents=True, exist_ok=True)
    results, rows, num_wrong = {}, [], 0
    for kind in options.kinds:
        counts = fuzz(kind, options, broken)
        results[kind] = dict(counts)
        console.print(f"{kind}: {dict(counts.most_common())}")
        read, refused, total = counts["read"], counts["refused"], counts.total()
        num_wrong += total - read - refused
        numbers = (total, read, refused, total - read - refused)
        rows.append([kind, *(f"{number:,}" for number in numbers)])
    table("fuzzing", ["files", "inputs", "read", "refused in one line", "wrong"], rows)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(min(1, num_wrong))


if __name__ == "__main__":
    main()
