# mypy: ignore-errors
"""Calls of LangChain's and LlamaIndex's embeddings classes, run in an environment that has them.

`python frameworks.py URL KEY RED.png BLUE.png`. Prints a line of JSON for each call: its name, and what it got.
"""

import asyncio
import json
import os
import sys

import numpy as np
import voyageai

URL, KEY, RED, BLUE = sys.argv[1:]
TEXTS = ["a red car", "the blue sea"]
os.environ |= {"NVIDIA_API_KEY": KEY, "COHERE_API_KEY": KEY, "VOYAGE_API_KEY": KEY}
# Voyage's tokenizers are on the model hub, which a test cannot reach; both frameworks count tokens with them first.
voyageai.Client.tokenize = lambda self, texts, model=None: [text.split() for text in texts]

from langchain_cohere import CohereEmbeddings  # noqa: E402
from langchain_community.embeddings import InfinityEmbeddings, JinaEmbeddings  # noqa: E402
from langchain_community.embeddings import jina as langchain_jina  # noqa: E402
from langchain_openai import OpenAIEmbeddings  # noqa: E402
from langchain_voyageai import VoyageAIEmbeddings  # noqa: E402
from llama_index.embeddings.cohere import CohereEmbedding  # noqa: E402
from llama_index.embeddings.jinaai import JinaEmbedding  # noqa: E402
from llama_index.embeddings.nvidia import NVIDIAEmbedding  # noqa: E402
from llama_index.embeddings.openai_like import OpenAILikeEmbedding  # noqa: E402
from llama_index.embeddings.voyageai import VoyageEmbedding  # noqa: E402


def tell(call: str, **got: object) -> None:
    print(json.dumps({"call": call, **got}, default=lambda value: np.asarray(value).tolist()), flush=True)


def ask_langchain() -> None:
    model = OpenAIEmbeddings(model="colours", base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False)
    tell("LangChain OpenAIEmbeddings", texts=model.embed_documents(TEXTS))
    tell("LangChain OpenAIEmbeddings, a query", texts=[model.embed_query(TEXTS[0])])
    tell("LangChain OpenAIEmbeddings, async", texts=asyncio.run(model.aembed_documents(TEXTS)))
    model = CohereEmbeddings(model="embed-v4.0", base_url=URL, cohere_api_key=KEY)
    tell("LangChain CohereEmbeddings", texts=model.embed_documents(TEXTS))
    model = VoyageAIEmbeddings(model="voyage-3", voyage_api_key=KEY)
    model._client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")  # it takes no base URL before 0.4
    tell("LangChain VoyageAIEmbeddings", texts=model.embed_documents(TEXTS))
    langchain_jina.JINA_API_URL = f"{URL}/v1/embeddings"  # a constant of the module
    model = JinaEmbeddings(jina_api_key=KEY, model_name="jina-clip-v2")
    tell("LangChain JinaEmbeddings", texts=model.embed_documents(TEXTS))
    tell("LangChain JinaEmbeddings, pictures", pictures=model.embed_images([RED, BLUE]))


def ask_langchain_infinity() -> None:
    """Its client sends no key: for a server without keys."""
    tell(
        "LangChain InfinityEmbeddings",
        texts=InfinityEmbeddings(model="colours", infinity_api_url=URL).embed_documents(TEXTS),
    )


def ask_llama_index() -> None:
    model = OpenAILikeEmbedding(model_name="colours", api_base=f"{URL}/v1", api_key=KEY)
    tell("LlamaIndex OpenAILikeEmbedding", texts=model.get_text_embedding_batch(TEXTS))
    model = CohereEmbedding(model_name="embed-v4.0", base_url=URL, api_key=KEY)
    tell("LlamaIndex CohereEmbedding", texts=model.get_text_embedding_batch(TEXTS))
    tell("LlamaIndex CohereEmbedding, a picture", pictures=[model.get_image_embedding(RED)])
    model = VoyageEmbedding(model_name="voyage-multimodal-3", voyage_api_key=KEY)
    model._client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")
    tell("LlamaIndex VoyageEmbedding", texts=model.get_text_embedding_batch(TEXTS))
    tell("LlamaIndex VoyageEmbedding, a picture", pictures=[model.get_image_embedding(RED)])
    model = JinaEmbedding(model="jina-clip-v2", api_key=KEY)
    model._api.api_url = f"{URL}/v1/embeddings"
    tell("LlamaIndex JinaEmbedding", texts=model.get_text_embedding_batch(TEXTS))
    tell("LlamaIndex JinaEmbedding, a picture", pictures=[model.get_image_embedding(RED)])
    model = NVIDIAEmbedding(base_url=f"{URL}/v1", model="colours", api_key=KEY)
    tell("LlamaIndex NVIDIAEmbedding", texts=model.get_text_embedding_batch(TEXTS))


if KEY == "none":
    ask_langchain_infinity()
else:
    ask_langchain()
    ask_llama_index()
