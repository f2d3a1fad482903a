"""The home with the default model, as the live tests make it."""

from tests.live.conftest import model_home

__all__ = ["model_home"]
