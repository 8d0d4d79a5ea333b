"""The codes of a folder as a `datasets.Dataset`."""

from vqvae2 import encode

codes = encode("runs/photos", "photos")
print(codes[0]["name"], codes[0]["level_0"])
