from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from app.core.errors import ModelUnavailable
from app.encoder.batcher import MAX_BATCH_PICTURES, MAX_BATCH_ROWS, Batcher
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings, Pixels
from tests.support.servers import wait_until

WAIT = 10.0


class GatedEncoder(DummyEncoder):
    """Encodes when it is let; certain words break it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.began = threading.Event()
        self.passes: list[tuple[str, int]] = []

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        self._pass("texts", len(texts))
        if "error" in texts:
            raise RuntimeError("out of memory")
        if "death" in texts:
            raise SystemExit  # no Exception: it ends the thread that encodes
        return super().encode_texts(texts)

    def encode_images(self, pixels: Pixels) -> Embeddings:
        self._pass("images", len(pixels))
        return super().encode_images(pixels)

    def _pass(self, kind: str, rows: int) -> None:
        self.passes.append((kind, rows))
        self.began.set()
        assert self.gate.wait(WAIT)


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
def batcher(encoder: GatedEncoder) -> Iterator[Batcher]:
    batcher = Batcher(encoder)
    yield batcher
    encoder.gate.set()
    batcher.close()


def test_each_caller_gets_the_vectors_of_what_it_sent(encoder: GatedEncoder, batcher: Batcher) -> None:
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    sent = [["blue"], ["green", "red", "yellow"], ["a cat"], []]
    rest = [batcher.submit_texts(words) for words in sent]
    encoder.gate.set()
    expected = DummyEncoder()
    np.testing.assert_array_equal(first.result(WAIT), expected.encode_texts(["red"]))
    for words, future in zip(sent, rest, strict=True):
        np.testing.assert_array_equal(future.result(WAIT), expected.encode_texts(words))


def test_what_arrives_during_a_pass_shares_the_next_one(encoder: GatedEncoder, batcher: Batcher) -> None:
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    rest = [batcher.submit_texts(["blue"]) for _ in range(5)]
    encoder.gate.set()
    for future in [first, *rest]:
        future.result(WAIT)
    assert encoder.passes == [("texts", 1), ("texts", 5)]


def test_words_and_pictures_are_encoded_in_passes_of_their_own_in_order(
    encoder: GatedEncoder, batcher: Batcher
) -> None:
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    futures = [batcher.submit_texts(["red"])]
    encoder.began.wait(WAIT)
    futures += [
        batcher.submit_images(picture),
        batcher.submit_images(picture),
        batcher.submit_texts(["blue"]),
        batcher.submit_images(picture),
    ]
    encoder.gate.set()
    assert [len(future.result(WAIT)) for future in futures] == [1] * 5
    assert encoder.passes == [("texts", 1), ("images", 2), ("texts", 1), ("images", 1)]


def test_a_pass_has_a_bound_and_what_is_larger_by_itself_still_goes(encoder: GatedEncoder, batcher: Batcher) -> None:
    futures = [batcher.submit_texts(["red"])]
    encoder.began.wait(WAIT)
    futures += [batcher.submit_texts(["red"] * n) for n in (MAX_BATCH_ROWS - 1, 2, MAX_BATCH_ROWS * 3)]
    encoder.gate.set()
    assert [len(future.result(WAIT)) for future in futures] == [1, MAX_BATCH_ROWS - 1, 2, MAX_BATCH_ROWS * 3]
    assert [rows for _, rows in encoder.passes] == [1, MAX_BATCH_ROWS - 1, 2, MAX_BATCH_ROWS * 3]


def test_a_pass_of_pictures_is_shorter_than_one_of_texts(encoder: GatedEncoder, batcher: Batcher) -> None:
    futures = [batcher.submit_texts(["red"])]
    encoder.began.wait(WAIT)
    pictures = np.zeros((MAX_BATCH_PICTURES // 2, 32, 32, 3), np.uint8)
    futures += [batcher.submit_images(pictures) for _ in range(3)]
    encoder.gate.set()
    assert [len(future.result(WAIT)) for future in futures] == [1, *[len(pictures)] * 3]
    assert encoder.passes == [("texts", 1), ("images", MAX_BATCH_PICTURES), ("images", len(pictures))]


def test_a_caller_that_went_away_is_dropped(encoder: GatedEncoder, batcher: Batcher) -> None:
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    gone, stays = batcher.submit_texts(["blue", "blue"]), batcher.submit_texts(["green"])
    assert gone.cancel()
    encoder.gate.set()
    first.result(WAIT)
    assert len(stays.result(WAIT)) == 1
    assert encoder.passes == [("texts", 1), ("texts", 1)]


def test_a_batch_of_which_all_went_away_is_no_batch(encoder: GatedEncoder, batcher: Batcher) -> None:
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    gone = [batcher.submit_texts(["blue"]) for _ in range(3)]
    assert all(future.cancel() for future in gone)
    encoder.gate.set()
    first.result(WAIT)
    assert len(batcher.submit_texts(["green"]).result(WAIT)) == 1


def test_a_failure_is_told_to_everyone_of_the_batch_and_the_next_one_works(
    encoder: GatedEncoder, batcher: Batcher
) -> None:
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    struck = [batcher.submit_texts(["blue"]), batcher.submit_texts(["error"]), batcher.submit_texts(["green"])]
    encoder.gate.set()
    first.result(WAIT)
    for future in struck:
        with pytest.raises(RuntimeError, match="out of memory"):
            future.result(WAIT)
    assert batcher.is_alive()
    assert len(batcher.submit_texts(["red"]).result(WAIT)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_its_thread_dies_every_waiter_fails_at_once_and_it_is_not_alive(
    encoder: GatedEncoder, batcher: Batcher
) -> None:
    assert batcher.is_alive()
    dying = batcher.submit_texts(["death"])
    encoder.began.wait(WAIT)
    waiting = [batcher.submit_texts(["red"]), batcher.submit_images(np.zeros((1, 32, 32, 3), np.uint8))]
    encoder.gate.set()
    for future in [dying, *waiting]:
        with pytest.raises(ModelUnavailable):
            future.result(WAIT)
    wait_until(lambda: not batcher.is_alive(), WAIT)
    with pytest.raises(ModelUnavailable):
        batcher.submit_texts(["red"])


def test_close_answers_those_who_wait_and_refuses_those_who_come_after(encoder: GatedEncoder) -> None:
    batcher = Batcher(encoder)
    futures = [batcher.submit_texts(["red"])]
    encoder.began.wait(WAIT)
    futures += [batcher.submit_texts(["blue"]) for _ in range(3)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    encoder.gate.set()
    closing.join(WAIT)
    assert all(future.done() for future in futures)
    assert [len(future.result(0)) for future in futures] == [1] * 4
    assert not batcher.is_alive()
    with pytest.raises(ModelUnavailable):
        batcher.submit_texts(["red"])


def test_many_threads_at_once_each_get_their_own_answer(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    batcher = Batcher(encoder)
    words = ["red", "blue", "green", "yellow", "a cat", "笑脸"]
    expected = dict(zip(words, DummyEncoder().encode_texts(words), strict=True))
    wrong: list[str] = []

    def ask(word: str) -> None:
        for _ in range(50):
            if not np.allclose(batcher.submit_texts([word]).result(WAIT)[0], expected[word]):
                wrong.append(word)

    threads = [threading.Thread(target=ask, args=(word,)) for word in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert wrong == []
    assert sum(rows for _, rows in encoder.passes) == 300


def test_a_text_that_was_asked_before_needs_no_pass(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    batcher = Batcher(encoder, cache_bytes=1 << 20)
    try:
        first = batcher.submit_texts(["red", "blue"]).result(WAIT)
        passes = len(encoder.passes)
        again = batcher.submit_texts(["blue", "red"]).result(WAIT)
        np.testing.assert_array_equal(again, first[::-1])
        assert len(encoder.passes) == passes
        batcher.submit_texts(["blue", "green"]).result(WAIT)
        assert len(encoder.passes) == passes + 1
    finally:
        batcher.close()


def test_patient_requests_let_others_go_first(encoder: GatedEncoder, batcher: Batcher) -> None:
    one = np.zeros((1, 32, 32, 3), np.uint8)
    first = batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    patient = [batcher.submit_images(one, is_patient=True) for _ in range(3)]
    later = [batcher.submit_texts(["blue"]), batcher.submit_images(np.zeros((2, 32, 32, 3), np.uint8))]
    assert patient[1].cancel()
    assert batcher.queue_length == 6
    encoder.gate.set()
    for future in (first, *later, patient[0], patient[2]):
        assert len(future.result(WAIT))
    assert encoder.passes == [("texts", 1), ("texts", 1), ("images", 2), ("images", 1), ("images", 1)]


def test_patient_request_does_not_wait_for_ever(
    encoder: GatedEncoder, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.encoder.batcher.PATIENCE", 0.0)
    batcher.submit_texts(["red"])
    encoder.began.wait(WAIT)
    patient = batcher.submit_images(np.zeros((1, 32, 32, 3), np.uint8), is_patient=True)
    later = batcher.submit_texts(["blue"])
    encoder.gate.set()
    assert len(patient.result(WAIT)) == len(later.result(WAIT)) == 1
    assert encoder.passes == [("texts", 1), ("images", 1), ("texts", 1)]


def test_close_answers_patient_requests(encoder: GatedEncoder, batcher: Batcher) -> None:
    patient = batcher.submit_images(np.zeros((1, 32, 32, 3), np.uint8), is_patient=True)
    encoder.gate.set()
    batcher.close()
    assert len(patient.result(WAIT)) == 1
