"""What the profiles of speech recognition and recommendation may say, as pydantic reads them. Only `load` imports this module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretrain.models.ranking import Ranking
from foretrain.models.recommender import Collaborative
from foretrain.models.schema import ArchitectureFile
from foretrain.models.speech import Speech

Size = Annotated[int, Field(strict=True, gt=0, le=1_000_000_000)]


class SpeechFile(ArchitectureFile):
    """See `Speech`."""

    frames: Size
    bins: Size
    channels: Size
    hidden: Size
    layers: Size
    labels: Size

    def spec(self, key: str) -> Speech:
        """Return the dimensions as the builder takes them."""
        return Speech(**{name: getattr(self, name) for name in type(self).model_fields if name in Speech.__slots__}, key=key)


class CollaborativeFile(ArchitectureFile):
    """See `Collaborative`."""

    users: Size
    items: Size
    factors: Size
    layers: Annotated[int, Field(strict=True, gt=0, le=64)]

    def spec(self, key: str) -> Collaborative:
        """Return the dimensions as the builder takes them."""
        return Collaborative(**{name: getattr(self, name) for name in type(self).model_fields if name in Collaborative.__slots__}, key=key)


Widths = Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)]


class RankingFile(ArchitectureFile):
    """See `Ranking`."""

    dense: Size
    tables: Size
    lookups: Size
    width: Size
    bottom: Widths
    top: Widths
    crosses: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    rank: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 0

    def spec(self, key: str) -> Ranking:
        """Return the dimensions as the builder takes them.

        Raises:
            ModelError: where they do not go together.
        """
        return Ranking(**{name: getattr(self, name) for name in type(self).model_fields if name in Ranking.__slots__}, key=key)
