"""The recommended models: all are open_clip's, each is found by its short name, a slip of the pen is understood."""

from __future__ import annotations

import open_clip
import pytest

from app.encoder.catalogue import (
    CATALOGUE,
    CHOICES,
    FAST_PHOTOS,
    PHOTOS,
    CatalogueEntry,
    ModelFacts,
    find_facts,
    resolve_alias,
    suggest_names,
)
from app.encoder.loader import PREPROCESS
from app.encoder.open_clip import CLIP_LENGTH, map_preprocessing


def test_the_list_begins_with_what_works_without_a_download() -> None:
    assert [model.name for model in CATALOGUE[:2]] == ["starter", "colours"]
    assert len({model.name for model in CATALOGUE}) == len(CATALOGUE) >= 12
    assert all(model.note and model.licence and model.languages for model in CATALOGUE)


@pytest.mark.parametrize("model", CATALOGUE[2:], ids=lambda model: model.alias)
def test_every_model_is_one_that_open_clip_can_fetch(model: CatalogueEntry) -> None:
    architecture, _, tag = model.name.partition("/")
    config = open_clip.get_model_config(architecture)
    assert config is not None
    assert config["embed_dim"] == model.d
    assert config["text_cfg"].get("context_length", CLIP_LENGTH) == model.max_tokens
    assert model.knows == "photographs"
    assert (architecture, tag) in open_clip.list_pretrained()
    published = open_clip.get_pretrained_cfg(architecture, tag)
    assert published.get("hf_hub")
    told = {key: published[key] for key in PREPROCESS if published.get(key) is not None}
    seen = map_preprocessing({"size": config["vision_cfg"]["image_size"], **told})
    assert seen.size in (224, 256, 336, 384)
    assert (len(seen.mean), len(seen.std)) == (3, 3)


def test_a_short_name_stands_for_the_long_one() -> None:
    aliases = [model.alias for model in CATALOGUE if model.alias]
    assert len(set(aliases)) == len(aliases) == len(CATALOGUE) - 2
    assert resolve_alias("SigLIP2-B") == "ViT-B-16-SigLIP2-256/webli"
    assert resolve_alias("starter") == "starter"
    assert resolve_alias("ViT-B-32/openai") == "ViT-B-32/openai"


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_for_photographs_is_a_model_that_anybody_may_use(choice: str) -> None:
    entry = next(model for model in CATALOGUE if model.name == resolve_alias(choice))
    assert choice in entry.names
    assert entry.knows == "photographs"
    assert entry.licence in ("MIT", "Apache-2.0")


def test_only_a_limited_model_has_a_hint_and_it_names_one_that_exists() -> None:
    assert {model.name for model in CATALOGUE if find_facts(model.name).hint} == {"starter", "colours"}
    hint = find_facts("starter").hint or ""
    assert "not photographs" in hint
    assert hint.split("--model ")[1] in CHOICES
    assert find_facts("ViT-B-32/openai") == ModelFacts("ViT-B-32/openai", "unknown", (), None)
    assert find_facts("starter").languages == ("en", "zh")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("startr", "starter"), ("siglip2b", "siglip2-b"), ("vit-b32", "vit-b-32"), ("ViT-B32", "vit-b-32")],
)
def test_the_nearest_names_are_offered(wrong: str, right: str) -> None:
    assert right in suggest_names(wrong, open_clip.list_models())


def test_what_resembles_nothing_gets_no_offer() -> None:
    assert suggest_names("qqqqqqqqqqqq", []) == ""


def test_what_is_not_published_is_null() -> None:
    said = CATALOGUE[0].to_json()
    assert said["recall"] is said["coco_r1"] is said["source"] is None
    assert said["memory_mib"] == 11
    known = {model.alias: model.to_json() for model in CATALOGUE}
    assert known["vit-b-32"]["recall"] == 0.654
    assert (known["siglip2-b-32"]["coco_r1"], known["siglip2-b-32"]["recall"]) == (0.472, None)


def test_every_published_figure_has_its_source() -> None:
    for model in CATALOGUE[2:]:
        assert model.source
        assert 0.3 < model.coco_r1 < 0.6
        assert all(value == 0 or value > model.coco_r1 for value in (model.recall, model.flickr_r1))


def test_the_first_advice_is_the_best_that_is_free_for_a_small_machine() -> None:
    """Of the freely licensed models whose pictures are cut into patches of 32, as many as two cores bear."""
    small = [model for model in CATALOGUE[2:] if model.licence in ("MIT", "Apache-2.0") and "B-32" in model.name]
    assert max(small, key=lambda model: model.coco_r1).name == resolve_alias(PHOTOS)
    assert [model.name for model in CATALOGUE[2:4]] == [resolve_alias(PHOTOS), resolve_alias(FAST_PHOTOS)]
