"""Recipe `qlora`: a low-rank adapter that is learned beside the base in 4 bits, and served beside the base as it is.

Whether there is a device for it, and whether the weights really are in 4 bits, the trainer checks. A `lora` may go on
from its adapter and the other way round: both hold the same.
"""

from __future__ import annotations

from noria.training.recipes.lora import check, make, observes

__all__ = ["check", "make", "observes"]
