"""Tokenizers written to a file read what open_clip's own read, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.encoder.tokenizer import Tokenization, load_named_tokenizer
from app.encoder.tokenizer_export import PROBES, export_tokenizer
from tests.acceptance.families import write_tokenizer

CLIP = Tokenization("ViT-B-32", 77)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def exported_tokenizer(folder: Path) -> Tokenization:
    made = export_tokenizer(CLIP, folder)
    assert made == replace(CLIP, source="tokenizer.json", clean="lower")
    return replace(made, source=str(folder / "tokenizer.json"))


def test_every_kind_of_character_is_read_as_clip_reads_it(exported_tokenizer: Tokenization) -> None:
    known = [chr(code) for code in range(32, 0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    texts = [f"a{''.join(known[n : n + 11])}1 {known[n]}b" for n in range(0, len(known), 11 * 17)]
    texts += [*PROBES, *(f"a{character} b" for character in known[:700])]
    assert np.array_equal(exported_tokenizer.tokenizer()(texts), load_named_tokenizer("ViT-B-32")(texts))


def test_reading_needs_no_torch(exported_tokenizer: Tokenization) -> None:
    script = (
        "import sys; from app.encoder.tokenizer import Tokenization\n"
        f"reads = Tokenization({exported_tokenizer.source!r}, 77, 'argmax', clean='lower').tokenizer()\n"
        "assert reads(['A  red CAR']).tolist() == [[49406, 320, 736, 1615, 49407]]\n"
        "assert 'torch' not in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_what_is_a_file_already_stays(tmp_path: Path) -> None:
    reads = Tokenization(str(tmp_path / "tokenizer.json"), 9)
    assert export_tokenizer(reads, tmp_path) is reads


def of_transformers(folder: Path, **options: object) -> Tokenization:
    """A model of the hub's form whose tokenizer is one of the transformers library."""
    write_tokenizer(folder, siglip=True)
    said = {
        "model_cfg": {"text_cfg": {"context_length": 16, "hf_tokenizer_name": str(folder), "tokenizer_kwargs": options}}
    }
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    return Tokenization(f"local-dir:{folder}", 16)


def test_tokenizers_of_transformers_are_written_with_their_cleaning_and_padding(tmp_path: Path) -> None:
    reads = of_transformers(tmp_path, clean="canonicalize")
    made = export_tokenizer(reads, tmp_path)
    assert made.clean == "canonicalize"
    texts = [*PROBES, "UPPER, lower; _under_score", "x y"]
    theirs = load_named_tokenizer(reads.source)(texts)
    assert np.array_equal(replace(made, source=str(tmp_path / "tokenizer.json")).tokenizer()(texts), theirs)


def test_what_does_more_than_a_file_can_say_stays_with_open_clip(tmp_path: Path) -> None:
    reads = of_transformers(tmp_path, strip_sep_token=True)
    assert export_tokenizer(reads, tmp_path / "elsewhere") is reads
