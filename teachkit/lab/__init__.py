"""Apparatus every lesson uses: data, models, training, evaluation, and ``setup()``."""

from teachkit.lab import data, evaluation, models, training
from teachkit.lab.session import setup

__all__ = ["data", "evaluation", "models", "setup", "training"]
