"""Index tiers: what is chosen, what an approximate file finds, and that no answer is ever wrong."""

import json
import logging
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import EmbeddingConfig, GalleryConfig, IndexTierConfig
from image_finder.components.errors import ConfigError, QualityError
from image_finder.components.index import tiers
from image_finder.components.index.format import (
    APPROXIMATE,
    FORMAT_VERSION,
    ITEM_SCHEMA,
    MANIFEST,
    IndexManifest,
    write_index,
)
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.tier_building import add_tier, measuring_texts, texts_encoder
from image_finder.components.index.tiers import Hnsw, IvfPq, efforts, exact_is_cheaper, lists_for, reach_for, tier_for
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query
from image_finder.components.storage import sealed
from tests.support.checkout import CHECKOUT
from tests.support.galleries import publish_gallery

KINDS = ("hnsw", "ivfpq")
COUNT, DIM = 5_000, 16
# Small enough for 5,000 rows: with the defaults so few are always compared all.
SMALL = {"links": 4, "ef_construction": 40, "ef_search": 16, "lists": 64, "nprobe": 2, "pq_bytes": 8}


# The choice, on paper


@pytest.mark.parametrize(
    ("count", "kind"),
    [(0, "exact"), (4_095, "exact"), (1_000_000, "exact"), (1_000_001, "hnsw"), (6_000_000, "hnsw"), (10**7, "ivfpq")],
)
def test_up_to_a_million_rows_are_exact_then_the_memory_budget_decides(count, kind):
    assert tier_for(count, 512, IndexTierConfig()).kind == kind


def test_the_budget_is_compared_with_the_size_of_the_graph():
    needed = tier_for(2_000_000, 512, IndexTierConfig(kind="hnsw")).memory_mb
    assert needed == pytest.approx(2 * (512 + 8 * 16 + 4 * 16 / 15 + 12), abs=1e-3)
    for budget, kind in ((int(needed) + 1, "hnsw"), (int(needed), "ivfpq")):
        assert tier_for(2_000_000, 512, IndexTierConfig(memory_budget_mb=budget)).kind == kind


def test_the_table_in_the_docstring_matches_the_computed_sizes():
    rows = [line for line in tier_for.__doc__.splitlines() if re.match(r" +\d+ million  ", line)]
    table = [line.split("    ") for line in rows]
    assert len(table) == 4
    for line in table:
        name, *sizes, _ = [cell.strip() for cell in line if cell.strip()]
        count = int(name.removesuffix(" million")) * 1_000_000
        for kind, size in zip(("exact", "hnsw", "ivfpq"), sizes, strict=True):
            tier = tier_for(count, 512, IndexTierConfig(kind=kind))
            assert f"{tier.memory_mb:,.0f}" == size


def test_a_named_kind_is_used_unless_there_are_few_rows():
    for kind in ("exact", *KINDS):
        assert tier_for(4_096, 512, IndexTierConfig(kind=kind)).kind == kind
        assert tier_for(4_095, 512, IndexTierConfig(kind=kind)).kind == "exact"
        assert tier_for(10**9, 512, IndexTierConfig(kind=kind)).kind == kind


@pytest.mark.parametrize(("dim", "pq_bytes"), [(512, 64), (384, 64), (100, 50), (7, 7), (3, 3), (509, 1)])
def test_codes_have_at_most_pq_bytes_and_divide_the_dimension(dim, pq_bytes):
    parameters = tier_for(10**7, dim, IndexTierConfig(kind="ivfpq")).parameters
    assert isinstance(parameters, IvfPq)
    assert parameters.pq_bytes == pq_bytes


def test_lists_grow_with_the_root_of_the_rows_and_can_be_trained():
    assert [lists_for(count) for count in (4_096, 10**6, 10**7, 10**8, 5 * 10**9)] == [
        128,
        2_048,
        8_192,
        16_384,
        65_536,
    ]
    few = tier_for(4_096, 512, IndexTierConfig(kind="ivfpq", lists=4_000)).parameters
    assert isinstance(few, IvfPq)
    assert few.lists == 4_096 // 39


def test_effort_is_doubled_up_to_64_times_and_never_beyond_all_lists():
    assert [
        getattr(each, "ef_search", None) for each in efforts(Hnsw(links=16, ef_construction=80, ef_search=100))
    ] == [*(100, 200, 400, 800, 1600, 3200, 6400)]
    assert [getattr(each, "nprobe", None) for each in efforts(IvfPq(lists=40, pq_bytes=8, nprobe=16))] == [16, 32, 40]


