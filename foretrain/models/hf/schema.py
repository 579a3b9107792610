"""What a library profile that holds a configuration may say, as pydantic reads it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from foretrain.models.hf.config import Config
from foretrain.models.schema import ArchitectureFile, Size


class ConfigFile(ArchitectureFile):
    """A model by the fields of its config.json; `seq_len` or `image_size` where training used another than the configuration has."""

    seq_len: Size | None = None
    masked: float = Field(default=1.0, gt=0, le=1)
    further: int = Field(default=0, ge=0, strict=True)
    config: dict[str, Any]

    def spec(self, key: str) -> Config:
        """Return the configuration as the builder takes it.

        Raises:
            ModelError: where its fields do not go together.
        """
        return Config(name=self.name, key=key, config=self.config, size=self.seq_len, masked=self.masked, further=self.further)
