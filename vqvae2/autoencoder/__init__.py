"""The hierarchical autoencoder and its codebooks."""
