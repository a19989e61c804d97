from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from leakloc.core.errors import SettingsError
from leakloc.core.settings import Settings, find_recipe

RECIPES = sorted((Path(__file__).parents[2] / "pipelines").glob("*.toml"))


def _fields():
    for section in Settings.model_fields:
        model = type(getattr(Settings(), section))
        for name, field in model.model_fields.items():
            yield f"{section}.{name}", field


def test_every_setting_is_documented():
    undocumented = [name for name, field in _fields() if not field.description]
    assert undocumented == []


def test_what_config_prints_can_be_read_back(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(Settings().to_toml())
    assert Settings.load(path) == Settings()


def test_partial_recipe_keeps_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[recipe]\nname = "mine"\n[stages]\nlabeler = "other"\n')
    assert Settings.load(path) == Settings().changed(stages__labeler="other")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[stages]\nsegmentr = 'x'", "stages.segmentr"),
        ("[nonsense]\na = 1", "nonsense"),
        ("[stages]\nlabeler = 3", "stages.labeler"),
        ("not toml at all [", "cannot read the recipe"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, text, complaint):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        Settings.load(path)


def test_changed_refuses_unknown_names():
    with pytest.raises(SettingsError, match="no setting is named"):
        Settings().changed(stages__nothing=1)


def test_digest_follows_the_values():
    other = Settings().changed(stages__labeler="other")
    assert Settings().sha256 == Settings().sha256
    assert other.sha256 != Settings().sha256


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid_and_described(path):
    Settings.load(path)
    about = tomllib.loads(path.read_text())["recipe"]
    assert about["name"] == path.stem
    assert about["description"]
    assert find_recipe(path.stem) == path


def test_the_three_promised_recipes_are_shipped():
    assert {p.stem for p in RECIPES} >= {"postoperative", "spontaneous", "research"}


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(SettingsError, match="postoperative"):
        find_recipe("no-such-recipe")
