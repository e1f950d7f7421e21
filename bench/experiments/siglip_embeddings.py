"""The vectors of a SigLIP in our server, in infinity, and as transformers defines them.

`python -m bench.experiments.siglip_embeddings`, about three minutes. A SigLIP ViT-B/16 with seeded random weights and a
tokenizer of whole words is written in open_clip's form and in that of transformers. SigLIP's text tower sees a text
padded to 64 tokens and reads its vector at the last of them; who pads a text to the longest of its batch gets another
vector, and another one in another batch.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.encoder.portable import export_model
from app.encoder.protocol import Embeddings
from bench.environment import install
from bench.experiments.embeddings import data_uri
from bench.peers import PACKAGES, PEERS, least_cosine, run_peer
from bench.pictures import SMALL, make_photographs
from bench.results import Figures, save_figures
from bench.servers import HOST, make_queries, request
from bench.weights import WORK

FOLDER = WORK / "siglip"
CONVERTED = FOLDER / "converted"
LENGTH, SIDE, WIDTH, HEADS, LAYERS = 64, 224, 768, 12, 12
COUNT = 8
ATTENTION = ("q_proj", "k_proj", "v_proj")
# Computes the vectors in infinity's environment, which has a transformers that is as old as it needs.
REFERENCE = """
import json, sys, torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
model, processor = AutoModel.from_pretrained(sys.argv[1]).eval(), AutoProcessor.from_pretrained(sys.argv[1])
asked = json.load(sys.stdin)
with torch.no_grad():
    words = processor(text=asked["texts"], padding="max_length", max_length=64, return_tensors="pt")
    pictures = processor(images=[Image.open(one) for one in asked["files"]], return_tensors="pt")
    texts, seen = model.get_text_features(**words), model.get_image_features(**pictures)
