"""Training with Lightning, under the name of the earlier PyTorch package (spec: ptychodus_api_spec 4.11)."""

from ptycho_torch.engine.training import fit as _train_with_lightning

__all__ = ["_train_with_lightning"]
