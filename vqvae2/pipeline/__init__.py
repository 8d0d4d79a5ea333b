"""The object that a user holds: images to codes and back, labels to images, likelihoods."""

from vqvae2.pipeline.models import DecoderName as DecoderName
from vqvae2.pipeline.pipeline import LOWER_HALF as LOWER_HALF
from vqvae2.pipeline.pipeline import Pipeline as Pipeline
from vqvae2.pipeline.progressive import PartialSamples as PartialSamples
from vqvae2.pipeline.progressive import sample_progressively as sample_progressively
from vqvae2.pipeline.samples import Samples as Samples
from vqvae2.weights import PipelineConfig as PipelineConfig