def test_pages_have_the_same_candidates_and_at_least_two_per_hit():
    assert [reach_for(k) for k in (1, 64, 65, 512, 513, 4_096)] == [128, 128, 1_024, 1_024, 8_192, 8_192]
    assert reach_for(4_097) is None


def test_an_exact_pass_is_chosen_where_both_cost_the_same():
    graph = Hnsw(links=16, ef_construction=80, ef_search=128)
    # 3 x 128 x 16 rows of a pass; equal at sqrt(6,144 x 1 million) = 78,384
    assert exact_is_cheaper(graph, 128, allowed=78_383, count=10**6)
    assert not exact_is_cheaper(graph, 128, allowed=78_385, count=10**6)
    assert exact_is_cheaper(graph, 128, allowed=0, count=10**6)
    assert exact_is_cheaper(graph, 8_192, allowed=300_000, count=300_000)
    lists = IvfPq(lists=2_048, pq_bytes=64, nprobe=16)
    assert not exact_is_cheaper(lists, 128, allowed=10**6, count=10**6)
    assert exact_is_cheaper(lists, 128, allowed=90_000, count=10**6)


# What the files find


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors_and_queries():
    """Images in clusters, the last 50 equal to others; queries are apart from them, like text vectors."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM))
    images = unit(centres[rng.integers(0, 40, COUNT)] + 0.5 * rng.standard_normal((COUNT, DIM)))
    images[-50:] = images[:50]
    return images, unit(centres[rng.integers(0, 40, 300)] + 0.7 * rng.standard_normal((300, DIM)) + 0.4)


VECTORS, QUERIES = vectors_and_queries()


def items_of(count, captions=()):
    columns = {
        "id": [f"{n:016x}" for n in range(count)],
        "root": [0] * count,
        "path": [f"{n}.png".encode() for n in range(count)],
        "folder": [f"part{n % 10}" for n in range(count)],
        "name": [f"{n}.png" for n in range(count)],
        "sha256": [f"{n:064x}" for n in range(count)],
        "dhash": [(n * 0x9E3779B97F4A7C15) % (1 << 64) for n in range(count)],
        **{name: [1] * count for name in ("bytes", "width_px", "height_px")},
        "captions": list(captions) or [[]] * count,
        "taken_at": [None] * count,
        "modified_at": [datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)] * count,
        "camera": [""] * count,
        **{name: [None] * count for name in ("latitude", "longitude")},
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def write(folder, vectors, config, *, queries=QUERIES, bundle=None, captions=()):
    folder.mkdir(parents=True)
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=len(vectors),
        embedding_dim=vectors.shape[1],
        bundle_sha256=bundle.sha256 if bundle else "a" * 64,
        bundle_uri=str(bundle.path) if bundle else "/bundle",
        gallery="test",
        roots=("/p",),
        failed={},
        self_check=None,
        files_sha256={},
    )
    written = write_index(folder, vectors, items_of(len(vectors), captions), manifest)
    add_tier(folder, written, config, lambda texts: queries[: len(texts)])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An index of each kind over the same rows; for tests that change nothing."""
    place = tmp_path_factory.mktemp("tiers")
    return {
        kind: write(place / kind, VECTORS, IndexTierConfig(kind=kind, min_recall_at_10=0.9, **SMALL))
        for kind in ("exact", *KINDS)
    }


@pytest.fixture(params=KINDS)
def both(request, folders):
    """An approximate index and the exact one over the same rows."""
    return VectorIndex.open(folders[request.param]), VectorIndex.open(folders["exact"])


def scores_of(query):
    return (VECTORS.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def test_the_recall_in_the_manifest_is_the_measured_one(both):
    approximate, _ = both
    facts = approximate.manifest.approximate
    assert facts.parameters.kind == approximate.manifest.kind
    assert (facts.n_texts, facts.texts) == (200, "sentences")
    found = approximate.search(QUERIES[:200], 10).rows
    assert all(rows is not None for rows in approximate.approximate.candidates(QUERIES[:200], 10, [None] * 200))
    shares = []
    for query, rows in zip(QUERIES[:200], found, strict=True):
        scores = scores_of(query)
        shares.append(np.mean(scores[rows] >= np.sort(scores)[-10] - 1e-6))
    assert facts.recall_at_10 == pytest.approx(np.mean(shares), abs=1e-4)
    assert 0.9 <= facts.recall_at_10 <= 1


def test_hits_have_the_scores_and_the_order_of_an_exact_search(both):
    approximate, _ = both
    near = approximate.search(QUERIES, 20)
    for query, rows, scores in zip(QUERIES, near.rows, near.scores, strict=True):
        exact = scores_of(query)
        assert scores.tolist() == exact[rows].tolist()
        assert rows.tolist() == sorted(rows.tolist(), key=lambda row: (-exact[row], row))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1 << 20), k=st.integers(1, 700), share=st.floats(0, 1))
