"""Training: what a run is, its folder, its checkpoints, one loop, the stages."""
