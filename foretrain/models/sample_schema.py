"""What the profile of a recommender or a recurrent network may say, as pydantic reads it; only `load` imports this module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool

from foretrain.models.image_schema import NetworkFile, Size, Sizes
from foretrain.models.networks.deepspeech2 import DeepSpeech2
from foretrain.models.networks.dlrm import Dlrm
from foretrain.models.networks.gnmt import Gnmt
from foretrain.models.networks.ncf import Ncf
from foretrain.models.networks.wide_deep import WideDeep
from foretrain.models.recurrent import GATES
from foretrain.quantity import one_of

Rows = Annotated[int, Field(strict=True, gt=0, le=10**12)]
Tables = Annotated[tuple[Rows, ...], Field(min_length=1, max_length=100_000)]


class DlrmFile(NetworkFile):
    """See `Dlrm`."""

    KIND = Dlrm
    rows: Tables
    lookups: Tables
    width: Size
    dense_features: Size
    bottom: Sizes
    top: Sizes
    cross_layers: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0
    cross_rank: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 0
    sharded: StrictBool = True


class NcfFile(NetworkFile):
    """See `Ncf`."""

    KIND = Ncf
    users: Rows
    items: Rows
    factors: Size
    layers: Sizes


class WideDeepFile(NetworkFile):
    """See `WideDeep`."""

    KIND = WideDeep
    tables: Size
    rows: Rows
    width: Size
    dense_features: Size
    crossed: Rows
    layers: Sizes
    sharded: StrictBool = False


class GnmtFile(NetworkFile):
    """See `Gnmt`."""

    KIND = Gnmt
    layers: Size
    hidden: Size
    vocab: Rows
    seq_len: Size


class DeepSpeech2File(NetworkFile):
    """See `DeepSpeech2`."""

    KIND = DeepSpeech2
    layers: Size
    hidden: Size
    cell: one_of(*GATES)  # type: ignore[valid-type]
    bands: Size
    seq_len: Size
    characters: Size