def test_there_are_k_hits_if_k_rows_are_allowed_and_all_are_allowed_ones(folders, seed, k, share):
    rng = np.random.default_rng(seed)
    masks = [rng.random(COUNT) < share, rng.random(COUNT) < share / 10, None]
    for kind in KINDS:
        near = VectorIndex.open(folders[kind]).search(QUERIES[:3], k, allowed=masks)
        for mask, rows, scores in zip(masks, near.rows, near.scores, strict=True):
            found = rows[rows >= 0]
            allowed = COUNT if mask is None else int(mask.sum())
            assert len(found) == len(set(found.tolist())) == min(k, allowed)
            assert mask is None or mask[found].all()
            assert np.isneginf(scores[len(found) :]).all()
            assert (np.diff(scores[: len(found)]) <= 0).all()


def test_filters_that_allow_many_rows_use_the_file_and_lose_little_recall(both):
    approximate, exact = both
    mask = np.arange(COUNT) % 5 != 0
    masks = [mask] * 100
    assert all(rows is not None for rows in approximate.approximate.candidates(QUERIES[:100], 10, masks))
    found = approximate.search(QUERIES[:100], 10, allowed=masks)
    best = exact.search(QUERIES[:100], 10, allowed=masks)
    assert np.mean(found.scores >= best.scores[:, -1:] - 1e-6) > 0.9


def test_filters_that_allow_few_rows_and_deep_pages_are_answered_exactly(both):
    approximate, exact = both
    for k, masks in (
        (10, [np.arange(COUNT) % 7 == 0] * 3),
        (5_000, [None] * 3),
        (9_000, [None] * 3),
        (600, [None] * 3),
    ):
        assert approximate.approximate.candidates(QUERIES[:3], k, masks) == [None] * 3
        found, best = approximate.search(QUERIES[:3], k, allowed=masks), exact.search(QUERIES[:3], k, allowed=masks)
        assert found.rows.tolist() == best.rows.tolist()
        assert found.scores.tolist() == best.scores.tolist()


def test_a_shorter_answer_is_a_prefix_of_a_longer_one(both):
    approximate, _ = both
    longest = approximate.search(QUERIES[:50], 64).rows
    for k in (1, 10, 63):
        assert approximate.search(QUERIES[:50], k).rows.tolist() == longest[:, :k].tolist()


def test_answers_are_equal_alone_in_a_batch_and_in_several_threads(both):
    approximate, _ = both
    masks = [None if n % 3 else np.arange(COUNT) % 8 != n % 8 for n in range(60)]
    together = approximate.search(QUERIES[:60], 10, allowed=masks).rows

    def alone(n):
        return approximate.search(QUERIES[n : n + 1], 10, allowed=[masks[n]]).rows[0].tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(alone, range(60))) == together.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_give_an_equal_file_and_another_seed_another_one(tmp_path, folders, kind):
    config = IndexTierConfig(kind=kind, min_recall_at_10=0.9, **SMALL)
    again = write(tmp_path / "again", VECTORS, config)
    assert (again / MANIFEST).read_bytes() == (folders[kind] / MANIFEST).read_bytes()
    other = write(tmp_path / "other", VECTORS, config.model_copy(update={"seed": 1}))
    assert (again / APPROXIMATE).read_bytes() == (folders[kind] / APPROXIMATE).read_bytes()
    assert (again / APPROXIMATE).read_bytes() != (other / APPROXIMATE).read_bytes()


def test_files_have_the_computed_size(folders):
    for kind in KINDS:
        size = (folders[kind] / APPROXIMATE).stat().st_size
        parameters = VectorIndex.open(folders[kind]).manifest.approximate.parameters
        assert size == pytest.approx(parameters.bytes_of(COUNT, DIM), rel=0.05)


# What can go wrong


def damaged(content):
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {
        "flipped": bytes(flipped),
        "cut": content[:-10],
        "empty": b"",
        "pickle": pickle.dumps({"a": 1}),
        "gone": None,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "pickle", "gone"])
