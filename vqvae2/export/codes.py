"""Codes of images as a Parquet file that other programs read, and images from such a file.

One row per image: `name`, `label` (its number, -1 for none), `class` (its name, "" for none) and
`level_0`, `level_1`, ..., coarsest first, each the codes in raster order. The metadata key
`vqvae2` holds the code grids and the code fingerprint of the autoencoder, as JSON.

    datasets.Dataset.from_parquet("codes.parquet")

Legend: `B` batch, `N` images, `H W` grid.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import from_dict, to_dict
from vqvae2.data.codes import code_type
from vqvae2.data.images import ImageDataset
from vqvae2.export.progress import ExportProgress, grid_path, png_names
from vqvae2.files import write_bytes
from vqvae2.imaging.convert import to_float, to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.messages import one_line
from vqvae2.pipeline import Pipeline
from vqvae2.weights import code_fingerprint

FORMAT, VERSION = "vqvae2-image-codes", 1

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What a file that holds something else may raise."""

MAX_GRID_IMAGES, GRID_COLUMNS = 64, 8


@dataclass(frozen=True, kw_only=True)
class CodesHeader:
    """What the metadata of a file of codes say.

    Arguments:
        code_fingerprint: of the autoencoder.
        grids: one per level, coarsest first.
        image_size: side of the images, pixels.
    """

    code_fingerprint: str
    grids: tuple[CodeGrid, ...]
    image_size: int


@dataclass(frozen=True)
class ImageCodes:
    """The content of a file of codes.

    Arguments:
        header: of the file.
        names: of the images, N.
        levels: codes (N, H, W) int64 per level, coarsest first.
    """

    header: CodesHeader
    names: list[str]
    levels: list[Tensor]


def export_codes(
    pipeline: Pipeline, dataset: ImageDataset, path: Path, batch_size: int = 64
) -> Iterator[ExportProgress]:
    """Encodes images and writes their codes into a Parquet file.

    Arguments:
        pipeline: A model; it needs no priors.
        dataset: The images; their sub-folders name their classes.
        path: The file.
        batch_size: Number of images at a time.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    size, total = dataset.size, len(dataset)
    header = CodesHeader(
        code_fingerprint=code_fingerprint(pipeline.autoencoder),
        grids=tuple(pipeline.autoencoder.config.grids(size, size)),
        image_size=size,
    )
    parts: list[list[Tensor]] = []
    for indices in torch.arange(total).split(batch_size):
        codes = pipeline.encode_batch(to_float(dataset.batch(indices)))
        parts.append([level.cpu() for level in codes])
        yield ExportProgress(sum(len(part[0]) for part in parts), total)
    classes = [name.rsplit("/", 2)[-2] if "/" in name else "" for name in dataset.names]
    known = {name: number for number, name in enumerate(pipeline.config.class_names)}
    columns = {
        "name": pyarrow.array(list(dataset.names)),
        "label": pyarrow.array([known.get(name, -1) for name in classes], pyarrow.int64()),
        "class": pyarrow.array(classes),
    }
    for level, (maps, grid) in enumerate(zip(zip(*parts, strict=True), header.grids, strict=True)):
        flat = torch.cat(maps).numpy().astype(code_type(grid)).reshape(-1)
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), grid.num_positions)
        columns[f"level_{level}"] = lists
    document = {"format": FORMAT, "version": VERSION, **to_dict(header)}
    table = pyarrow.table(columns).replace_schema_metadata({"vqvae2": json.dumps(document)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, write_page_checksum=True)
    write_bytes(path, buffer.getvalue())
    yield ExportProgress(total, total, (path,))


def read_image_codes(path: Path) -> ImageCodes:
    """The content of a file that `export_codes` wrote.

    Raises:
        ValueError: the file is missing, damaged or of another kind.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise ValueError(f"There is no file {path}; give one that `vqvae2 encode` wrote.")
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        document = json.loads((table.schema.metadata or {})[b"vqvae2"])
        version = document.pop("format"), document.pop("version")
        if version != (FORMAT, VERSION):
            raise ValueError(f"it holds {version[0]} version {version[1]}")
        header = from_dict(CodesHeader, document, str(path))
        levels = []
        for level, grid in enumerate(header.grids):
            flat = table[f"level_{level}"].combine_chunks().flatten().to_numpy()
            levels.append(torch.from_numpy(flat.astype(np.int64)).reshape(-1, *grid.shape))
        return ImageCodes(header, table["name"].to_pylist(), levels)
    # Columns of another type do not raise Arrow's errors.
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        reason = one_line(error)[:150]
        raise ValueError(
            f"{path} has no codes of images ({reason}); give a file that `vqvae2 encode` wrote."
        ) from None


def export_decoded(
    pipeline: Pipeline, codes: ImageCodes, folder: Path, batch_size: int = 64, source: str = ""
) -> Iterator[ExportProgress]:
    """Decodes codes, writes the images into `folder` and a grid of some of them beside it.

    Arguments:
        pipeline: The model that made the codes.
        codes: Of any number of images.
        folder: Where the files NAME.png are written, with the sub-folders of the images.
        batch_size: Number of images at a time.
        source: Name of the model; every file stores it.

    Raises:
        ValueError: the codes are of another autoencoder.
    """
    expected = code_fingerprint(pipeline.autoencoder)
    if codes.header.code_fingerprint != expected:
        raise ValueError(
            f"These codes were made by an autoencoder with code fingerprint "
            f"{codes.header.code_fingerprint}, and this model has {expected}; decode them with "
            "the model that encoded them."
        )
    total, names, first = len(codes.names), png_names(codes.names), list[Tensor]()
    settings = {"run": source, "decoder": pipeline.decoder_in_use}
    for indices in torch.arange(total).split(batch_size):
        images = pipeline.decode([level[indices] for level in codes.levels]).cpu()
        paths = []
        for index, image in zip(indices.tolist(), images, strict=True):
            paths.append(folder / f"{names[index]}.png")
            save_png(paths[-1], to_pil(image), {**settings, "source": codes.names[index]})
        first += images[: MAX_GRID_IMAGES - len(first)]
        yield ExportProgress(int(indices[-1]) + 1, total, tuple(paths))
    rows = torch.stack(first).split(GRID_COLUMNS)
    path = grid_path(folder)
    save_png(path, image_grid(rows))
    yield ExportProgress(total, total, (path,))
