# mypy: ignore-errors
"""Calls of the clients of OpenAI, infinity, Cohere and Voyage, run in an environment that has them.

`python clients.py URL KEY RED.png BLUE.png`. Prints a line of JSON for each call: its name, and what it got.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path

import cohere
import numpy as np
import openai
import voyageai
from infinity_client import AuthenticatedClient
from infinity_client.api.default import embeddings, embeddings_image, health, models
from infinity_client.models import (
    ImageEmbeddingInput,
    OpenAIEmbeddingInputImage,
    OpenAIEmbeddingInputText,
)
from infinity_client.vision_client import InfinityVisionAPI
from PIL import Image

URL, KEY, RED, BLUE = sys.argv[1:]
TEXTS = ["a red car", "the blue sea"]
URIS = [f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}" for path in (RED, BLUE)]


def tell(call: str, **got: object) -> None:
    print(json.dumps({"call": call, **got}, default=lambda value: np.asarray(value).tolist()), flush=True)


def fail(call: str, kind: type[Exception], function, *args, **kwargs) -> None:
    """Tell the error that a call raises, which the client must know as `kind`."""
    try:
        function(*args, **kwargs)
    except kind as error:
        tell(call, error=type(error).__name__, says=str(error))
    else:
        tell(call, error=None)


def ask_openai() -> None:
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    made = client.embeddings.create(model="colours", input=TEXTS)
    tell("openai: texts (base64 by itself)", texts=[one.embedding for one in made.data], tokens=made.usage.total_tokens)
    made = client.embeddings.create(model="colours", input="a red car", encoding_format="float", user="me")
    tell("openai: one text, float", texts=[made.data[0].embedding])
    made = client.embeddings.create(model="colours", input=URIS, extra_body={"modality": "image"})
    tell("openai: pictures by infinity's modality", pictures=[one.embedding for one in made.data])
    made = client.embeddings.create(model="colours", input=[TEXTS[0], URIS[0]])
    tell("openai: NV-CLIP's mixed input", texts=[made.data[0].embedding], pictures=[made.data[1].embedding])
    content = [{"type": "image_url", "image_url": {"url": URIS[0]}}]
    body = {"messages": [{"role": "user", "content": content}], "encoding_format": "float"}
    made = client.post("/embeddings", cast_to=openai.types.CreateEmbeddingResponse, body={"model": "colours", **body})
    tell("openai: vLLM's messages", pictures=[made.data[0].embedding])
    made = client.embeddings.create(model="text-embedding-3-small", input=["x"] * 2048)
    tell("openai: 2,048 texts", count=len(made.data))
    tell("openai: models.list", ids=[one.id for one in client.models.list()])
    tell(
        "openai: models.list on another address",
        ids=[one.id for one in openai.OpenAI(base_url=URL, api_key=KEY).models.list()],
    )
    fail("openai: another model", openai.NotFoundError, client.embeddings.create, model="ada", input="x")
    fail("openai: tokens", openai.BadRequestError, client.embeddings.create, model="colours", input=[[1, 2], [3]])
    fail(
        "openai: dimensions", openai.BadRequestError, client.embeddings.create, model="colours", input="x", dimensions=7
    )
    fail("openai: an empty text", openai.BadRequestError, client.embeddings.create, model="colours", input="")
    fail("openai: 2,049 texts", openai.BadRequestError, client.embeddings.create, model="colours", input=["x"] * 2049)
    stranger = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-wrong", max_retries=0)
    fail("openai: another key", openai.AuthenticationError, stranger.embeddings.create, model="colours", input="x")

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY) as other:
            made = await other.embeddings.create(model="colours", input=TEXTS)
            tell("openai: async", texts=[one.embedding for one in made.data])

    asyncio.run(ask())


def ask_infinity() -> None:
    client = AuthenticatedClient(base_url=URL, token=KEY, raise_on_unexpected_status=True)
    with client:
        made = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=TEXTS))
        tell("infinity_client: texts", texts=[one.embedding for one in made.data])
        made = embeddings.sync(client=client, body=OpenAIEmbeddingInputImage(input_=URIS, model="colours"))
        tell("infinity_client: pictures", pictures=[one.embedding for one in made.data], id=made.id)
        made = embeddings_image.sync(client=client, body=ImageEmbeddingInput(input_=URIS))
        tell("infinity_client: embeddings_image", pictures=[one.embedding for one in made.data])
        tell("infinity_client: health", unix=health.sync(client=client)["unix"])
        tell("infinity_client: models", ids=[one.id for one in models.sync(client=client).data])
        bad = OpenAIEmbeddingInputImage(input_=[URIS[0], "data:image/png;base64,AAAA"])
        fail("infinity_client: one bad picture", Exception, embeddings.sync, client=client, body=bad)
        wrong = embeddings.sync(client=client, body=OpenAIEmbeddingInputImage(input_=["neither URL nor URI"]))
        tell("infinity_client: no picture (422)", error=type(wrong).__name__, says=wrong.detail[0].msg)
    for form in ("base64", "float"):
        api = InfinityVisionAPI.__new__(InfinityVisionAPI)  # its constructor sends no key
        import requests

        api.url, api.hidden_dim, api.format, api.session = URL, 60, form, requests.Session()
        api.session.headers["Authorization"] = f"Bearer {KEY}"
        seen, _ = api._request("colours", [Image.open(RED).convert("RGB")])
        said, _ = api._request("colours", TEXTS)
        tell(f"infinity_client: vision, {form}", texts=[np.ravel(one) for one in said], jpegs=[np.ravel(seen[0])])


def ask_cohere() -> None:
    client = cohere.ClientV2(KEY, base_url=URL)
    made = client.embed(texts=TEXTS, model="colours", input_type="search_query", embedding_types=["float", "ubinary"])
    tell("cohere v2: texts", texts=made.embeddings.float_, bits=made.embeddings.ubinary, echoed=made.texts)
    made = client.embed(images=[URIS[0]], model="embed-v4.0", input_type="image", embedding_types=["float"])
    tell("cohere v2: a picture", pictures=made.embeddings.float_, billed=made.meta.billed_units.images)
    inputs = [{"content": [{"type": "image_url", "image_url": {"url": uri}}]} for uri in URIS]
    made = client.embed(inputs=inputs, model="colours", input_type="search_document", embedding_types=["float"])
    tell("cohere v2: inputs", pictures=made.embeddings.float_)
    old = cohere.Client(KEY, base_url=URL)
    tell("cohere v1: texts", texts=old.embed(texts=TEXTS, model="colours", input_type="search_query").embeddings)
    args = {"texts": ["x"], "input_type": "search_query"}
    fail("cohere v2: another model", cohere.NotFoundError, client.embed, model="embed-english-v3.0", **args)
    args |= {"model": "colours", "embedding_types": ["int8"]}
    fail("cohere v2: int8", cohere.BadRequestError, client.embed, **args)
    stranger = cohere.ClientV2("wrong", base_url=URL)
    fail(
        "cohere v2: another key",
        cohere.UnauthorizedError,
        stranger.embed,
        model="colours",
        texts=["x"],
        input_type="image",
    )


def ask_voyage() -> None:
    client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")
    red = Image.open(RED)
    made = client.multimodal_embed([[TEXTS[0]], [red]], model="voyage-multimodal-3")
    tell("voyageai: multimodal", texts=[made.embeddings[0]], pictures=[made.embeddings[1]], pixels=made.image_pixels)
    made = client.multimodal_embed([[TEXTS[0], red]], model="colours", input_type="document")
    tell("voyageai: words and picture in one", mixed=made.embeddings, tokens=made.text_tokens)
    made = client.embed(TEXTS, model="colours", input_type="query")
    tell("voyageai: texts", texts=made.embeddings, tokens=made.total_tokens)
    made = client.embed(TEXTS, model="colours", output_dtype="binary")
    tell("voyageai: texts, binary", signed=made.embeddings)
    bad = [{"content": [{"type": "image_base64", "image_base64": "data:image/png;base64,AAAA"}]}]
    fail("voyageai: one bad picture", voyageai.error.InvalidRequestError, client.multimodal_embed, bad, model="colours")
    fail("voyageai: another model", voyageai.error.InvalidRequestError, client.embed, ["x"], model="voyage-2")
    stranger = voyageai.Client(api_key="wrong", base_url=f"{URL}/v1")
    fail("voyageai: another key", voyageai.error.AuthenticationError, stranger.embed, ["x"], model="colours")


for ask in (ask_openai, ask_infinity, ask_cohere, ask_voyage):
    ask()
