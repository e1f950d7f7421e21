"""The compiled encoder gives torch's vectors, without torch."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from app.core.files import sha256_file
from app.encoder import openvino
from app.encoder.conversion import convert, key_of
from app.encoder.loader import WEIGHTS, EncoderOptions, load_encoder
from app.encoder.openvino import CompiledModelInfo, OpenVinoEncoder, detect_precision, load_openvino
from app.encoder.protocol import Encoder, check_vectors
from app.encoder.weights import LocatedModel
from tests.app.encoder.small import make_model

TEXTS = ["red car", "two blue cats", "", "the green cake " * 20]
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def name(cache: Path) -> str:
    return make_model(cache / "model")


@pytest.fixture(scope="module")
def encoder(name: str, cache: Path) -> Encoder:
    return load_compiled(name, cache, "fp32")


def load_compiled(name: str, cache: Path, precision: str) -> Encoder:
    """Loaded as the service does it, from what is converted in this process, which has torch already."""
    weights = cache / "model" / WEIGHTS
    recipe = LocatedModel(name, name, weights, sha256_file(weights), half=precision != "fp32", cache=str(cache))
    convert(recipe, cache / "compiled" / key_of(recipe))
    return load_encoder(name, cache, EncoderOptions(precision=precision, runtime="openvino"))


def test_it_gives_the_vectors_that_torch_gives(name: str, cache: Path, encoder: Encoder) -> None:
    theirs = load_encoder(name, cache, EncoderOptions(runtime="torch", device="cpu"))
    assert isinstance(encoder, OpenVinoEncoder)
    assert encoder.space == theirs.space
    assert encoder.preprocessing == theirs.preprocessing
    assert encoder.temperature == pytest.approx(theirs.temperature)
    assert (encoder.logit_bias, theirs.logit_bias) == (None, None)
    np.testing.assert_allclose(encoder.encode_images(PICTURES), theirs.encode_images(PICTURES), atol=1e-3)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), theirs.encode_texts(TEXTS), atol=1e-4)
    assert np.abs(encoder.encode_texts(TEXTS)[0] - encoder.encode_texts(TEXTS)[1]).max() > 0.05


def test_a_conversion_has_the_bias_of_its_weights(tmp_path: Path) -> None:
    name = make_model(tmp_path / "model", init_logit_bias=-10.0)
    compiled = load_compiled(name, tmp_path, "fp32")
    in_torch = load_encoder(name, tmp_path, EncoderOptions(runtime="torch", device="cpu"))
    assert (compiled.logit_bias, in_torch.logit_bias) == (-10.0, -10.0)


def test_a_batch_gives_what_single_ones_give(encoder: Encoder) -> None:
    alone = np.concatenate([encoder.encode_images(PICTURES[n : n + 1]) for n in range(5)])
    np.testing.assert_allclose(encoder.encode_images(PICTURES), alone, atol=1e-5)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 19])
def test_a_bulk_encoded_in_parts_gives_the_same_vectors_in_the_same_order(
    name: str, cache: Path, encoder: Encoder, count: int
) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
    bulk = load_encoder(name, cache, EncoderOptions(precision="fp32", runtime="openvino", threads=2, bulk=True))
    np.testing.assert_allclose(bulk.encode_images(pictures), encoder.encode_images(pictures), atol=1e-6)


@pytest.mark.parametrize(("room", "is_made"), [(4, True), (1 << 40, False)])
def test_many_pictures_that_come_together_get_another_tower_where_memory_suffices(
    name: str, cache: Path, encoder: Encoder, room: int, is_made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "ROOM", room)
    pictures = np.random.default_rng(2).integers(0, 256, (openvino.MANY, 64, 64, 3)).astype(np.uint8)
    ours = load_encoder(name, cache, EncoderOptions(precision="fp32", runtime="openvino", threads=2))
    assert isinstance(ours, OpenVinoEncoder)
    ours.encode_images(pictures[1:])
    assert ours._compiling is None
    before = ours.encode_images(pictures)
    assert ours._compiling is not None
    ours._compiling.join()
    assert (ours._several is not None) == is_made
    np.testing.assert_allclose(ours.encode_images(pictures), before, atol=1e-6)


ALTERNATING = """
import sys
import numpy as np
from pathlib import Path
from app.encoder.loader import EncoderOptions, load_encoder
options = EncoderOptions(precision="fp32", runtime="openvino", threads=2, bulk=True)
bulk = load_encoder(sys.argv[1], Path(sys.argv[2]), options)
for n in range(1_000):
    pictures = np.stack([np.full((64, 64, 3), n % 256, np.uint8) for _ in range(1 + n % 2)])
    assert np.isfinite(bulk.encode_images(pictures)).all()
    other = [np.empty(100 + n % 7 * 4096, np.uint8) for _ in range(8)]
print("sound")
"""


def test_batches_of_one_and_of_more_in_turns_damage_no_memory(name: str, cache: Path, encoder: Encoder) -> None:
    # What is shared with one pass, and freed, must not be written to by the next one.
    words = [sys.executable, "-c", ALTERNATING, name, str(cache)]
    child = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "sound\n"), child.stderr[-2000:]


@pytest.mark.parametrize("count", [2, 9, 40])
def test_many_texts_get_the_vectors_of_each_in_their_order(encoder: Encoder, count: int) -> None:
    texts = [" ".join(["red car", "two blue cats", "cake"][: n % 4]) + " on" * (n * 7 % 11) for n in range(count)]
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode_texts(texts), alone, atol=1e-5)


def test_what_was_answered_does_not_change_with_the_next_call(encoder: Encoder) -> None:
    first = encoder.encode_texts(TEXTS[:1])
    kept = first.copy()
    encoder.encode_texts(TEXTS[1:2])
    np.testing.assert_array_equal(first, kept)
    check_vectors(first)


def test_bf16_keeps_the_direction(name: str, cache: Path, encoder: Encoder) -> None:
    half = load_compiled(name, cache, "bf16")
    assert half.runtime == "OpenVINO bf16"
    assert ((half.encode_images(PICTURES) * encoder.encode_images(PICTURES)).sum(axis=1) > 0.999).all()
    assert ((half.encode_texts(TEXTS) * encoder.encode_texts(TEXTS)).sum(axis=1) > 0.999).all()


def test_threads_may_share_one_encoder(encoder: Encoder) -> None:
    expected = encoder.encode_texts(TEXTS)
    wrong: list[int] = []

    def ask(n: int) -> None:
        for _ in range(20):
            if not np.allclose(encoder.encode_texts(TEXTS[n : n + 1])[0], expected[n], atol=1e-5):
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_card_says_the_same_when_read_again(encoder: Encoder, tmp_path: Path, cache: Path) -> None:
    folder = next((cache / "compiled").glob("*/card.json")).parent
    card = CompiledModelInfo.read(folder)
    assert card.space == encoder.space
    card.write(tmp_path)
    assert CompiledModelInfo.read(tmp_path) == card


def test_a_second_start_needs_no_torch_and_reports_to_nobody(name: str, cache: Path, encoder: Encoder) -> None:
    script = (
        "import sys; from pathlib import Path; from app.encoder.loader import EncoderOptions, load_encoder\n"
        "options = EncoderOptions(precision='fp32', runtime='openvino')\n"
        f"encoder = load_encoder({name!r}, Path({str(cache)!r}), options)\n"
        "encoder.encode_texts(['red car'])\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_precision_is_one_that_the_processor_has() -> None:
    assert detect_precision() in ("fp32", "bf16")
    assert load_openvino().__name__ == "openvino"
