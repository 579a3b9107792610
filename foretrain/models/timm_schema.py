"""What a profile of a timm architecture may say, as pydantic reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from foretrain.models.schema import ArchitectureFile
from foretrain.models.timm_name import TimmModel


class TimmFile(ArchitectureFile):
    """The name of an architecture of timm, and an image size other than its own."""

    timm: str
    image_size: Annotated[StrictInt, Field(gt=0, le=100_000)] | None = None

    def spec(self, key: str) -> TimmModel:
        """Return what the profile says."""
        return TimmModel(architecture=self.timm, image_size=self.image_size, name=self.name, key=key)