def test_a_damaged_file_is_reported_and_every_row_compared(folders, tmp_path, caplog, kind, how):
    folder = shutil.copytree(folders[kind], tmp_path / "index")
    content = damaged((folder / APPROXIMATE).read_bytes())[how]
    (folder / APPROXIMATE).unlink()
    if content is not None:
        (folder / APPROXIMATE).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        index = VectorIndex.open(folder)
    reason = "is missing" if how == "gone" else "has sha256"
    assert f"{APPROXIMATE} {reason}" in index.fault
    assert len(caplog.messages) == 1
    assert f"index {folder}: {APPROXIMATE} {reason}" in caplog.text
    assert "searches compare every row instead, which is exact but slow; build it again" in caplog.text
    exact = VectorIndex.open(folders["exact"])
    assert index.search(QUERIES, 10).rows.tolist() == exact.search(QUERIES, 10).rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_another_index_is_not_used(folders, tmp_path, caplog, kind):
    folder = shutil.copytree(folders[kind], tmp_path / "index")
    manifest = json.loads((folder / MANIFEST).read_text())
    for source in (KINDS[KINDS.index(kind) - 1], "other"):
        config = IndexTierConfig(kind=kind, min_recall_at_10=0, **SMALL)
        other = folders[source] if source in KINDS else write(tmp_path / "other", VECTORS[:4_500], config)
        shutil.copy(other / APPROXIMATE, folder / APPROXIMATE)
        hashes = json.loads((other / MANIFEST).read_text())["files_sha256"]
        manifest["files_sha256"][APPROXIMATE] = hashes[APPROXIMATE]
        (folder / MANIFEST).write_text(sealed(json.dumps(manifest)))
        index = VectorIndex.open(folder)
        assert f"{APPROXIMATE} holds Index" in index.fault
        assert f"of {COUNT} x {DIM}" in index.fault
        assert index.search(QUERIES[:5], 3).rows.tolist() == [
            np.argsort(-scores_of(q), kind="stable")[:3].tolist() for q in QUERIES[:5]
        ]


def test_an_unverified_index_compares_every_row(folders):
    for kind in KINDS:
        index = VectorIndex.open(folders[kind], verify=False)
        assert (index.approximate, index.fault, index.manifest.kind) == (None, "", kind)


def test_without_faiss_every_row_is_compared(folders, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "faiss", None)  # what Python itself does to make an import fail
    index = VectorIndex.open(folders["hnsw"])
    assert "needs FAISS, which is not installed: pip install 'text-guided-image-finder[faiss]'" in caplog.text
    assert (index.approximate, index.fault) == (None, "")
    best = VectorIndex.open(folders["exact"]).search(QUERIES, 10)
    assert index.search(QUERIES, 10).rows.tolist() == best.rows.tolist()


def test_without_faiss_auto_stays_exact_and_a_named_kind_is_refused(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "faiss", None)
    folder = write(tmp_path / "auto", VECTORS, IndexTierConfig(exact_rows=1_000))
    assert VectorIndex.open(folder).manifest.kind == "exact"
    assert (
        "index of 5,000 rows stays exact: an approximate index needs FAISS, which is not installed: pip install"
        in caplog.text
    )
    with pytest.raises(ConfigError, match="needs FAISS, which is not installed"):
        write(tmp_path / "named", VECTORS, IndexTierConfig(kind="ivfpq"))


def test_too_low_a_recall_leaves_auto_exact_and_refuses_a_named_kind(tmp_path, caplog):
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.standard_normal((4_096, 256))), unit(rng.standard_normal((50, 256)))
    poor = {"pq_bytes": 1, "lists": 16, "nprobe": 1, "measured_texts": 50, "min_recall_at_10": 0.99}
    config = IndexTierConfig(exact_rows=0, memory_budget_mb=1, **poor)
    assert tier_for(4_096, 256, config).kind == "ivfpq"
    folder = write(tmp_path / "auto", vectors, config, queries=queries)
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "items.parquet", "vectors.npy"]
    assert VectorIndex.open(folder).manifest.approximate is None
    assert "index of 4,096 rows stays exact: ivfpq finds " in caplog.text
    with pytest.raises(QualityError, match=r"ivfpq finds [0-9.]+% of the 10 nearest .* min_recall_at_10 is 99\.0%"):
        write(tmp_path / "named", vectors, config.model_copy(update={"kind": "ivfpq"}), queries=queries)


