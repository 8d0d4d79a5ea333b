"""Every number of every configuration has a range, and what is outside of it is one clear line."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
import types
import typing
from collections.abc import Iterator

import pytest

import vqvae2
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.configuration import Interval, declared_intervals, require_ranges
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig, RunConfig
from vqvae2.runs.decoder import DecoderStageConfig
from vqvae2.runs.presets import PRESETS
from vqvae2.runs.training import TrainingConfig

RUN = PRESETS["cifar10-sharp"]()

EXEMPT = {
    "RunConfig.seed": "every integer is a seed",
    "DataConfig.seed": "every integer is a seed",
    "ClassifierTraining.seed": "every integer is a seed",
    "VQVAEConfig.factors": "powers of two, which the message says",
    "SampleEvaluationConfig.fractions": "a message for all of them",
    "SampleEvaluationConfig.temperatures": "validated as those of a SamplingConfig",
}


def configurations() -> Iterator[type]:
    """The dataclasses of the package that are configurations, by their names."""
    for module in pkgutil.walk_packages(vqvae2.__path__, "vqvae2."):
        if module.name.endswith("__main__"):
            continue
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        for name, kind in classes:
            is_here = kind.__module__ == module.name and dataclasses.is_dataclass(kind)
            is_named = name.endswith("Config") or name == "ClassifierTraining"
            if is_here and is_named and not inspect.isabstract(kind):
                yield kind


def is_numeric(hint: object) -> bool:
    """Whether a field holds a number, or a tuple of numbers, or perhaps none."""
    if typing.get_origin(hint) in (tuple, types.UnionType, typing.Union):
        return any(is_numeric(part) for part in typing.get_args(hint))
    return hint in (int, float)


CONFIGURATIONS = sorted({*configurations()}, key=lambda kind: kind.__name__)

NUMBERS = [
    (kind, name)
    for kind in CONFIGURATIONS
    for name, hint in typing.get_type_hints(kind).items()
    if is_numeric(hint)
]


def test_every_numeric_field_declares_its_range_or_is_exempt_for_a_reason():
    reachable = {type(part) for part in parts(RUN)}
    assert reachable <= {*CONFIGURATIONS}, "a configuration has an unusual name"
    missing = [
        f"{kind.__name__}.{name}" for kind, name in NUMBERS if name not in declared_intervals(kind)
    ]
    assert sorted(missing) == sorted(EXEMPT)
    assert len(NUMBERS) > 70


def parts(value: object) -> Iterator[object]:
    """A dataclass and all dataclasses in it."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))


def example(kind: type) -> object:
    """A valid value of a configuration."""
    found = next((part for part in parts(RUN) if type(part) is kind), None)
    return found or kind(**({"image_size": 8} if kind.__name__ == "PipelineConfig" else {}))


def validate(config: object) -> None:
    """As a run does where a configuration does not validate itself."""
    if isinstance(config, RunConfig):
        config.check()
    elif isinstance(
        config, TrainingConfig | AutoencoderStageConfig | DecoderStageConfig | LevelConfig
    ):
        config.check("run")


def outside(interval: Interval) -> list[float]:
    """Numbers just outside, far outside, and none."""
    numbers = [math.nan]
    for bound, direction in ((interval.least, -1), (interval.most, 1)):
        numbers += [bound, bound + direction, bound + 1e12 * direction]
    return [number for number in numbers if number not in interval]


RANGES = [
    (kind, name, i) for kind in CONFIGURATIONS for name, i in declared_intervals(kind).items()
]


@pytest.mark.parametrize(
    ("kind", "name", "interval"), RANGES, ids=[f"{k.__name__}.{n}" for k, n, _ in RANGES]
)
def test_a_number_outside_of_its_range_is_refused_with_the_range(kind, name, interval):
    config = example(kind)
    for number in outside(interval):
        expected = f"{name} must be {interval}, got {number}"
        with pytest.raises(ValueError, match=re.escape(expected)) as error:
            validate(dataclasses.replace(config, **{name: number}))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("notation", "inside", "refused", "text"),
    [
        ("[0, 1)", [0, 0.99], [-1e-9, 1, math.nan], "in [0, 1)"),
        ("(0, 1]", [1e-9, 1], [0, 1.1, math.nan], "in (0, 1]"),
        ("[1, inf)", [1, 10**300], [0, math.inf, math.nan], "at least 1"),
        ("(0, inf]", [1e-9, math.inf], [0, math.nan], "above 0"),
        ("(-inf, inf)", [-1e300, 0], [-math.inf, math.inf, math.nan], "finite"),
    ],
)
def test_an_interval_contains_what_its_notation_says(notation, inside, refused, text):
    interval = Interval(notation)
    assert all(number in interval for number in inside)
    assert not any(number in interval for number in refused)
    assert str(interval) == text


def test_a_hint_says_what_to_do_and_none_is_in_every_range():
    @dataclasses.dataclass
    class Config:
        number: typing.Annotated[int, Interval("[1, inf)", "use 1")] | None = None

    require_ranges("", Config())
    with pytest.raises(ValueError, match=r"^A number must be at least 1, got 0; use 1\.$"):
        require_ranges("A ", Config(0))


def test_training_that_ends_before_quantisation_begins_is_refused():
    for steps in (60, 20):
        stage = dataclasses.replace(
            RUN.autoencoder, training=TrainingConfig(steps=steps), continuous_steps=60
        )
        message = (
            rf"continuous_steps must be below .*steps \({steps}\), got 60: .* to {steps // 10}\."
        )
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(RUN, autoencoder=stage).check()
    stage = dataclasses.replace(
        RUN.autoencoder, training=TrainingConfig(steps=61), continuous_steps=60
    )
    dataclasses.replace(RUN, autoencoder=stage).check()


def test_an_autoencoder_of_grey_images_cannot_train_on_rgb_images():
    stage = dataclasses.replace(RUN.autoencoder, model=VQVAEConfig(image_channels=1))
    with pytest.raises(
        ValueError, match=r"image_channels must be 3, got 1: images are read as RGB"
    ):
        dataclasses.replace(RUN, autoencoder=stage).check()
