"""An autoencoder in a training loop of one's own."""

import torch

from vqvae2 import VQVAE, load_images

images = load_images("photos", size=32)
model = VQVAE(factors=(2, 4), num_codes=512, channels=64)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(2000):
    output = model(images.batch(torch.randint(len(images), (32,))) / 255)
    optimizer.zero_grad()
    output.loss.backward()
    optimizer.step()
    model.update_codebooks(output)
model.save_pretrained("autoencoder")
