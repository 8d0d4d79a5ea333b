"""Sampling codes from priors: position by position, level by level."""

from vqvae2.sampling.config import SamplingConfig as SamplingConfig
from vqvae2.sampling.hierarchy import iterate_hierarchy as iterate_hierarchy
from vqvae2.sampling.hierarchy import sample_hierarchy as sample_hierarchy
from vqvae2.sampling.inpaint import UNKNOWN as UNKNOWN
from vqvae2.sampling.inpaint import Box as Box
from vqvae2.sampling.inpaint import covered as covered
from vqvae2.sampling.inpaint import erase as erase
from vqvae2.sampling.inpaint import paint_over as paint_over
from vqvae2.sampling.level import LevelSampler as LevelSampler
from vqvae2.sampling.level import sample_codes as sample_codes
from vqvae2.sampling.level import sample_level as sample_level
from vqvae2.sampling.level import uniforms as uniforms
