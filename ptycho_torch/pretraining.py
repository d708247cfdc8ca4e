"""Pretraining of the shipped network, under the name that scripts import and run."""

from ptycho_torch.engine.pretraining import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
