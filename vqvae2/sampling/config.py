"""How codes are sampled from a prior's distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict, get_args

from vqvae2.configuration import Interval, per_level, require_ranges
from vqvae2.messages import require_choice

GuidanceSchedule = Literal["constant", "linear", "cosine"]
Unconditional = Literal["null-label", "bayes"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Changes to a distribution before a code is sampled; the defaults change nothing.

    Arguments:
        temperature: logits are divided by it; 0 takes the most probable code.
        top_k: keep the K most probable codes; None keeps all.
        top_p: keep the fewest codes that together have this probability; 1 keeps all.
        guidance: weight of the label, see `vqvae2.sampling.guidance`: 1 samples from the
            conditional distribution; above 1, images show their class more clearly and differ
            less; 0 ignores the label.
        guidance_schedule: "constant", or "linear" or "cosine" from 1 at the first position to
            `guidance` at the last.
        unconditional: the distribution without a label: that of the "null-label", for a prior that
            was trained with label dropout, or "bayes" from all classes. Either costs rows, see
            `vqvae2.sampling.guidance`.
    """

    temperature: Annotated[float, Interval("[0, inf)", "0 takes the most probable code")] = 1.0
    top_k: Annotated[int, Interval("[1, inf)", "leave it out to keep all codes")] | None = None
    top_p: Annotated[float, Interval("(0, 1]", "1 keeps all codes")] = 1.0
    guidance: Annotated[float, Interval("[0, inf)", "1 changes nothing")] = 1.0
    guidance_schedule: GuidanceSchedule = "constant"
    unconditional: Unconditional = "null-label"

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("", self)
        require_choice("guidance_schedule", self.guidance_schedule, get_args(GuidanceSchedule))
        require_choice("unconditional", self.unconditional, get_args(Unconditional))


class SamplingControls(TypedDict, total=False):
    """Changes to the sampling of all levels: one value for all of them, or one per level."""

    temperature: float | Sequence[float]
    top_k: int | Sequence[int]
    top_p: float | Sequence[float]
    guidance: float | Sequence[float]
    unconditional: Unconditional | Sequence[Unconditional]


def changed(
    configs: Sequence[SamplingConfig], controls: Mapping[str, object]
) -> tuple[SamplingConfig, ...]:
    """The configs of all levels, changed by controls.

    Arguments:
        configs: one per level, coarsest first.
        controls: the fields of `SamplingControls`; None and () change nothing.

    Raises:
        ValueError: a control has another number of values than 1 and that of the levels.
    """
    result = list(configs)
    for name, given in controls.items():
        if given is None or given == ():
            continue
        for level, value in enumerate(per_level(name, given, len(result))):
            change: dict[str, Any] = {name: value}
            result[level] = replace(result[level], **change)
    return tuple(result)