def test_a_file_beyond_the_budget_is_a_warning(tmp_path, caplog):
    vectors = unit(np.random.default_rng(0).standard_normal((4_096, 256)))
    config = IndexTierConfig(kind="hnsw", memory_budget_mb=1, links=4, ef_construction=8, min_recall_at_10=0)
    write(tmp_path / "index", vectors, config, queries=vectors)
    assert "its hnsw file takes 1 MB, memory_budget_mb is 1; searches may wait for the disk" in caplog.text


@pytest.mark.posix
def test_a_full_disk_is_a_one_line_error(folders, tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from image_finder.components.errors import StorageError
from image_finder.components.index.approximate import write_approximate
from image_finder.components.index.tiers import Hnsw
import faiss
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_approximate(Path(sys.argv[2]), np.load(sys.argv[1]), Hnsw(links=4, ef_construction=8, ef_search=16))
except StorageError as error:
    sys.exit(str(error))
"""
    done = child(code, folders["exact"] / "vectors.npy", tmp_path / "a.faiss")
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write {tmp_path / 'a.faiss'}: "), done.stderr
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1


def child(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120)


def test_an_index_of_fewer_than_a_million_rows_needs_no_faiss(folders, tmp_path):
    code = """
import sys
from pathlib import Path
import numpy as np
from image_finder.components.configs import IndexTierConfig
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.tier_building import add_tier
folder = Path(sys.argv[1])
index = VectorIndex.open(folder)
assert add_tier(folder, index.manifest, IndexTierConfig(), None) == index.manifest
index.search(np.asarray(index.vectors[:3]), 10)
sys.exit([name for name in sys.modules if name.startswith("faiss")] or None)
"""
    before = {path.name: path.read_bytes() for path in folders["exact"].iterdir()}
    done = child(code, folders["exact"])
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in folders["exact"].iterdir()} == before
    assert set(before) == {"index.json", "items.parquet", "vectors.npy"}


def test_an_index_written_before_there_were_tiers_is_still_read(folders, tmp_path):
    folder = shutil.copytree(folders["exact"], tmp_path / "index")
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["approximate"], manifest["content_sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert VectorIndex.open(folder).manifest == VectorIndex.open(folders["exact"]).manifest


# The texts


def test_measuring_texts_are_captions_or_sentences_where_there_are_none():
    captions = [[f"caption {n}", "another"] for n in range(300)]
    found = measuring_texts(items_of(300, captions), 100)
    assert found.source == "captions"
    assert len(set(found.texts)) == len(found.texts) == 100
    assert all(text.startswith("caption ") for text in found.texts)
    assert found == measuring_texts(items_of(300, captions), 100)
    assert found != measuring_texts(items_of(300, captions), 100, seed=1)
    for poor in ([[]] * 300, [["the same"]] * 300, [[" "]] * 300, [["few"], ["captions"], *[[]] * 298]):
        made = measuring_texts(items_of(300, poor), 100)
        assert (made.source, len(set(made.texts))) == ("sentences", 100)
    assert len(measuring_texts(items_of(3), 10_000).texts) == 288


# Whole searches


@pytest.fixture(scope="module")
def engines(tmp_path_factory, colour_bundle):
    """Engines over the same 5,000 colours: exact, then each approximate kind. The 20 reddest look alike in pairs."""
    rng = np.random.default_rng(1)
    colours = unit(rng.random((COUNT, 3)) ** 2 + 0.01)
    queries = unit(rng.random((200, 3)) + 0.01)
    place = tmp_path_factory.mktemp("engines")
    config = {**SMALL, "links": 8, "min_recall_at_10": 0.9}
    return [
        SearchEngine.open(
            write(place / kind, colours, IndexTierConfig(kind=kind, **config), queries=queries, bundle=colour_bundle)
        )
        for kind in ("exact", *KINDS)
    ]


QUESTIONS = (
    {"terms": [{"text": "red"}], "k": 20},
    {"terms": [{"text": "red"}], "k": 20, "offset": 20},
    {"terms": [{"text": "yellow"}], "not": [{"text": "red", "weight": 0.5}], "k": 10},
    {"terms": [{"text": "white"}], "not": [{"text": "red"}, {"text": "green", "weight": 0.3}], "k": 10},
    {"terms": [{"text": "blue"}], "k": 10, "filters": {"folders": ["part3"]}},
    {"terms": [{"text": "green"}], "k": 50, "min_score": 0.9},
    {"terms": [{"like": f"{77:016x}"}], "k": 10, "duplicates": "show"},
    {"terms": [{"text": "white"}], "k": 500},
)


def test_queries_have_equal_answers_on_every_tier(engines):
    exact, *others = engines
    questions = [Query.parse(each) for each in QUESTIONS]
    best = [exact.search(question) for question in questions]
    for engine in others:
        assert engine.index.approximate is not None
        for answer, alone, expected in zip(
            engine.search_many(questions), map(engine.search, questions), best, strict=True
        ):
            for each in (answer, alone):
                assert (each.candidates, each.more, len(each.hits)) == (
                    expected.candidates,
                    expected.more,
                    len(expected.hits),
                )
                score_of = {hit.id: hit.score for hit in expected.hits}
                assert all(hit.score == score_of[hit.id] for hit in each.hits if hit.id in score_of)
                # Hundreds of 5,000 colours in three dimensions are as near as 8-bit codes can distinguish.
                for hit, due in zip(each.hits, expected.hits, strict=True):
                    assert due.score - 0.005 <= hit.score <= due.score
        minimum = engine.search(questions[5])
        assert all(hit.score >= 0.9 for hit in minimum.hits)
        assert {hit.folder for hit in engine.search(questions[4]).hits} == {"part3"}


def test_an_image_of_the_index_finds_itself_first_on_every_tier(engines):
    for engine in engines:
        for row in range(0, COUNT, 250):
            question = Query.parse({"terms": [{"like": f"{row:016x}"}], "duplicates": "show", "k": 3})
            assert engine.search(question).hits[0].id == f"{row:016x}"


def test_pages_are_consecutive_on_every_tier(engines):
    for engine in engines:
        whole = [hit.id for hit in engine.search(Query.of_text("red", k=24, duplicates="show")).hits]
        pages = [
            engine.search(Query.of_text("red", k=8, offset=offset, duplicates="show")).hits for offset in (0, 8, 16)
        ]
        assert [hit.id for page in pages for hit in page] == whole


# From images to an approximate index


@pytest.fixture
def few_are_enough(monkeypatch):
    """Lets a named kind be taken for a handful of images."""
    monkeypatch.setattr(tiers, "MIN_ROWS", 1)


def test_a_gallery_is_indexed_by_the_tier_of_its_config_and_published_with_its_file(
    few_are_enough, tmp_path, paint, colour_bundle
):
    for number in range(12):
        paint(tmp_path / "images" / f"{number:02d}.png", (20 * number, 255 - 20 * number, 90))
    config = EmbeddingConfig(device="cpu", threads=1, tier={"kind": "hnsw", "links": 4})

    def publish():
        gallery = GalleryConfig(root=tmp_path / "images")
        return publish_gallery(gallery, colour_bundle, tmp_path / "library", config=config)

    published = publish()
    assert (published.manifest.kind, published.manifest.approximate.recall_at_10) == ("hnsw", 1.0)
    assert published.approximate is not None
    assert publish().path == published.path
    (published.path / APPROXIMATE).write_bytes(b"")
    mended = publish()
    assert mended.path != published.path
    assert mended.fault == ""


def test_a_library_is_published_again_for_another_tier_and_for_a_damaged_file(
    few_are_enough, tmp_path, paint, colour_bundle
):
    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", name)
    library = Library(tmp_path / "library")

    def index(kind):
        config = EmbeddingConfig(device="cpu", tier=IndexTierConfig(kind=kind))
        summary = update(library, [tmp_path / "images"], IndexOptions(config, bundle=colour_bundle.path), warn=print)
        return summary.published, summary.embedded, VectorIndex.open(library.index)

    assert index("auto")[2].manifest.kind == "exact"
    published, embedded, approximate = index("hnsw")
    assert (published, embedded, approximate.manifest.kind) == (True, 0, "hnsw")
    assert index("hnsw")[0] is False
    assert index("auto")[0] is False
    (approximate.path / APPROXIMATE).unlink()
    published, embedded, mended = index("auto")
    assert (published, embedded, mended.manifest.kind, mended.fault) == (True, 0, "exact", "")


def test_vectors_of_measuring_texts_are_in_the_order_of_the_texts(colour_bundle):
    texts = ("yellow", "red", "a white one", "blue", "green", "red and blue")
    vectors = texts_encoder(colour_bundle)(texts)
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    np.testing.assert_array_equal(vectors, np.concatenate([encoder.encode_text([text]) for text in texts]))
