"""Latency, throughput and errors of a real `image-finder serve` under load, and the time to the page's first result.

    python -m tests.benchmarks.bench_serve LIBRARY_OR_INDEX [--bundle BUNDLE] [--seconds 10] [--connections 1 8 64]

Data: the indexed images; 294 different queries of 6 to 13 words in random order (seed 0), 20 hits each; thumbnails of
the first 100 hits. wrk (apt-get install wrk) generates the load on the same machine and shares its cores. 429 and 503
are documented refusals; every other status above 399, and every broken or stalled connection, is an error and must
not occur. The first result is the page, everything it links to, one search and one thumbnail that was never made
before, requested one after the other over one connection, without drawing.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from urllib.parse import quote, urlsplit

from tests.benchmarks.measuring import sentences, show

API = "/api/v1"
LUA = """
local paths = { %s }
local threads = {}
function setup(thread) thread:set("seed", #threads); table.insert(threads, thread) end
function init() math.randomseed(seed); refused = 0; wrong = 0 end
function request() return wrk.format("GET", paths[math.random(#paths)]) end
function response(status)
  if status == 429 or status == 503 then refused = refused + 1 elseif status > 399 then wrong = wrong + 1 end
end
function done(summary, latency)
  local refused, wrong = 0, 0
  for _, thread in ipairs(threads) do refused = refused + thread:get("refused"); wrong = wrong + thread:get("wrong") end
  local e = summary.errors
  print(string.format("RESULT %%f %%f %%f %%f %%d %%d %%d %%d", latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, 1e6 * summary.requests / summary.duration, refused, wrong,
    e.connect + e.read + e.write, e.timeout))
end
"""


@contextlib.contextmanager
def served(place: Path, bundle: Path | None, folder: Path) -> Iterator[str]:
    """Address of a running server, which is stopped afterwards."""
    kind = "--library" if (place / "catalog.sqlite").exists() else "--index"
    command = [sys.executable, "-m", "image_finder", "serve", kind, str(place), "--port", "0"]
    command += ["--bundle", str(bundle)] if bundle else []
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream)
    try:
        while not (found := re.search(r"serving on (http://\S+)", log.read_text(errors="replace"))):
            if process.poll() is not None:
                raise SystemExit(f"the server did not start: {log.read_text(errors='replace').strip()[-300:]}")
            time.sleep(0.02)
        yield found[1]
    finally:
        process.terminate()
        process.wait(40)


def load(address: str, paths: list[str], connections: int, seconds: int, folder: Path) -> tuple[object, ...]:
    script = folder / "load.lua"
    script.write_text(LUA % ", ".join(f'"{path}"' for path in paths))
    threads = min(connections, os.cpu_count() or 1)
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "15s",
        "-s",
        str(script),
        address,
    ]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    p50, p95, p99, per_s, *errors = output.split("RESULT ")[1].split()
    return (connections, *(float(each) for each in (p50, p95, p99, per_s)), *(int(each) for each in errors))


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"GET {path}: {answer.status} {content[:200]!r}")
    return content


def first_result_ms(address: str, text: str, rank: int) -> tuple[float, float, float]:
    """Milliseconds for the page with everything it links to, the search, and one thumbnail."""
    connection, times = http.client.HTTPConnection(urlsplit(address).netloc), [time.perf_counter()]
    page = get(connection, "/").decode()
    for path in dict.fromkeys(re.findall(r'(?:src|href)="(/?static/[^"]+)"', page)):
        get(connection, "/" + path.lstrip("/"))
    times.append(time.perf_counter())
    hits = json.loads(get(connection, f"{API}/search?q={quote(text)}"))["hits"]
    times.append(time.perf_counter())
    get(connection, f"{API}/{hits[rank]['thumbnail']}&px=320")
    times.append(time.perf_counter())
    connection.close()
    page_ms, search_ms, thumbnail_ms = (1e3 * (after - before) for before, after in itertools.pairwise(times))
    return page_ms, search_ms, thumbnail_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path, metavar="LIBRARY_OR_INDEX")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")
    texts = sentences(294)
    searches = [f"{API}/search?q={quote(text)}&k=20" for text in texts]
    with tempfile.TemporaryDirectory() as name, served(options.place, options.bundle, Path(name)) as address:
        folder = Path(name)
        first = [first_result_ms(address, text, rank) for rank, text in enumerate(texts[:10])]
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        hits = json.loads(get(connection, f"{API}/search?q={quote(texts[0])}&k=100"))["hits"]
        connection.close()
        thumbnails = [f"{API}/{hit['thumbnail']}&px=320" for hit in hits]
        rows = [("search", *load(address, searches, n, options.seconds, folder)) for n in options.connections]
        rows += [("thumbnail", *load(address, thumbnails, n, options.seconds, folder)) for n in options.connections]
    head = (
        "what",
        "connections",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "requests/s",
        "refused",
        "errors",
        "broken",
        "timed out",
    )
    show([head, *rows], f"{options.seconds} s each, {os.cpu_count()} cores")
    parts = [f"{median(each):.0f}" for each in zip(*first, strict=True)]
    total = median(sum(each) for each in first[1:])
    print(
        f"first result: {total:.0f} ms (goal < 300), the very first time {sum(first[0]):.0f} ms; "
        f"page {parts[0]}, search {parts[1]}, thumbnail {parts[2]} ms"
    )


if __name__ == "__main__":
    main()
