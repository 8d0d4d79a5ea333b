"""Sampling codes from priors: position by position, level by level."""

from vqvae2.sampling.config import SamplingConfig
from vqvae2.sampling.hierarchy import iterate_hierarchy, sample_hierarchy
from vqvae2.sampling.inpaint import UNKNOWN, Box, covered, erase, paint_over
from vqvae2.sampling.level import LevelSampler, sample_codes, sample_level, uniforms

__all__ = [
    "SamplingConfig",
    "sample_hierarchy",
    "iterate_hierarchy",
    "sample_level",
    "sample_codes",
    "uniforms",
    "LevelSampler",
    "UNKNOWN",
    "Box",
    "erase",
    "covered",
    "paint_over",
]
