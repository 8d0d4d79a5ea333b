"""A codebook in one's own model of sounds."""

import torch

from vqvae2 import Codebook

sounds = torch.randn(8, 1, 4000)
encoder, codebook = torch.nn.Conv1d(1, 16, 8, stride=8), Codebook(256, 16)
quantized = codebook(encoder(sounds))  # decode .vectors; add 0.25 * .commitment to the loss
codebook.update(quantized)  # after optimizer.step()
