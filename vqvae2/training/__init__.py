"""The stages of a run: the loop, checkpoints, one file per stage."""
