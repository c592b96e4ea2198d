"""Animates pictures; `Animator` is the Python API."""

from animation.animator import Animator
from animation.settings import Settings

__all__ = ["Animator", "Settings"]
