"""What open_clip publishes, asked for without loading it here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.core.settings import Settings
from app.encoder.loader import locate_model
from app.encoder.pretrained import cache_path, find_pretrained, list_architectures


def test_all_architectures_are_known_by_name() -> None:
    import open_clip

    theirs = [name for name in open_clip.list_models() if not name.startswith("sightline-test")]  # other tests add some
    assert list_architectures() == sorted(theirs)


def test_it_is_asked_once_for_a_tag_and_the_answer_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    cache = Settings().models  # which the servers of this run share
    first = find_pretrained("ViT-B-32", "laion2b_s34b_b79k", cache)
    theirs = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    assert first.config == json.loads(json.dumps({key: value for key, value in theirs.items() if key != "url"}))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert find_pretrained("ViT-B-32", "laion2b_s34b_b79k", cache) == first


def test_a_tag_that_there_is_not_comes_with_those_there_are(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "app.encoder.pretrained", "ViT-B-32", "no-such-tag"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    said = json.loads(answer)
    assert said["config"] is None
    assert {"openai", "laion2b_s34b_b79k"} <= set(said["tags"])
    kept = cache_path("ViT-B-32", "no-such-tag", tmp_path)
    kept.parent.mkdir()
    kept.write_text(answer)
    with pytest.raises(StartupError, match="the tags of ViT-B-32 are openai") as refused:
        locate_model("ViT-B-32/no-such-tag", tmp_path)
    assert "\n" not in refused.value.detail


def test_the_list_comes_without_torch() -> None:
    program = "import sys; from app.encoder.pretrained import import_list; import_list(); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["False"]
