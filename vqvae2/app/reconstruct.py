"""The tab Reconstruct: what the codes of an image keep, all together and level by level."""

from typing import TYPE_CHECKING

import gradio as gr
from torch import Tensor

from vqvae2.app import fragments
from vqvae2.app.fragments import Picture
from vqvae2.app.page import Page, on, require_image
from vqvae2.autoencoder import Pixels
from vqvae2.imaging.colormaps import code_map, difference
from vqvae2.metrics.describe import format_metric
from vqvae2.metrics.distortion import measure_pairs
from vqvae2.pipeline import Pipeline

if TYPE_CHECKING:
    from PIL.Image import Image

HINT = "Drop an image, or send one from another tab."


def reconstruct(pipeline: Pipeline, image: "Image | None") -> str:
    """Everything about the codes of an image, as HTML."""
    original = pipeline.batch_of(require_image(image))
    codes = pipeline.encode(original)
    plain = pipeline.decode(codes, decoder="plain")
    images = {"plain decoder": plain}
    if pipeline.sharp_decoder is not None:
        images["sharp decoder"] = pipeline.decode(codes, decoder="sharp")
    parts = ["<h3>Drag the border</h3>", sliders(original, images)]
    if isinstance(pipeline.autoencoder, Pixels):
        parts.append(fragments.note("This model has pixels in place of codes: nothing is lost."))
        return "".join(parts)
    parts += [
        fragments.table(["decoder", "PSNR (dB)", "SSIM", "MSE"], quality(original, images)),
        fragments.facts(size_of_codes(pipeline)),
        fragments.rows(rows_of(pipeline, original, codes, images)),
    ]
    return "".join(parts)


def sliders(original: Tensor, images: dict[str, Tensor]) -> str:
    """Each decoding against the image, and both decodings against one another."""
    left = Picture(original[0], "the image", "image")
    pictures = [
        Picture(image[0], f"decoded by the {name}", name) for name, image in images.items()
    ]
    pairs = [fragments.compared(left, picture) for picture in pictures]
    if len(pictures) == 2:
        pairs.append(fragments.compared(*pictures))
    return f'<div class="vq-gallery large">{"".join(pairs)}</div>'


def quality(original: Tensor, images: dict[str, Tensor]) -> list[list[str]]:
    """The errors of each decoding."""
    lines = []
    for name, image in images.items():
        errors = measure_pairs([(original, image)])
        metrics = ("psnr_db", "ssim", "mse")
        lines.append([name, *(format_metric(metric, errors.get(metric)) for metric in metrics)])
    return lines


def size_of_codes(pipeline: Pipeline) -> dict[str, str]:
    """How many bits the codes take where each takes log2 K of them."""
    config, size = pipeline.autoencoder.config, pipeline.config.image_size
    grids = config.grids(size, size)
    bits = sum(grid.bits for grid in grids)
    dimensions = config.image_channels * size * size
    return {
        "codes": "; ".join(f"level {level}: {grid}" for level, grid in enumerate(grids)),
        "size of the codes": f"{bits:,.0f} bits ({bits / 8:,.0f} bytes)",
        "per image dimension": f"{bits / dimensions:.3f} bits, the image has 8",
    }


def rows_of(
    pipeline: Pipeline, original: Tensor, codes: list[Tensor], images: dict[str, Tensor]
) -> dict[str, list[Picture]]:
    """Images of the levels, of their codes, and of the errors."""
    size = pipeline.config.image_size
    grids = pipeline.autoencoder.config.grids(size, size)
    alone = [
        Picture(
            pipeline.decode(codes, [level], "plain")[0],
            f"The image decoded from level {level} alone",
            f"level {level}",
        )
        for level in range(len(codes))
    ]
    maps = [
        Picture(
            code_map(codes[level], grid.num_codes)[0],
            f"Map of the codes of level {level}, one colour per code",
            f"level {level}, {grid}",
        )
        for level, grid in enumerate(grids)
    ]
    errors = [
        Picture(difference(original, image)[0].cpu(), f"Error of the {name}", name)
        for name, image in images.items()
    ]
    rows = {"Where it differs (black: equal, white: 30 % or more)": errors}
    if len(codes) > 1:
        rows["What each level carries alone"] = alone
    return {**rows, "The codes: one fixed colour per code": maps}


def build(page: Page) -> None:
    """The tab."""
    catalogue = page.catalogue
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            image = page.image_input("reconstruct", "Image", "reconstruct")
            page.send_button("Edit it", require_image, [image.state], "edit")
            page.send_button("Its likelihood", require_image, [image.state], "likelihood")
        with gr.Column(scale=3, min_width=280):
            result = gr.HTML(fragments.note(HINT), elem_id="reconstruction")

    def run(name: str, image: "Image | None") -> str:
        if image is None:
            return fragments.note(HINT)
        return reconstruct(catalogue.pipeline(name), image)

    image.after = (run, [page.model, image.state], [result])
    on(page.model.change, run, [page.model, image.state], [result])
