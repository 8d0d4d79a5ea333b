"""The images of every training step, for tasks that train on images.

Legend: `B` images of this process at a step, `S` image side.
"""

from dataclasses import dataclass

from torch import Tensor

from vqvae2.data.images import ImageDataset
from vqvae2.data.order import batch_indices
from vqvae2.distributed import World


@dataclass(frozen=True)
class ImageBatches:
    """Which images a process trains on, as a function of (seed, step, rank).

    Arguments:
        dataset: the training images.
        batch: images per step of all processes together.
        seed: of their order.
        world: the processes that share each batch.
    """

    dataset: ImageDataset
    batch: int
    seed: int
    world: World

    def indices(self, step: int) -> Tensor:
        """The numbers of this process's images at `step`, (B,)."""
        return batch_indices(self.dataset.order, self.batch, self.seed, step, self.world)

    def names(self, step: int) -> list[str]:
        """What these images are called in messages."""
        return [self.dataset.names[index] for index in self.indices(step).tolist()]

    def images(self, step: int) -> Tensor:
        """The images, (B, 3, S, S) uint8; streamed ones of a later step begin to be read."""
        images = self.dataset.batch(self.indices(step))
        if ahead := self.dataset.prefetch_steps(self.batch):
            # After the batch: blocks in use are released last.
            self.dataset.prefetch(self.indices(step + ahead))
        return images

    def share(self, joint: Tensor) -> Tensor:
        """This process's part of a tensor for the joint batch."""
        return joint.chunk(self.world.size)[self.world.rank]
