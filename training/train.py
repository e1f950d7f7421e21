"""Trains the starter model: `python -m training.train --until 20:20` (UTC) or `--minutes 120`.

Half the time at full rate, then down to zero by the clock, so that it always ends finished; then the
weights are exported to app/encoder/starter/ and evaluated (training/work/final.txt). In the background of other work,
`--pictures 600000` counts pictures instead, over all resumed runs.
"""

from __future__ import annotations

import argparse
import datetime
import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip.model
import torch
from tokenizers import Tokenizer
from torch import Tensor

from app.core.files import sha256_file
from app.encoder.conversion import convert_into
from app.encoder.loader import WEIGHTS
from app.encoder.weights import LocatedModel
from training import evaluate
from training.feed import Batch, stream
from training.guide import Guide
from training.model import SIDE, STARTER, create_model, export, load
from training.muon import compute_in_float32
from training.sprites import LANGUAGES, WORK, Glyph, load_atlas
from training.step import HAS_BF16, Stepper
from training.towers import encode_texts
from training.vocabulary import load_tokenizer, take_shipped_tokenizer, tokenize
from training.wide import load_wide_atlas

CHECKPOINT = WORK / "checkpoint.pt"
_WARM_UP = 60  # steps
_DECAY_FROM = 0.5  # of the time
_GUIDED_UNTIL = 0.9  # of the time; the guide fades from where the rate begins to fall
_HALVES_UNTIL = 0.25  # of the time: small batches first, for more steps while they are easy
_AVERAGE = 0.998  # how slowly the averaged weights follow


