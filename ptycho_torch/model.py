"""The Lightning module of the earlier package, under the name that clients import."""

from ptycho_torch.api.models import PtychoPINN_Lightning

__all__ = ["PtychoPINN_Lightning"]
