"""`vqvae2 redraw`: completions and variations of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, count, monitor
from vqvae2.cli.options import parse
from vqvae2.cli.sample import at_least_one, drawing, open_pipeline, output_folder
from vqvae2.configuration import JsonObject, to_json
from vqvae2.data.images import ImageDataset, load_folder
from vqvae2.imaging.convert import to_float, to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.pipeline import Pipeline
from vqvae2.sampling import UNKNOWN, Box, erase

ROWS_ON_A_SHEET = 12
WHOLE: Box = (0, 0, 1, 1)
LOWER_HALF: Box = (0, 0.5, 1, 1)


@dataclass(frozen=True)
class Options:
    """Draw a part of images anew, by default their lower half.

    With --keep-levels 1 the coarsest codes stay and the rest is drawn: variations of a image.

    Arguments:
        run: A run folder, or a folder or hub name of a saved pipeline.
        images: A folder of images; a sub-folder named as a class says their class.
        box: Left, top, right, bottom of the part, in parts of the sides: 0 0.5 1 1 is the lower
            half; with --keep-levels everything by default.
        keep_levels: So many of the coarsest levels are kept everywhere.
        class_name: Class of all the images, where no sub-folder says it.
        count: Versions of each image.
        seed: Of the first version; the next have the next seeds.
        temperature: One for all levels or one a level, coarsest first; 0 takes the likeliest.
        top_k: Draw from the most probable codes only; likewise.
        top_p: Draw from the codes that together have this probability; likewise.
        out: Where to; RUN/redrawn by default, ./redrawn for a pipeline that is no run.
        batch: Images at a time; bounds memory, changes no image.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    box: tuple[float, ...] = ()
    keep_levels: int = 0
    class_name: Annotated[str, tyro.conf.arg(name="class", metavar="NAME")] = ""
    count: int = 4
    seed: int = 0
    temperature: tuple[float, ...] = ()
    top_k: tuple[int, ...] = ()
    top_p: tuple[float, ...] = ()
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    batch: int = 64
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses and redraws."""
    options = parse(Options, "inpaint", arguments)
    at_least_one("count", options.count)
    at_least_one("batch", options.batch)
    pipeline = open_pipeline(options.run).to(resolve(options.device))
    sampling = drawing(pipeline, options.temperature, options.top_k, options.top_p)
    box = part(options)
    out = Path(options.out) if options.out else output_folder(options.run, "redrawn")
    grid = out.with_name(f"{out.name}-sheet.png")
    seeds = [options.seed + i for i in range(options.count)]
    rows: list[Tensor] = []
    with monitor() as view:
        size = pipeline.config.image_size
        dataset = load_folder(options.images, size, progress=view.track)
        labels = classes(pipeline, dataset, options.class_name)
        inference_batch_size = max(1, options.batch // options.count)
        for indices in torch.split(torch.arange(len(dataset)), inference_batch_size):
            images = to_float(dataset.batch(indices))
            versions = pipeline.inpaint(
                images.repeat_interleave(options.count, dim=0),
                labels[indices].repeat_interleave(options.count),
                seeds * len(images),
                box=box,
                keep_levels=options.keep_levels,
                sampling=sampling,
                batch=options.batch,
            ).images.cpu()
            for index, image, drawn in zip(
                indices.tolist(), images, versions.split(options.count), strict=True
            ):
                for seed, version in zip(seeds, drawn, strict=True):
                    settings: JsonObject = {
                        "run": options.run,
                        "source": dataset.name(index),
                        "box": list(box),
                        "keep_levels": options.keep_levels,
                        "seed": seed,
                        "sampling": to_json(tuple(sampling)),
                    }
                    # The whole name with its folders: two may differ in nothing else.
                    name = f"{dataset.name(index)}-{seed:05d}.png"
                    save_png(out / name, to_pil(version), settings)
                if len(rows) < ROWS_ON_A_SHEET:
                    rows.append(
                        torch.cat([kept(pipeline, image, box, options.keep_levels), drawn])
                    )
            view.track("redrawing", int(indices[-1]) + 1, len(dataset))
    for name, reason in dataset.reasons.items():
        console.print(f"skipped {name}: {reason}", style="yellow")
    titles = ["image", "kept", *(f"seed {seed}" for seed in seeds)]
    save_png(grid, image_grid(rows, titles=titles, scale=max(1, 96 // size)))
    console.print(f"{count(len(dataset) * options.count, 'image')} in {out}, on {grid}")


def part(options: Options) -> Box:
    """The box that the options mean."""
    if not options.box:
        return WHOLE if options.keep_levels else LOWER_HALF
    if len(options.box) != 4:
        raise ValueError(
            f"--box takes left, top, right and bottom, got {len(options.box)} numbers."
        )
    left, top, right, bottom = options.box
    return left, top, right, bottom


def classes(pipeline: Pipeline, dataset: ImageDataset, name: str) -> Tensor:
    """The images' labels: of `name`, or of the sub-folder that each lies in."""
    known = pipeline.config.class_names
    if name or not known:
        return pipeline.labels([name or 0] * len(dataset))
    folders = [Path(dataset.name(index)).parent.name for index in range(len(dataset))]
    strange = next((i for i, folder in enumerate(folders) if folder not in known), None)
    if strange is not None:
        raise ValueError(
            f"{dataset.name(strange)} lies in no sub-folder that is named as a class; give "
            f"--class NAME, one of {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}."
        )
    return pipeline.labels(folders)


def kept(pipeline: Pipeline, image: Tensor, box: Box, keep_levels: int) -> Tensor:
    """A image, and what of it is kept, (2, C, S, S).

    Whole cells of codes are drawn anew: grey, or what the kept levels alone draw there.
    """
    codes = pipeline.encode(image[None])
    height, width = codes[keep_levels].shape[1:3]
    cells = erase(torch.zeros(1, height, width), box) == UNKNOWN
    covered = F.interpolate(cells[None].float(), size=image.shape[1:])[0] > 0
    below = torch.full_like(image, 0.5)
    if keep_levels:
        below = pipeline.decode(codes, range(keep_levels))[0].cpu()
    return torch.stack([image, torch.where(covered, below, image)])
