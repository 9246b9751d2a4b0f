"""Reads search spaces from `search_spaces/*.yaml` or a file of the user; every error names the line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import medgan
from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.search.space import FIXED, METHOD, Space

Place = tuple[str | int, ...]


def folders() -> list[Path]:
    """Returns the folders of named spaces: inside the installed package, or beside it in a checkout."""
    package = Path(medgan.__file__).parent
    return [folder for folder in (package / "search_spaces", package.parent / "search_spaces") if folder.is_dir()]


def read_space(name: str, overrides: Mapping[str, Any]) -> Space:
    """Reads a space by name or file, and checks both ends of every range with its preset and the overrides.

    Raises:
        InputError: no such space, not readable, or a value is invalid for its setting; with file and line.
    """
    path = _find(name)
    content, lines = _parsed(path)
    try:
        space = Space.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}." for part in first["loc"])[:-1]
        reason = first["msg"].removeprefix("Value error, ")
        cause = first.get("ctx", {}).get("error")
        raise _refusal(path, lines, first["loc"], cause, f"{where}: {reason}" if where else reason) from None
    base = _base(path, lines, space, overrides)
    for setting in space.search:
        try:
            _refuse_unfit_ends(space, setting, base)
        except InputError as error:
            raise _refusal(path, lines, ("search", setting), error, str(error)) from None
    return space.with_overrides(overrides)


def _base(path: Path, lines: Mapping[Place, int], space: Space, overrides: Mapping[str, Any]) -> Config:
    """Returns the preset with the space's settings, then with the user's; an error in the former names its line."""
    try:
        space.base({})
    except InputError as error:
        named = [setting for setting in space.set if setting in str(error)]
        raise _refusal(path, lines, ("set", *named[:1]), error, str(error)) from None
    return space.base(overrides)


def _refuse_unfit_ends(space: Space, setting: str, base: Config) -> None:
    if setting in FIXED:
        raise InputError("E-SPACE-13", setting=setting)
    if setting == METHOD:
        for name in space.names_of_methods:
            space.with_method(base, name)
        return
    needed = space.needed_for(setting, base)
    if METHOD in needed:
        base = space.with_method(base, needed.pop(METHOD))
    for end in space.search[setting].ends:
        with_values(base, {**needed, setting: end})


def _refusal(path: Path, lines: Mapping[Place, int], place: Place, cause: Any, reason: str) -> InputError:
    """Returns the error with the line of the innermost part of `place` that the file has."""
    parts = [place[:length] for length in range(len(place), 0, -1) if place[:length] in lines]
    if not isinstance(cause, InputError):
        cause = InputError("E-SPACE-14", reason=reason)
    line = f", line {lines[parts[0]]}" if parts else ""
    return cause.within("E-SPACE-18", file=path, line=line, reason=reason)


def _parsed(path: Path) -> tuple[Any, dict[Place, int]]:
    """Returns the content of a YAML file, and the line of each of its parts, from 1."""
    try:
        text = path.read_text()
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("E-SPACE-15", path=path, error=" ".join(str(error).split())) from None
    lines: dict[Place, int] = {}
    for place, line in _places(root, ()):
        if place in lines:
            raise InputError("E-SPACE-16", path=path, line=line, place=place[-1], lines=lines[place])
        lines[place] = line
    return content, lines


def _places(node: yaml.Node | None, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _places(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark.line + 1
            yield from _places(value, (*place, number))


def _find(name: str) -> Path:
    named = {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}
    if name in named:
        return named[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError("E-SPACE-17", named=", ".join(sorted(named)), name=name)
    return path
