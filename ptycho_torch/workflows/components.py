"""Training with Lightning, under the name that scripts of the earlier package import (ptychodus_api_spec 4.1)."""

from ptycho_torch.engine.training import fit as _train_with_lightning

__all__ = ["_train_with_lightning"]
