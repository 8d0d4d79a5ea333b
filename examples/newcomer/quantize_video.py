"""A codebook in one's own model of videos."""

import torch

from vqvae2 import Codebook

videos = torch.randn(2, 3, 16, 32, 32)
encoder, codebook = torch.nn.Conv3d(3, 16, 4, stride=4), Codebook(256, 16)
quantized = codebook(encoder(videos))  # decode .vectors; add 0.25 * .commitment to the loss
codebook.update(quantized)  # after optimizer.step()
