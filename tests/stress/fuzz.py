"""Fuzzing: what readers do with files that are almost, or not at all, what they should be.

    python benchmarks/fuzz.py             # or: make fuzz

Whole files of every kind are changed at random: bits, runs of bytes, cuts, insertions; fields of
JSON by values that nobody would write. Each must be read, or refused with one line and nothing
else, in a few seconds and without ending the process. Prints a table of counts and writes JSON;
inputs that broke a reader are kept.
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
from dataclasses import dataclass
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
from vqvae2.priors import Prior
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
"""Until a reader that does not answer counts as hanging."""

AT_ONCE = 250
"""Inputs a process; one that crashes costs no more than these."""

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.5, 1e308, -1e308, float("nan"),
    float("inf"), "", "x", "../../x", "\x00", "\x1b[2J", "é\ud800", [], {}, [[]], {"kind": "x"},
    [1, 2, 3], "a" * 100_000,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Count what readers do with broken files.

    Arguments:
        count: Inputs of each kind.
        kinds: images, shards, checkpoints, models, codes, configs.
        seed: Of the changes.
        out: JSON file; inputs that broke a reader go beside it.
    """

    count: int = 10_000
    kinds: tuple[str, ...] = ("images", "shards", "checkpoints", "models", "codes", "configs")
    seed: int = 0
    out: Path = Path("build/fuzz.json")


# Whole files


def small_run() -> RunConfig:
    """A run of models of a few kilobytes."""
    from dataclasses import replace

    run = demo()
    codebook = replace(run.autoencoder.model.codebooks[0], num_codes=8, code_size=4)
    model = replace(
        run.autoencoder.model,
        channels=8,
        residual_channels=4,
        num_residual_blocks=1,
        codebooks=(codebook,),
    )
    autoencoder = replace(run.autoencoder, model=model)
    small = {"channels": 8, "residual_channels": 4, "num_layers": 1, "num_output_blocks": 0}
    levels = tuple(
        replace(level, prior=replace(level.prior, num_conditioning_blocks=1, **small))
        for level in run.levels
    )
    data = DataConfig(size=16, synthetic_images=64)
    return replace(run, autoencoder=autoencoder, levels=levels, data=data, num_classes=12)


def dataset() -> list[bytes]:
    """Images of every kind that Pillow writes."""
    image = Image.fromarray(render([3], 24, 0).images[0].permute(1, 2, 0).numpy())
    turned = Image.Exif()
    turned[0x0112] = 6
    found = []
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("png", "RGB", {}), ("png", "RGBA", {}), ("png", "P", {}), ("png", "I;16", {}),
        ("jpeg", "RGB", {"exif": turned}), ("jpeg", "L", {"progressive": True}),
        ("gif", "P", {}), ("webp", "RGB", {}), ("bmp", "RGB", {}), ("tiff", "RGB", {}),
        ("tiff", "F", {}), ("ppm", "RGB", {}), ("avif", "RGB", {}),
    ]  # fmt: skip
    for kind, mode, options in kinds:
        file = io.BytesIO()
        shown = image.convert("I" if mode == "I;16" else mode).convert(mode)
        with contextlib.suppress(KeyError, OSError):  # a kind that this Pillow was built without
            shown.save(file, kind, **options)
            found.append(file.getvalue())
    return found


def write_models(folder: Path) -> None:
    """An autoencoder, priors, a checkpoint, codes and a config, whole."""
    run = small_run()
    torch.manual_seed(0)
    from vqvae2.autoencoder.vqvae import VQVAE

    autoencoder = VQVAE(run.autoencoder.model)
    known = code_fingerprint(autoencoder)
    save_autoencoder(folder / "autoencoder", autoencoder)
    for level, config in enumerate(run.levels):
        prior = Prior(config.prior, run.domain(level))
        save_prior(folder / "priors" / str(level), prior, known)
    tensors = {name: value for name, value in autoencoder.state_dict().items()}
    saved = checkpoint.Checkpoint(3, tensors, {"best": 0.5})
    checkpoint.write_checkpoint(folder / "step-00000003.safetensors", saved)
    data = open_images(run.data)
    levels = [codes.numpy() for codes in autoencoder.encode(data.train.batch(range(20)) / 255)]
    grids = tuple(run.grids())
    info = CodesInfo(autoencoder=known, dataset="x", grids=grids, num_images=20)
    write_shard(folder / "train-00000.parquet", info, levels, data.train.labels[:20].numpy())
    RunFolder(folder / "run").write_config(run)
    return run


