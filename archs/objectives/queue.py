"""The queue of momentum embeddings that widens contrast beyond the batch (MoCo, He et al. 2020; ALBEF, section 3.2).

Shape letters: B batch, E joint embedding size, Q queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_ID = -100
"""Sample id of a queue's random initial entries; belongs to no sample."""


class Queue(nn.Module):
    """The last Q embeddings of images and texts, as columns; the oldest are overwritten in place."""

    image: Tensor
    text: Tensor
    ids: Tensor
    pointer: Tensor

    def __init__(self, size: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("image", F.normalize(torch.randn(embed_dim, size), dim=0))  # (E, Q)
        self.register_buffer("text", F.normalize(torch.randn(embed_dim, size), dim=0))  # (E, Q)
        self.register_buffer("ids", torch.full((1, size), NO_ID))  # (1, Q)
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))  # (1,) next column to write

    @torch.no_grad()
    def enqueue(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        """Writes (B, E) embeddings and (B,) ids, of all ranks in rank order, and moves the pointer on, wrapping round.

        Nothing is copied but the new columns, and the pointer is never read by the host.

        Raises:
            ValueError: for more rows than the queue holds.
        """
        image, text, ids = (gather_ranks(x) for x in (image, text, ids))
        size = self.image.shape[1]
        if len(image) > size:
            raise ValueError(f"a batch of {len(image)} (all ranks) does not fit a queue of {size}; raise queue_size")
        columns = (self.pointer + torch.arange(len(image), device=image.device)) % size
        self.image.index_copy_(1, columns, image.T.to(self.image.dtype))
        self.text.index_copy_(1, columns, text.T.to(self.text.dtype))
        self.ids.index_copy_(1, columns, ids[None])
        self.pointer.add_(len(image)).remainder_(size)


def gather_ranks(rows: Tensor) -> Tensor:
    """Rows of all ranks, rank 0 first; the rows themselves where nothing is distributed."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)
