"""Lightning module of the earlier PyTorch package, under its import path (spec: ptychodus_api_spec 4.11)."""

from ptycho_torch.api.models import PtychoPINN_Lightning

__all__ = ["PtychoPINN_Lightning"]
