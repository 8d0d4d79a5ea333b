"""The controls of sampling: one group per level, coarsest first."""

from dataclasses import replace
from typing import Any

import gradio as gr

from vqvae2.pipeline import DecoderName, Pipeline
from vqvae2.sampling import SamplingConfig

PER_LEVEL = 4
"""Controls per level: temperature, top-k, top-p, guidance."""


def level_controls(pipeline: Pipeline | None, num_levels: int) -> tuple[list[Any], list[Any]]:
    """The groups of all levels, and the controls in them."""
    groups, controls = [], []
    for level in range(num_levels):
        config = config_of(pipeline, level)
        with gr.Accordion(
            group_title(pipeline, level), open=False, visible=has_level(pipeline, level)
        ) as group:
            controls += controls_of(config)
        groups.append(group)
    return groups, controls


def controls_of(config: SamplingConfig) -> list[Any]:
    """The controls of one level."""
    return [
        gr.Slider(
            0, 2, config.temperature, step=0.05, label="Temperature",
            info="Below 1 images are more typical, above 1 more surprising; 0 takes the most "
            "probable code.",
        ),
        gr.Number(
            config.top_k or 0, precision=0, minimum=0, label="Top-k",
            info="Draw from the k most probable codes only; 0 draws from all.",
        ),
        gr.Slider(
            0.05, 1, config.top_p, step=0.05, label="Top-p",
            info="Draw from the most probable codes that have this probability together.",
        ),
        gr.Slider(
            0, 8, config.guidance, step=0.25, label="Guidance",
            info="Above 1 images show their class more clearly and differ less; 1 is neutral and "
            "takes half the time.",
        ),
    ]  # fmt: skip


def changed_controls(pipeline: Pipeline, num_levels: int) -> list[Any]:
    """The groups and then the controls for another model."""
    groups, controls = [], []
    for level in range(num_levels):
        config = config_of(pipeline, level)
        groups.append(
            gr.Accordion(
                label=group_title(pipeline, level), visible=has_level(pipeline, level), open=False
            )
        )
        controls += [
            gr.Slider(value=config.temperature),
            gr.Number(value=config.top_k or 0),
            gr.Slider(value=config.top_p),
            gr.Slider(value=config.guidance),
        ]
    return [*groups, *controls]


def has_level(pipeline: Pipeline | None, level: int) -> bool:
    """Whether a model has a level."""
    return pipeline is not None and level < pipeline.autoencoder.config.num_levels


def config_of(pipeline: Pipeline | None, level: int) -> SamplingConfig:
    """The default of a level; that of the library for a level that the model lacks."""
    if pipeline is None or not has_level(pipeline, level):
        return SamplingConfig()
    return pipeline.sampling[level]


def group_title(pipeline: Pipeline | None, level: int) -> str:
    """The title of a level's controls."""
    if pipeline is None or not has_level(pipeline, level):
        return f"Level {level}"
    size = pipeline.config.image_size
    grid = pipeline.autoencoder.config.grids(size, size)[level]
    role = ": the layout" if level == 0 else ": details"
    return f"Level {level}{role} ({grid.height}x{grid.width} codes)"


def sampling_of(pipeline: Pipeline, values: tuple[Any, ...]) -> tuple[SamplingConfig, ...]:
    """The sampling that the controls say, one config per level."""
    configs = []
    for level, config in enumerate(pipeline.sampling):
        temperature, top_k, top_p, guidance = values[PER_LEVEL * level : PER_LEVEL * (level + 1)]
        configs.append(
            replace(
                config,
                temperature=number("Temperature", temperature),
                top_k=int(number("Top-k", top_k)) or None,
                top_p=number("Top-p", top_p),
                guidance=number("Guidance", guidance),
            )
        )
    return tuple(configs)


def number(name: str, value: float | None) -> float:
    """A number from the page; ValueError where the field is empty."""
    if value is None:
        raise ValueError(f"{name} is empty; enter a number.")
    return float(value)


DECODERS: list[tuple[str, DecoderName]] = [("sharp", "sharp"), ("plain", "plain")]


def decoder_choice(pipeline: Pipeline | None) -> Any:
    """Chooses the decoder; hidden for a model with only one."""
    return gr.Radio(
        DECODERS,
        value="plain" if pipeline is None else pipeline.decoder_in_use,
        label="Decoder",
        info="Sharp invents plausible details; plain shows the mean of what the codes allow.",
        visible=has_two_decoders(pipeline),
    )


def changed_decoder(pipeline: Pipeline | None) -> Any:
    """The same choice for another model."""
    value = "plain" if pipeline is None else pipeline.decoder_in_use
    return gr.Radio(value=value, visible=has_two_decoders(pipeline))


def has_two_decoders(pipeline: Pipeline | None) -> bool:
    """Whether there is something to choose."""
    return pipeline is not None and pipeline.sharp_decoder is not None


def with_decoder(pipeline: Pipeline, name: str) -> Pipeline:
    """The same models with a decoder of one's own choice, apart from other users."""
    decoder: DecoderName = "plain" if name == "plain" else "sharp" if name == "sharp" else ""
    return replace(pipeline, decoder=pipeline.require_decoder(decoder))
