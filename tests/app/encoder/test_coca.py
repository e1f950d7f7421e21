"""Captions by CoCa: a small model that learned to name two colours, and the beam search against sums of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from app.core.errors import StartupError
from app.encoder.coca import FIRST, LAST, CaptionDecoder, CocaCaptioner, load_captioner, search_beams
from app.encoder.loader import EncoderOptions, check_weights, find_captioner_name
from app.encoder.protocol import Pixels
from app.encoder.weights import LocatedModel
from tests.app.encoder.small import make_model
from tests.app.encoder.small_coca import CAPTIONS, CONFIG, make_coca

OPTIONS = EncoderOptions("cpu", threads=1)


def fill(colour: tuple[int, int, int]) -> Pixels:
    return np.broadcast_to(np.array(colour, np.uint8), (32, 32, 3))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_coca(tmp_path_factory.mktemp("coca"))


@pytest.fixture(scope="module")
def captioner(setting: str, tmp_path_factory: pytest.TempPathFactory) -> CocaCaptioner:
    return load_captioner(setting, tmp_path_factory.mktemp("models"), OPTIONS)


def test_writes_what_it_has_learned_for_a_batch(captioner: CocaCaptioner) -> None:
    colours = [*CAPTIONS, *reversed(CAPTIONS)]
    assert captioner.caption(np.stack([fill(one) for one in colours])) == [CAPTIONS[one] for one in colours]


def test_writes_the_same_for_a_picture_alone(captioner: CocaCaptioner) -> None:
    for colour, words in CAPTIONS.items():
        assert captioner.caption(fill(colour)[None]) == [words]


def score(coca: torch.nn.Module, latent: torch.Tensor, tokens: torch.Tensor, words: list[int]) -> float:
    """The mean logarithm of the probability of each token of a caption, in one pass."""
    whole = torch.tensor([[FIRST, *words, LAST]])
    logits = coca(None, whole[:, :-1], image_latent=latent, image_embs=tokens, output_labels=False)["logits"]
    steps = torch.log_softmax(logits[0].float(), -1)
    return float(steps[torch.arange(len(words) + 1), whole[0, 1:]].mean())


@torch.inference_mode()
def test_the_decoder_gives_the_logits_of_open_clip(captioner: CocaCaptioner) -> None:
    coca = captioner._coca
    latent, tokens = coca._encode_image(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    decoder = CaptionDecoder(coca, tokens, 2)
    texts = torch.tensor([[FIRST, 320, 736, 53], [FIRST, 320, 1125, 7], [FIRST, 5, 6, 7], [FIRST, 5, 8, 9]])
    for n in range(texts.shape[1]):
        logits = decoder.read(texts[:, n])
        whole = {"image_latent": latent.repeat_interleave(2, 0), "image_embs": tokens.repeat_interleave(2, 0)}
        expected = coca(None, texts[:, : n + 1], **whole, output_labels=False)["logits"][:, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    rows = torch.tensor([1, 1, 3, 2])
    decoder.keep(rows)
    logits = decoder.read(torch.tensor([9, 10, 11, 12]))
    longer = torch.cat([texts[rows], torch.tensor([[9], [10], [11], [12]])], 1)
    expected = coca(None, longer, **whole, output_labels=False)["logits"][:, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_more_beams_find_captions_that_are_no_less_likely(captioner: CocaCaptioner) -> None:
    coca = captioner._coca
    mixed = [tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()) for seed in range(6)]
    pixels = torch.from_numpy(np.stack([fill(one) for one in mixed])).permute(0, 3, 1, 2).float()
    latent, tokens = coca._encode_image((pixels - captioner._mean) / captioner._std)
    alone, many = (search_beams(CaptionDecoder(coca, tokens, beams), len(mixed), beams) for beams in (1, 6))
    for n in range(len(mixed)):
        one = slice(n, n + 1)
        scores = [score(coca, latent[one], tokens[one], found[n]) for found in (alone, many)]
        assert scores[1] >= scores[0] - 1e-4
    assert all(4 <= len(words) < 30 for words in alone + many)


@torch.inference_mode()
def test_cuts_a_caption_that_does_not_end(captioner: CocaCaptioner) -> None:
    coca = captioner._coca

    class Endless(CaptionDecoder):
        def read(self, words: torch.Tensor) -> torch.Tensor:
            logits = super().read(words)
            logits[:, LAST] = -1e9
            return logits

    _, tokens = coca._encode_image(torch.zeros(2, 3, 32, 32))
    found = search_beams(Endless(coca, tokens, 2), 2, 2)
    assert [len(one) for one in found] == [29, 29]
    assert SimpleTokenizer().decode(found[0])


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("open_clip:coca_ViT-L-14/laion2b_s13b_b90k", "coca_ViT-L-14/laion2b_s13b_b90k"),
        ("open_clip:coca_ViT-L-14//models/coca.safetensors", "coca_ViT-L-14:/models/coca.safetensors"),
        ("open_clip:coca_ViT-L-14:coca.safetensors", "coca_ViT-L-14:coca.safetensors"),
        ("open_clip:local-dir:/models/coca", "local-dir:/models/coca"),
        ("open_clip:hf-hub:laion/CoCa-ViT-B-32-laion2B-s13B-b90k", "hf-hub:laion/CoCa-ViT-B-32-laion2B-s13B-b90k"),
    ],
)
def test_names_models_as_the_loader_does(setting: str, name: str) -> None:
    assert find_captioner_name(setting) == name


def test_finds_the_weights_in_a_folder(setting: str) -> None:
    folder = Path(setting.removeprefix("open_clip:local-dir:"))
    assert find_captioner_name(f"open_clip:coca_x/{folder}") == f"coca_x:{folder}/open_clip_model.safetensors"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("open_clip:ViT-B-32/openai", "only a CoCa"),
        ("open_clip:coca_ViT-L-14//nowhere/x.safetensors", "there is no file"),
        ("open_clip:coca_ViT-L-14//nowhere/x.bin", "must be a .safetensors"),
        ("open_clip:coca_nothing/laion2b", "knows no architecture"),
    ],
)
def test_says_why_there_is_no_such_captioner(setting: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=words):
        load_captioner(setting, tmp_path, OPTIONS)


def test_refuses_models_that_cannot_write(setting: str, tmp_path: Path) -> None:
    clip = make_model(tmp_path / "clip")
    with pytest.raises(StartupError, match="has no decoder"):
        load_captioner(f"open_clip:{clip}", tmp_path, OPTIONS)
    text = {**CONFIG["text_cfg"], "vocab_size": 400}
    other = make_coca(tmp_path / "other", teaches=False, text_cfg=text)
    with pytest.raises(StartupError, match="vocabulary"):
        load_captioner(other, tmp_path, OPTIONS)


def test_refuses_weights_that_were_altered(setting: str, tmp_path: Path) -> None:
    folder = Path(setting.removeprefix("open_clip:local-dir:"))
    blob = tmp_path / hashlib.sha256(b"another file").hexdigest()
    blob.write_bytes((folder / "open_clip_model.safetensors").read_bytes()[:-8] + b"somebody")
    with pytest.raises(StartupError, match="damaged or was altered"):
        check_weights(LocatedModel("x", "coca_x", blob, blob.name))