def write_shards(folder: Path) -> list[Path]:
    """A shard to stream of each kind, each beside a validation one in a folder of its own."""
    batch = render(range(24), 16, 0)
    files, labels = [encoded(image) for image in batch.images], batch.labels.tolist()
    paths = []
    for kind, write in (("parquet", write_parquet), ("tar", write_tar)):
        own = folder / kind
        own.mkdir()
        write(own / f"train.{kind}", files[:16], labels[:16])
        write(own / f"val.{kind}", files[16:], labels[16:])
        paths.append(own / f"train.{kind}")
    return paths


# Changes


def changed(whole: bytes, dice: random.Random) -> bytes:
    """A file with one to four changes."""
    data = bytearray(whole)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        place = dice.randrange(len(data) + 1)
        # Where files tell of themselves is where changes tell.
        if dice.random() < 0.4:
            place = dice.choice((dice.randrange(64), len(data) - dice.randrange(64)))
        place = min(max(place, 0), len(data))
        length = min(dice.choice((1, 2, 4, 8, 64, 1000)), 1 + len(data) - place)
        match dice.randrange(7):
            case 0:
                del data[place:]
            case 1:
                del data[place : place + length]
            case 2:
                data[place : place + length] = dice.randbytes(length)
            case 3:
                data[place:place] = dice.randbytes(length)
            case 4:
                data[place : place + length] = bytes((dice.choice((0, 255, 127)),)) * length
            case 5:
                data[place:place] = data[: dice.randrange(len(data) + 1)]
            case _:
                if place < len(data):
                    data[place] ^= 1 << dice.randrange(8)
        data = data or bytearray(b"\0")
    return bytes(data)


