"""Every tunable of every stage, in one typed model.

Each field carries its unit in the name, its default, and the reason for it. A recipe is
a TOML file with the same sections; what a recipe does not name keeps its default. The
settings of a run are written into its report, so that it can be repeated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leakloc.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StageSettings(_Section):
    """Which implementation runs each swappable stage."""

    segmenter: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.segmenters`."""
    labeler: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.labelers`."""


class LoaderSettings(_Section):
    """Reading files and choosing series."""


class SegmentationSettings(_Section):
    """Fluid map, canal, dura and collections."""


class LevelSettings(_Section):
    """Finding and numbering vertebrae."""


class LocalizationSettings(_Section):
    """Mapping collections to levels, grading, planning."""


class ReportSettings(_Section):
    """What is written, and how much of the patient's identity goes with it."""


class Settings(_Section):
    """All settings of one analysis."""

    stages: StageSettings = Field(default_factory=StageSettings)
    """Which implementation runs each swappable stage."""
    loaders: LoaderSettings = Field(default_factory=LoaderSettings)
    """Reading files and choosing series."""
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    """Fluid map, canal, dura and collections."""
    levels: LevelSettings = Field(default_factory=LevelSettings)
    """Finding and numbering vertebrae."""
    localization: LocalizationSettings = Field(default_factory=LocalizationSettings)
    """Mapping collections to levels, grading, planning."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """What is written, and how much of the patient's identity goes with it."""

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a TOML recipe; sections and keys as `leakloc config` prints them.

        Raises
        ------
        SettingsError
            If the file cannot be read, or a key or value is not one of ours.
        """
        import tomllib

        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"cannot read the recipe {path}: {error}") from error
        values.pop("recipe", None)  # name and description, for humans
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "settings") -> Settings:
        """Validate nested values; unknown keys and values out of range are errors."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"{source}: {where}: {first['msg']}") from error

    def changed(self, **values: Any) -> Settings:
        """A copy with some values replaced, named ``section__key=value``.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").stages.labeler
        'mine'
        """
        nested = self.model_dump(mode="python")
        for name, value in values.items():
            section, _, key = name.partition("__")
            if section not in nested or key not in nested[section]:
                raise SettingsError(f"no setting is named {name!r}; write section__key")
            nested[section][key] = value
        return self.from_dict(nested)

    @property
    def sha256(self) -> str:
        """Digest of all values, the same for the same settings on every machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """All values as TOML, each with its documentation as a comment."""
        import tomlkit

        document = tomlkit.document()
        for section_name, section in type(self).model_fields.items():
            table = tomlkit.table()
            if section.description:
                table.comment(section.description)
            model: _Section = getattr(self, section_name)
            for key, field in type(model).model_fields.items():
                for line in (field.description or "").splitlines():
                    table.add(tomlkit.comment(line.strip()))
                value = getattr(model, key)
                if value is None:  # TOML has no null; absent means default
                    table.add(tomlkit.comment(f"{key} = (unset)"))
                else:
                    table.add(key, list(value) if isinstance(value, tuple) else value)
            document.add(section_name, table)
        return tomlkit.dumps(document)


def find_recipe(name: str) -> Path:
    """The TOML file of a recipe: a path, or the name of one that comes with leakloc.

    Raises
    ------
    SettingsError
        If there is no such file.
    """
    package = Path(__file__).parent
    shipped = [package / "recipes", package.parent / "pipelines"]  # installed, or a checkout
    for path in [Path(name), *(folder / f"{name}.toml" for folder in shipped)]:
        if path.is_file():
            return path
    known = sorted({file.stem for folder in shipped for file in folder.glob("*.toml")})
    raise SettingsError(
        f"no recipe file {name!r}; name a TOML file or one of: {', '.join(known) or 'none shipped'}"
    )
