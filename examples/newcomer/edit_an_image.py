"""Four new lower halves of an image; the upper half stays."""

from PIL import Image

from vqvae2 import Pipeline

edits = Pipeline.open("runs/photos").inpaint(Image.open("cat.png"), "cat", num_images=4)
edits.grid().save("edits.png")