def changed_json(whole: bytes, dice: random.Random) -> bytes:
    """JSON with odd values in some fields; now and then changed as any file."""
    if dice.random() < 0.25:
        return changed(whole, dice)
    if dice.random() < 0.01:
        return b"[" * 100_000
    document = json.loads(whole)
    for _ in range(dice.choice((1, 1, 2, 5))):
        holder, key = dice.choice(list(places(document)))
        match dice.randrange(8):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[dice.choice(("x", "kind", key + "s"))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 3 if isinstance(holder[key], int | float):
                holder[key] = holder[key] * dice.choice((-1, 2, 3, 1000, 10**6, 10**12))
            case _:
                holder[key] = copy.deepcopy(dice.choice(ODD))
        if not list(places(document)):
            break
    return json.dumps(document).encode(errors="surrogatepass")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of a JSON document."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


# Readers: each reads a changed file in the place of a whole one


def readers(kind: str, folder: Path) -> list[tuple[bytes, Callable[[bytes], object]]]:
    """Whole files of a kind, and what reads them."""
    if kind == "images":
        return [(whole, lambda data: decode_image(data, 16)) for whole in dataset()]

    def reader(path: Path, read: Callable[[], object]) -> tuple[bytes, Callable[[bytes], object]]:
        whole = path.read_bytes()

        def put_and_read(data: bytes) -> object:
            path.write_bytes(data)
            try:
                return read()
            finally:
                path.write_bytes(whole)

        return whole, put_and_read

    def stream(path: Path) -> object:
        config = DataConfig(source=str(path.parent), size=16, stream=True, window=64)
        train = open_images(config).train
        return train.batch(range(min(8, len(train))))

    if kind == "shards":
        return [reader(path, partial(stream, path)) for path in write_shards(folder)]
    write_models(folder)
    known = code_fingerprint(load_autoencoder(folder / "autoencoder"))
    prior, codes = folder / "priors" / "1", folder / "train-00000.parquet"
    grids = read_info(codes).grids

    def read_run() -> object:
        found = RunFolder(folder / "run").read()
        found.check()
        return found

    match kind:
        case "checkpoints":
            path = folder / "step-00000003.safetensors"
            return [
                reader(path, lambda: checkpoint.read_checkpoint(path)),
                reader(path, lambda: checkpoint.latest(folder)),
            ]
        case "models":
            return [
                reader(
                    folder / "autoencoder" / "model.safetensors",
                    lambda: load_autoencoder(folder / "autoencoder"),
                ),
                reader(prior / "model.safetensors", lambda: load_prior(prior, known)),
            ]
        case "codes":
            return [
                reader(codes, lambda: read_codes(folder, "train", known)),
                reader(codes, lambda: read_shard(codes, grids)),
            ]
    first = folder / "autoencoder"
    return [
        reader(folder / "run" / "config.json", read_run),
        reader(first / "config.json", lambda: load_autoencoder(first)),
        reader(prior / "config.json", lambda: load_prior(prior, known)),
    ]


def judge(read: Callable[[bytes], object], data: bytes) -> str:
    """What became of an input: "read", "refused", or what went wrong."""
    signal.alarm(SECONDS)
    try:
        read(data)
        return "read"
    except Hanging:
        return "hangs"
    except (ValueError, OSError, MemoryError) as error:
        return "refused" if "\n" not in str(error) else f"more than a line: {error!r:.80}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    finally:
        signal.alarm(0)


class Hanging(BaseException):
    """A reader took too long."""


def part(kind: str, seed: int, count: int, broken: Path, results: Any) -> None:
    """Some inputs of a kind; says what became of each as it goes."""

    def give_up(number: int, frame: object) -> None:
        raise Hanging

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, give_up)
    folder = Path(tempfile.mkdtemp(prefix="vqvae2-fuzz-"))
    os.environ["VQVAE2_CACHE"] = str(folder / "cache")
    try:
        made = readers(kind, folder)
        change = changed_json if kind == "configs" else changed
        for number in range(count):
            dice = random.Random(f"{kind} {seed} {number}")
            whole, read = dice.choice(made)
            data = change(whole, dice)
            path = broken / f"{kind}-{seed}-{number}"
            path.write_bytes(data)  # so that it is there if the process ends here
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = judge(read, data)
            results.put((kind, found))
            if found in ("read", "refused"):
                path.unlink()
    finally:
        shutil.rmtree(folder)


def main() -> None:
    options = tyro.cli(Options)
    broken = options.out.parent / "fuzz"
    broken.mkdir(parents=True, exist_ok=True)
    context, counts = multiprocessing.get_context("spawn"), {}
    for kind in options.kinds:
        count: Counter[str] = Counter()
        for seed, first in enumerate(range(0, options.count, AT_ONCE)):
            wanted = min(AT_ONCE, options.count - first)
            results = context.SimpleQueue()
            place = (kind, 1000 * options.seed + seed, wanted, broken, results)
            process = context.Process(target=part, args=place)
            process.start()
            found = []
            heard = time.monotonic()
            while process.is_alive() or not results.empty():
                if not results.empty():
                    found.append(results.get()[1])
                    heard = time.monotonic()
                elif time.monotonic() - heard > 3 * SECONDS:  # not even the alarm was heard
                    process.kill()
                else:
                    process.join(0.05)
            count.update(found)
            if process.exitcode or len(found) < wanted:
                count[f"the process ended with {process.exitcode}"] += 1
        counts[kind] = dict(count)
        console.print(f"{kind}: {dict(count.most_common())}")
    rows = []
    for kind, count_of in counts.items():
        wrong = sum(n for end, n in count_of.items() if end not in ("read", "refused"))
        total = sum(count_of.values())
        rows.append(
            [kind, f"{total:,}", f"{count_of.get('read', 0):,}", f"{count_of.get('refused', 0):,}",
             f"{wrong:,}"]
        )  # fmt: skip
    table("fuzzing", ["files", "inputs", "read", "refused in a line", "else"], rows)
    options.out.write_text(json.dumps(counts, indent=1) + "\n")
    if any(row[-1] != "0" for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
