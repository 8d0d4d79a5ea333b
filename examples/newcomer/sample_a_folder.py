"""A folder of images becomes a generator, and 16 samples."""

from vqvae2 import fit

pipeline = fit("photos", hours=1, run="runs/photos")
pipeline.sample(num_images=16).save("samples")