@dataclass
class State:
    """Everything a checkpoint holds."""

    model: open_clip.model.CLIP
    guide: Guide
    average: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    stepper: Stepper
    step: int = 0
    seen: int = 0  # pictures

    def save(self, path: Path = CHECKPOINT) -> None:
        """Write to a temporary file first: an interrupted save leaves the old checkpoint."""
        values = {
            "model": self.model.state_dict(),
            "guide": self.guide.state_dict(),
            "average": self.average,
            "step": self.step,
            "seen": self.seen,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(values, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path = CHECKPOINT) -> bool:
        """Go on from a checkpoint; whether its guide knew the things that are drawn now, else it begins anew."""
        values = torch.load(path, weights_only=True)
        self.model.load_state_dict(values["model"])
        self.average = values["average"]
        self.step, self.seen = int(values["step"]), int(values["seen"])
        optimizers = list(zip(self.optimizers, values["optimizers"], strict=True))
        is_same = len(values["guide"]["prototypes"]) == len(self.guide.prototypes)
        if is_same:
            self.guide.load_state_dict(values["guide"])
        for optimizer, saved in optimizers if is_same else optimizers[:-1]:
            optimizer.load_state_dict(saved)
        return is_same


def start(words: int, classes: int, rate: float, threads: int) -> State:
    """A fresh model. Muon trains the square weights of the blocks, AdamW all others."""
    torch.manual_seed(0)
    model = create_model(words)
    guide = Guide(classes, model.text_projection.shape[1], model.visual.class_embedding.shape[0])
    inner, plain, rest = (list[torch.nn.Parameter]() for _ in range(3))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "resblocks" in name:
            inner.append(parameter)
        else:
            (plain if parameter.ndim < 2 else rest).append(parameter)
    groups = [{"params": rest, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate / 2, betas=(0.9, 0.98))]
    for k in range(threads):  # one for each thread: its matrix iterations are a tenth of the work
        muon = torch.optim.Muon(inner[k::threads], lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
    optimizers.append(torch.optim.AdamW(guide.parameters(), lr=rate / 2, betas=(0.9, 0.98), weight_decay=0.0))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    return State(model, guide, average, optimizers, Stepper(model, guide, threads))


def begin_with_starter(state: State) -> None:
    """Take the shipped weights."""
    state.model.load_state_dict(load(STARTER)[0].state_dict())
    state.average = {name: value.clone() for name, value in state.model.state_dict().items()}


def blend_with_shipped(weights: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The mean of the weights and of those that training began with: it keeps most of what both know.

    Source: Wortsman and others, Robust fine-tuning of zero-shot models (2022).
    """
    if share == 1:
        return weights
    shipped = load(STARTER)[0].state_dict()
    return {name: shipped[name].lerp(value, share) for name, value in weights.items()}


@torch.no_grad()
def teach_guide(state: State, glyphs: Sequence[Glyph], tokenizer: Tokenizer) -> None:
    """Begin the guide's prototypes with what the model says to each glyph's names."""
    said = [
        encode_texts(state.model, torch.from_numpy(tokenize(tokenizer, [glyph.names[each] for glyph in glyphs])))
        for each in LANGUAGES
    ]
    state.guide.prototypes.copy_(torch.stack(said).mean(dim=0))


def rate_at(step: int, done: float) -> float:
    """Share of the full learning rate at `step`, with `done` of the time passed."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    return warm * min(1.0, max(0.0, (1 - done) / (1 - _DECAY_FROM)))


def advance(state: State, batch: Batch, share: float, rate: float) -> tuple[float, ...]:
    """Run one step; returns the losses."""
    losses = state.stepper.gradients(batch)
    for optimizer in state.optimizers:
        full = rate if isinstance(optimizer, torch.optim.Muon) else rate / 2
        for group in optimizer.param_groups:
            group["lr"] = full * share
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    list(state.stepper.team.map(lambda optimizer: optimizer.step(), state.optimizers))
    with torch.no_grad():
        state.model.logit_scale.clamp_(0, math.log(100))
        keep = min(_AVERAGE, (1 + state.step) / (10 + state.step))
        for name, value in state.model.state_dict().items():
            state.average[name].lerp_(value, 1 - keep)
    state.step += 1
    return losses


@dataclass(frozen=True)
class Plan:
    """For how long to train, and how. The end is a number of pictures, or else of seconds."""

    seconds: float
    pictures: int | None
    size: int  # of a batch
    rate: float
    check_every: float  # seconds

    def done(self, seen: int, seconds: float) -> float:
        """The part that is done after `seen` pictures, `seconds` after the start of this run; 1 at the end."""
        return seconds / self.seconds if self.pictures is None else seen / self.pictures


def run(state: State, plan: Plan, stop: threading.Event) -> None:
    """Train by the plan or until `stop` is set; log, save and check meanwhile."""
    atlas = load_atlas()
    tokenizer = load_tokenizer(atlas.glyphs)
    trials = {"scenes": evaluate.make_trial(atlas, count=500), "openmoji": evaluate.hand_trial(atlas, "openmoji", 500)}
    began = logged = checked = time.monotonic()
    losses: list[tuple[float, ...]] = []
    warm_from, seen = state.step, 0
    for batch in stream(plan.size, SIDE, state.step):
        now = time.monotonic()
        done = plan.done(state.seen, now - began)
        if done >= 1 or stop.is_set():
            break
        state.stepper.guidance = min(1.0, max(0.0, (_GUIDED_UNTIL - done) / (_GUIDED_UNTIL - _DECAY_FROM)))
        for part in batch.parts(2 if done < _HALVES_UNTIL else 1):
            losses.append(advance(state, part, rate_at(state.step - warm_from, done), plan.rate))
        seen, state.seen = seen + plan.size, state.seen + plan.size
        if now - logged > 30:
            speed, share = seen / (now - logged), rate_at(state.step - warm_from, done)
            _log(state, (now - began) / 60, losses, plan.rate * share, speed)
            logged, losses, seen = now, [], 0
        if now - checked > plan.check_every:
            state.save()
            _check(state, trials, tokenizer)
            checked = time.monotonic()


def _log(state: State, minutes: float, losses: list[tuple[float, ...]], rate: float, speed: float) -> None:
    mean = " ".join(f"{value:.3f}" for value in np.mean(losses, axis=0))
    scale = float(state.model.logit_scale.detach().exp())
    head = f"{minutes:6.1f} min  step {state.step}  loss {mean}"
    print(f"{head}  scale {scale:.1f}  rate {rate:.5f}  pictures {state.seen}  {speed:.0f}/s", flush=True)


def _check(state: State, trials: dict[str, evaluate.Trial], tokenizer: Tokenizer) -> None:
    model = create_model(tokenizer.get_vocab_size())
    model.load_state_dict(state.average)
    for row, trial in trials.items():
        figures = evaluate.score(evaluate.Model(model.eval(), tokenizer), trial)
        print(f"  {row}  " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)


def _seconds(arguments: argparse.Namespace) -> float:
    if arguments.until is None:
        return float(arguments.minutes) * 60
    now = datetime.datetime.now(datetime.UTC)
    hour, minute = (int(part) for part in arguments.until.split(":"))
    end = now.replace(hour=hour, minute=minute, second=0)
    return (end - now).total_seconds() % 86400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", help="HH:MM, UTC")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--pictures", type=int, help="end after so many, over all resumed runs, whatever the time")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-3, help="Muon's learning rate; AdamW has half")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--from-starter", action="store_true", help="begin with the shipped weights")
    parser.add_argument("--check-every", type=float, default=10, help="minutes")
    parser.add_argument("--folder", type=Path, default=STARTER, help="where the finished model is exported")
    parser.add_argument("--blend", type=float, default=1.0, help="share of these weights beside the shipped ones")
    parser.add_argument("--no-export", action="store_true", help="leave that folder as it is")
    arguments = parser.parse_args()
    if not HAS_BF16:
        compute_in_float32()
    torch.set_num_threads(1)  # the team's threads share the work by chunks instead
    glyphs = load_wide_atlas().glyphs
    tokenizer = take_shipped_tokenizer() if arguments.from_starter else load_tokenizer(load_atlas().glyphs)
    state = start(tokenizer.get_vocab_size(), len(glyphs), arguments.rate, arguments.threads)
    if arguments.from_starter:
        begin_with_starter(state)
        teach_guide(state, glyphs, tokenizer)
    if arguments.resume and not state.load():
        teach_guide(state, glyphs, tokenizer)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pictures, size = arguments.pictures, arguments.batch
    run(state, Plan(_seconds(arguments), pictures, size, arguments.rate, arguments.check_every * 60), stop)
    state.save()
    if stop.is_set():
        return  # --resume continues from here
    if not arguments.no_export:
        folder = arguments.folder
        export(blend_with_shipped(state.average, arguments.blend), tokenizer, folder)
        weights = folder / WEIGHTS
        convert_into(LocatedModel("starter", f"local-dir:{folder}", weights, sha256_file(weights)), folder)
        (WORK / "final.txt").write_text(evaluate.report(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