print(json.dumps([texts.tolist(), seen.tolist()]))
"""


def main() -> None:
    install(PEERS / "infinity", PACKAGES["infinity"])
    texts, files = make_queries(COUNT), make_photographs(COUNT, SMALL)
    ours, theirs = write_models(texts)
    expected = compute_reference(theirs, texts, files)
    figures: Figures = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {"ours": free_port(HOST, 0), "infinity": free_port(HOST, 0)}
        if not CONVERTED.exists():  # here: beside other work it may take longer than a server may take to start
            export_model(f"local-dir:{ours}", WORK, CONVERTED)
        process = stack.enter_context(run_server(folder, HOST, ports["ours"], f"local-dir:{CONVERTED}"))
        wait_until_ready(stack.enter_context(Client(f"http://{HOST}:{ports['ours']}")), process)
        words = ["v2", "--model-id", str(theirs), "--served-model-name", "default"]
        words += ["--engine", "torch", "--device", "cpu", "--no-model-warmup"]
        command: list[str | Path] = [PEERS / "infinity/bin/infinity_emb", *words, "--host", HOST]
        port = ports["infinity"]
        stack.enter_context(run_peer("infinity", [*command, "--port", str(port)], port, embed_text))
        for name, port in ports.items():
            connection = http.client.HTTPConnection(HOST, port, timeout=300)
            got = embed(connection, texts, "text"), embed(connection, [data_uri(one) for one in files], "image")
            figures[f"{name}: least cosine of a text to transformers"] = least_cosine(got[0], expected[0])
            figures[f"{name}: least cosine of a picture to transformers"] = least_cosine(got[1], expected[1])
            alone = embed(connection, texts[:1], "text")
            longer = embed(connection, [texts[0], " ".join(texts[:4])], "text")[:1]
            figures[f"{name}: cosine of a text alone and beside a longer one"] = least_cosine(alone, longer)
    save_figures("siglip_embeddings", figures)


def embed_text(connection: http.client.HTTPConnection, text: str) -> None:
    embed(connection, [text], "text")


def embed(connection: http.client.HTTPConnection, inputs: list[str], modality: str) -> Embeddings:
    body = json.dumps({"input": inputs, "modality": modality, "model": "default"})
    data = json.loads(request(connection, "POST", "/embeddings", body))["data"]
    return np.array([one["embedding"] for one in data], np.float32)


def compute_reference(folder: Path, texts: list[str], files: list[Path]) -> tuple[Embeddings, Embeddings]:
    asked = json.dumps({"texts": texts, "files": list(map(str, files))})
    command: list[str | Path] = [PEERS / "infinity/bin/python", "-c", REFERENCE, folder]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    words, seen = json.loads(done.stdout.splitlines()[-1])
    return np.array(words, np.float32), np.array(seen, np.float32)


def write_models(texts: list[str]) -> tuple[Path, Path]:
    """The folders of the model in the form of open_clip and in that of transformers."""
    ours, theirs = FOLDER / "open_clip", FOLDER / "transformers"
    words = sorted({word for text in texts for word in text.split()})
    text: dict[str, Any] = {
        "context_length": LENGTH,
        "vocab_size": len(words) + 3,
        "width": WIDTH,
        "heads": HEADS,
        "layers": LAYERS,
    }
    text |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
    vision: dict[str, Any] = {
        "image_size": SIDE,
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_model_pretrained": False,
    }
    vision |= {"timm_pool": "map", "timm_proj": "none"}
    config = {"embed_dim": WIDTH, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}
    half = [0.5] * 3
    seen = {"size": SIDE, "mode": "RGB", "mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    for folder in (ours, theirs):
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(folder, words)
    (ours / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {**config, "custom_text": True}, "preprocess_cfg": seen})
    )
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = open_clip.CustomTextCLIP(**config, output_dict=True).state_dict()
    save(state, ours / "open_clip_model.safetensors")
    renamed = dict(pair for name, value in state.items() for pair in rename_tensor(name, value))
    head = "vision_model.head.attention"
    for kind in ("weight", "bias"):
        renamed[f"{head}.in_proj_{kind}"] = torch.cat([renamed.pop(f"{head}.{part}.{kind}") for part in ("q", "kv")])
    save(renamed, theirs / "model.safetensors")
    write_transformers_files(theirs, len(words) + 3)
    return ours, theirs


def save(state: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.clone().contiguous() for name, value in state.items()}, str(path), metadata={"format": "pt"})


def write_tokenizer(folder: Path, words: list[str]) -> None:
    numbers = {word: n for n, word in enumerate(["</s>", "<pad>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(numbers, "<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=LENGTH)  # noqa: S106
    tokenizer.save(str(folder / "tokenizer.json"))


def write_transformers_files(folder: Path, vocabulary: int) -> None:
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS, "hidden_act": "gelu"}
    shared |= {"num_attention_heads": HEADS, "layer_norm_eps": 1e-6}
    text = {"model_type": "siglip_text_model", "vocab_size": vocabulary, "max_position_embeddings": LENGTH}
    text |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
    vision = {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": 16}
    files: dict[str, Any] = {
        "config.json": {
            "model_type": "siglip",
            "architectures": ["SiglipModel"],
            "text_config": {**shared, **text},
            "vision_config": {**shared, **vision},
        },
        "preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "VisionTextDualEncoderProcessor",  # as SigLIP's, but of any tokenizer
            "size": {"height": SIDE, "width": SIDE},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": 3,
            **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"), True),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": LENGTH,
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "model_input_names": ["input_ids"],
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def rename_tensor(name: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensor by its names in transformers, which splits query, key and value where open_clip joins them."""
    plain = {
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
        "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.trunk.pos_embed": "vision_model.embeddings.position_embedding.weight",
        "visual.trunk.attn_pool.latent": "vision_model.head.probe",
    }
    parts = {
        "text.ln_final.": "text_model.final_layer_norm.",
        "text.text_projection.": "text_model.head.",
        "visual.trunk.patch_embed.proj.": "vision_model.embeddings.patch_embedding.",
        "visual.trunk.norm.": "vision_model.post_layernorm.",
        "visual.trunk.attn_pool.proj.": "vision_model.head.attention.out_proj.",
        "visual.trunk.attn_pool.norm.": "vision_model.head.layernorm.",
        "visual.trunk.attn_pool.mlp.": "vision_model.head.mlp.",
        "visual.trunk.attn_pool.": "vision_model.head.attention.",  # q and kv, which are joined below
    }
    blocks = {"text.transformer.resblocks.": "text_model", "visual.trunk.blocks.": "vision_model"}
    inside = {"ln_1": "layer_norm1", "norm1": "layer_norm1", "ln_2": "layer_norm2", "norm2": "layer_norm2"}
    inside |= {"attn.out_proj": "self_attn.out_proj", "attn.proj": "self_attn.out_proj"}
    inside |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    if name in plain:
        yield plain[name], value.reshape(1) if name.startswith("logit") else value[0] if "pos_embed" in name else value
        return
    for start, model in blocks.items():
        if name.startswith(start):
            number, _, rest = name.removeprefix(start).partition(".")
            layer, (where, _, kind) = f"{model}.encoder.layers.{number}", rest.rpartition(".")
            if "attn.in_proj" in rest or where == "attn.qkv":
                kind = kind.removeprefix("in_proj_")
                for letter, third in zip(ATTENTION, value.chunk(3), strict=True):
                    yield f"{layer}.self_attn.{letter}.{kind}", third
            else:
                yield f"{layer}.{inside[where]}.{kind}", value
            return
    start = next(one for one in parts if name.startswith(one))
    yield parts[start] + name.removeprefix(start), value


if __name__ == "__main__":
    main()
