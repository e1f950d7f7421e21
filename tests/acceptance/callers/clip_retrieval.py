# mypy: ignore-errors
"""Calls of clip-retrieval's `ClipClient`, run in an environment that has it.

`python clip_retrieval.py URL PICTURE PICTURE-URL VECTOR`. Prints a line of JSON for each call, with what it got.
The package's __init__ imports PyTorch and FAISS, so the file of the client is loaded by itself.
"""

import importlib.util
import json
import sys
import sysconfig
from pathlib import Path

path = Path(sysconfig.get_paths()["purelib"]) / "clip_retrieval" / "clip_client.py"
spec = importlib.util.spec_from_file_location("clip_client", path)
clip_client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clip_client)
ClipClient, Modality = clip_client.ClipClient, clip_client.Modality

URL, PICTURE, PICTURE_URL, VECTOR = sys.argv[1:]


def tell(call, got):
    print(json.dumps({"call": call, "got": got}))


client = ClipClient(url=URL, indice_name="default")
tell("words", client.query(text="red"))
tell("a picture", client.query(image=PICTURE))
tell("the URL of a picture", client.query(image=PICTURE_URL))
tell("a vector", client.query(embedding_input=json.loads(VECTOR)))
tell("without deduplicate", ClipClient(URL, "default", deduplicate=False, num_images=2).query(text="red"))
tell("modality text", ClipClient(URL, "default", modality=Modality.TEXT).query(text="blue sky"))
tell("another index", ClipClient(URL, "laion5B").query(text="red"))
