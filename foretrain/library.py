"""Where profiles are found: a shelf of library files by name, or a user's own file by path."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from foretrain.errors import UnknownNameError, nearest, shortened

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The library files of one kind of profile, `what` being its name in messages."""

    what: str
    folder: Path

    def names(self) -> tuple[str, ...]:
        """Return the names that the library holds, sorted."""
        return _names(self.folder)

    def holds(self, path: Path) -> bool:
        """Tell whether `path` is a file of the library."""
        return path.parent == self.folder

    def find(self, name: str, beside: Path | None = None) -> Path:
        """Return the file of a library name or of a path (relative to the file `beside`, else to the working folder).

        Raises:
            UnknownNameError: where the library holds no such name and it is no path.
        """
        if looks_like_path(name):
            return _relative(Path(name).expanduser(), beside)
        if name in self.names():
            return self.folder / f"{name}.yaml"
        raise UnknownNameError(f"no {self.what} is called {shortened(name)}{nearest(name, self.names())}{_remedy(self.what)}")


def looks_like_path(name: str) -> bool:
    """Tell whether a name is meant as a path: it has a folder in it or ends as YAML and JSON files do."""
    return "/" in name or "\\" in name or name.endswith(_SUFFIXES)


def _remedy(what: str) -> str:
    return f" (foretrain list shows every {what}; a path such as ./mine.yaml is read as a file)"


def _relative(path: Path, beside: Path | None) -> Path:
    return path if beside is None or path.is_absolute() else beside.parent / path


@functools.cache
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))
