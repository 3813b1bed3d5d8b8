"""Peers: other tools behind the same two interfaces, encoding and search; each is imported only when it is used."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from tests.benchmarks.measuring import sentences

if TYPE_CHECKING:
    import torch

K = 10
BATCH = 32
OPEN_CLIP, SENTENCE = "open_clip ViT-B/32", "sentence-transformers"
IMPORTED = "ours, imported ViT-B/32"
PEERS = {OPEN_CLIP: "open_clip", SENTENCE: "sentence_transformers", "faiss IndexFlatIP": "faiss", "usearch exact": "usearch",
         "hnswlib": "hnswlib"}  # fmt: skip
LACKS = {
    "ours": "-",
    "numpy": "filters, files, a fixed order of equal scores",
    IMPORTED: "-",
    OPEN_CLIP: "an index; needs torch",
    SENTENCE: "filters in the search, files of an index; needs torch",
    "faiss IndexFlatIP": "metadata; filters are an id selector",
    "usearch exact": "metadata; filters in this search",
    "hnswlib": "exactness; metadata; filters are a callback per candidate",
}
Calls = dict[str, Callable[[], object]]
Search = Callable[[np.ndarray], np.ndarray]  # queries (n, dim) to rows (n, K)


def installed(peer: str) -> bool:
    return importlib.util.find_spec(PEERS[peer]) is not None


def encoder_calls(bundle: Bundle, paths: list[Path], folder: Path) -> tuple[Calls, Calls]:
    """By encoder: a call that encodes the images from memory, and one that encodes a text. folder: for a bundle."""
    encoder, text = OnnxEncoder(bundle, device="cpu"), sentences(1)
    pixels = np.stack([encoder.preprocess.load(path) for path in paths])
    starts = range(0, len(paths), BATCH)
    images: Calls = {"ours": lambda: [encoder.encode_image(pixels[at : at + BATCH]) for at in starts]}
    texts: Calls = {"ours": lambda: encoder.encode_text(text)}
    if installed(OPEN_CLIP):
        import open_clip
        import torch

        model, _, _ = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None, load_weights=False)
        model.eval()
        tokens = open_clip.get_tokenizer("ViT-B-32")(text)
        inputs = torch.rand(len(paths), 3, 224, 224)

        @torch.inference_mode()
        def open_clip_images() -> None:
            for at in starts:
                model.encode_image(inputs[at : at + BATCH], normalize=True)

        images[OPEN_CLIP] = open_clip_images
        texts[OPEN_CLIP] = torch.inference_mode()(lambda: model.encode_text(tokens, normalize=True))
        imported = OnnxEncoder(imported_vit(model, folder), device="cpu")
        squares = np.stack([imported.preprocess.load(path) for path in paths])
        images[IMPORTED] = lambda: [imported.encode_image(squares[at : at + BATCH]) for at in starts]
        texts[IMPORTED] = lambda: imported.encode_text(text)
    return images, texts


def imported_vit(model: "torch.nn.Module", folder: Path) -> Bundle:
    """A bundle of open_clip's ViT-B/32, made as `models import` makes it."""
    from safetensors.torch import save_file

    from image_finder.components.importing.importer import ImportOptions, import_model
    from image_finder.components.importing.source import find_source

    weights = folder / "vit.safetensors"
    save_file(model.state_dict(), weights)
    return import_model(find_source(f"open_clip:ViT-B-32={weights}"), folder / "vit", ImportOptions())


def numpy_search(vectors: np.ndarray) -> Search:
    def search(queries: np.ndarray) -> np.ndarray:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -K)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, 1))
        return np.take_along_axis(best, order, 1)

    return search


def peer_search(peer: str, vectors: np.ndarray) -> Search:
    """Build a peer's index and return its search."""
    dim = vectors.shape[1]
    if peer == SENTENCE:
        import torch
        from sentence_transformers import util

        corpus = torch.from_numpy(vectors)

        def semantic_search(queries: np.ndarray) -> np.ndarray:
            found = util.semantic_search(torch.from_numpy(queries), corpus, top_k=K, score_function=util.dot_score)
            return np.array([[hit["corpus_id"] for hit in hits] for hits in found])

        return semantic_search
    if peer == "faiss IndexFlatIP":
        import faiss

        index = faiss.IndexFlatIP(dim)
        index.add(vectors)
        return lambda queries: index.search(queries, K)[1]
    if peer == "usearch exact":
        from usearch.index import MetricKind
        from usearch.index import search as exact

        return lambda queries: np.atleast_2d(exact(vectors, queries, K, MetricKind.IP, exact=True).keys)
    import hnswlib

    graph = hnswlib.Index("ip", dim)
    graph.init_index(len(vectors), ef_construction=200, M=16)
    graph.add_items(vectors)
    graph.set_ef(100)
    return lambda queries: graph.knn_query(queries, K)[0]
