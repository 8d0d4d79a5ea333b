"""How one model of a run is trained."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vqvae2.configuration import (
    AtLeast0,
    AtLeast1,
    Fraction,
    Interval,
    Probability,
    require_ranges,
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is trained.

    Arguments:
        steps: optimizer steps.
        batch: examples per step, over all processes and accumulated parts.
        accumulate: parts into which each process splits its share of the batch, to save memory.
        optimizer: adam; adamw, which adds weight decay; or muon for the hidden matrices of a
            Transformer, with adamw for everything else.
        learning_rate: of the optimizer, after the warm-up.
        weight_decay: of adamw and muon, relative to the learning rate.
        beta1, beta2: decay of the averages of gradients and of their squares in adam and adamw.
        warmup_steps: steps over which the learning rate rises from 0.
        cooldown: final fraction of the steps, over which the learning rate falls to 0.
        cooldown_shape: linear, or cosine: slow at both ends.
        clip_norm: gradients are scaled down to this norm.
        max_skipped_steps: number of steps with a NaN or infinite gradient that are skipped; each
            step then waits for its gradient. With 0 the first such step ends the training. In
            float16 the loss scale skips infinite gradients, and this is about infinite losses.
        compile: compile the model (`torch.compile`): minutes once, then faster steps on a GPU.
        recompute: store the inputs of the model's blocks alone, and compute the activations within
            them again in the backward pass: less memory, about 40 % more time.
        shard_optimizer: each process keeps a part of Adam's state: 8 bytes per parameter over all
            processes instead of on each; for the optimizer adam.
        average_decay: of the moving average of the weights, which is validated and saved.
        validate_every: steps between two validations.
        validation_examples: examples per validation, at most.
        save_every: steps between two checkpoints.
        log_every: steps between two lines of the log.
    """

    steps: AtLeast1
    batch: AtLeast1 = 32
    accumulate: AtLeast1 = 1
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: Annotated[float, Interval("(0, inf)")] = 1e-3
    weight_decay: Annotated[float, Interval("[0, inf)")] = 0.0
    beta1: Probability = 0.9
    beta2: Probability = 0.999
    warmup_steps: AtLeast0 = 50
    cooldown: Fraction = 0.3
    cooldown_shape: Literal["linear", "cosine"] = "linear"
    clip_norm: Annotated[float, Interval("(0, inf]")] = 1.0
    max_skipped_steps: AtLeast0 = 0
    compile: bool = False
    recompute: bool = False
    shard_optimizer: bool = False
    average_decay: Fraction = 0.98
    validate_every: AtLeast1 = 500
    validation_examples: AtLeast1 = 1000
    save_every: AtLeast1 = 500
    log_every: AtLeast1 = 25

    def check(self, name: str) -> None:
        """Raises ValueError for numbers out of range; `name` is the config's path in the run."""
        require_ranges(f"{name}.", self)
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"{name}.weight_decay must be 0 with the optimizer adam, got {self.weight_decay}; "
                f"set {name}.optimizer to adamw."
            )
        if self.optimizer != "adam" and self.shard_optimizer:
            raise ValueError(
                f"{name}.shard_optimizer needs the optimizer adam, got {self.optimizer}; switch "
                "one of them off."
            )
