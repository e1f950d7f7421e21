"""How often an explanation points at the object that the words name, how often it says that it does not know, and how
long it takes.

`python -m bench.experiments.explain [SCENES]` draws scenes of two objects whose names share no word, asks for each by
its English name, and for a thing that is in neither, and compares ways to find the place: leaving parts out (what the
service does), GradCAM and attention rollout in torch. Then the same with ViT-B/32 of random weights, which knows
nothing, and the time of one explanation and of a search beside explanations. About five minutes on two cores.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.encoder.batcher import Batcher
from app.encoder.loader import EncoderOptions, load_encoder, locate_model
from app.encoder.open_clip import create_clip, find_tokenization
from app.encoder.protocol import Encoder, Pixels
from app.search.collection_profile import read_generic_captions
from app.search.explain import OTHERS, ROWS_PER_PASS, cover_parts, find_share, judge_place, spread
from bench.weights import WORK, model_name
from training.render import Renderer
from training.scenes import Scene, sample_scene
from training.sprites import Atlas, load_atlas

SCENES, RANDOM_SCENES, FIRST_SEED = 300, 60, 3_300_000_000
Grid = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Case:
    """A picture, the names of its two objects, and that of a thing which is not there."""

    scene: Scene
    pixels: Pixels
    names: tuple[str, str, str]


def draw_cases(atlas: Atlas, count: int, side: int) -> Iterator[Case]:
    renderer, rng, seed = Renderer(atlas), np.random.default_rng(0), FIRST_SEED
    while count:
        scene = sample_scene(seed, atlas.glyphs, count=2, styled=0.0)
        seed += 1
        first, second = (atlas.glyphs[one.glyph].names["en"] for one in scene.objects)
        absent = atlas.glyphs[int(rng.integers(len(atlas)))].names["en"]
        words = [set(name.lower().split()) for name in (first, second, absent)]
        if words[0] & words[1] or words[2] & (words[0] | words[1]):
            continue
        yield Case(scene, renderer.draw(scene, side), (first, second, absent))
        count -= 1


def points_at(scene: Scene, which: int, grid: Grid) -> bool:
    """Whether the strongest cell lies in the box of the object."""
    y, x = np.unravel_index(int(grid.argmax()), grid.shape)
    thing = scene.objects[which]
    across, down = (x + 0.5) / grid.shape[1], (y + 0.5) / grid.shape[0]
    return bool(abs(across - thing.x) <= thing.size / 2 and abs(down - thing.y) <= thing.size / 2)


def measure_ours(encoder: Encoder, cases: Sequence[Case]) -> None:
    captions = read_generic_captions(())
    others = encoder.encode_texts(captions[:: len(captions) // OTHERS][:OTHERS])
    hits, took = [], []
    verdicts: dict[str, list[str]] = {"named": [], "absent": []}
    for case in cases:
        began = time.perf_counter()
        texts = encoder.encode_texts(case.names)
        vectors = encoder.encode_images(np.concatenate([case.pixels[None], cover_parts(case.pixels)]))
        took.append(time.perf_counter() - began)
        scores, near = texts @ vectors[0], others @ vectors[0]
        for n, text in enumerate(texts):
            grid = spread(scores[n] - vectors[1:] @ text)
            verdict = judge_place(encoder.temperature * float(grid.max()), find_share(near, float(scores[n])))
            verdicts["named" if n < 2 else "absent"].append(verdict.match)
            if n < 2:
                hits.append(points_at(case.scene, n, grid))
    print(f"  leaving parts out      points at the object {np.mean(hits):.3f}, {statistics.median(took):.2f} s each")
    for who, found in verdicts.items():
        print(f"    {who:7}" + ", ".join(f" {match} {found.count(match) / len(found):.3f}" for match in MATCHES))


MATCHES = ("good", "weak", "none")


class TorchViT:
    """The starter in torch, with hooks: what GradCAM and attention rollout need of a model."""

    def __init__(self) -> None:
        spec = locate_model("starter", WORK)
        self.clip = create_clip(spec)
        self.tokenize = find_tokenization(self.clip, spec.architecture, spec.folder).tokenizer()
        self.blocks = list(self.clip.visual.transformer.resblocks)
        self.kept: dict[str, torch.Tensor] = {}
        self.attention: list[torch.Tensor] = []
        self.blocks[-1].ln_1.register_forward_hook(self._keep)
        for block in self.blocks:
            block.attn.register_forward_hook(self._keep_attention, with_kwargs=True)

    def _keep(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
        self.kept["tokens"] = output

    def _keep_attention(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        query = args[0] if args else kwargs["query"]
        width, heads = query.shape[-1], module.num_heads
        weight, bias = module.in_proj_weight, module.in_proj_bias
        q, k, _ = torch.nn.functional.linear(query.detach(), weight, bias).chunk(3, dim=-1)
        n, length = query.shape[:2]
        q, k = (one.reshape(n, length, heads, width // heads).transpose(1, 2) for one in (q, k))
        self.attention.append((q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1).mean(1))

    def see(self, pixels: Pixels) -> torch.Tensor:
        self.attention.clear()
        batch = (torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        features: torch.Tensor = self.clip.encode_image(batch.requires_grad_(), normalize=True)
        return features

    def map_by_gradient(self, case: Case) -> list[Grid]:
        """GradCAM on the tokens before the last block."""
        grids = []
        tokens = torch.from_numpy(self.tokenize(case.names[:2]))
        padded = torch.nn.functional.pad(tokens, (0, self.clip.context_length - tokens.shape[1]))
        texts = self.clip.encode_text(padded, normalize=True).detach()
        for text in texts:
            (self.see(case.pixels)[0] @ text).backward()
            kept = self.kept["tokens"]
            assert kept.grad is not None
            weights = (kept.grad * kept).sum(-1)[0, 1:].clamp(min=0)
            side = int(len(weights) ** 0.5)
            grids.append(weights.reshape(side, side).detach().numpy())
        return grids

    def map_by_rollout(self, case: Case) -> list[Grid]:
        """Attention rollout: the same map for every text."""
        with torch.no_grad():
            self.see(case.pixels)
        rolled = torch.eye(self.attention[0].shape[-1])
        for one in self.attention:
            mixed = one[0] + torch.eye(len(rolled))
            rolled = mixed / mixed.sum(-1, keepdim=True) @ rolled
        weights = rolled[0, 1:]
        side = int(len(weights) ** 0.5)
        return [weights.reshape(side, side).numpy()] * 2


def measure_torch(cases: Sequence[Case]) -> None:
    model = TorchViT()
    ways: dict[str, Callable[[Case], list[Grid]]] = {
        "GradCAM (torch)": model.map_by_gradient,
        "attention rollout (torch)": model.map_by_rollout,
    }
    for name, way in ways.items():
        hits = [points_at(case.scene, n, grid) for case in cases for n, grid in enumerate(way(case))]
        print(f"  {name:22} points at the object {np.mean(hits):.3f}")


def measure_waits(encoder: Encoder, pixels: Pixels) -> None:
    """How long the text of a search waits, alone and while explanations run without a pause."""
    batcher, stop = Batcher(encoder), threading.Event()

    def explain() -> None:
        views = np.concatenate([pixels[None], cover_parts(pixels)])
        while not stop.is_set():
            futures = [
                batcher.submit_images(views[n : n + ROWS_PER_PASS], is_patient=True)
                for n in range(0, len(views), ROWS_PER_PASS)
            ]
            for future in futures:
                future.result()

    def search(count: int) -> float:
        took = []
        for n in range(count):
            began = time.perf_counter()
            batcher.submit_texts([f"search {n} {began}"]).result()
            took.append(time.perf_counter() - began)
            time.sleep(0.05)
        return statistics.median(took) * 1000

    search(5)
    alone = search(40)
    thread = threading.Thread(target=explain)
    thread.start()
    beside = search(40)
    stop.set()
    thread.join()
    batcher.close()
    print(f"  text of a search: {alone:.0f} ms alone, {beside:.0f} ms beside explanations")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else SCENES
    WORK.mkdir(parents=True, exist_ok=True)
    atlas = load_atlas(WORK)
    starter = load_encoder("starter", WORK, EncoderOptions())
    cases = list(draw_cases(atlas, count, starter.preprocessing.size))
    print(f"starter, {count} scenes of two objects")
    measure_ours(starter, cases)
    measure_torch(cases)
    vit = load_encoder(model_name(), WORK, EncoderOptions())
    cases = list(draw_cases(atlas, RANDOM_SCENES, vit.preprocessing.size))
    print(f"ViT-B/32 with random weights, {RANDOM_SCENES} scenes")
    measure_ours(vit, cases)
    measure_waits(vit, cases[0].pixels)


if __name__ == "__main__":
    main()
