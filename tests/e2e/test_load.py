"""Many searches at once while new indexes are published: none fails except with documented refusals."""

import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SECONDS = 6
# Counts the answers by status; 429 and 503 are the documented refusals.
LUA = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() answered = 0; refused = 0; wrong = 0 end
local colours = {"red", "green", "blue", "yellow", "white", "a+very+red+thing"}
function request() return wrk.format("GET", "/api/v1/search?q=" .. colours[math.random(#colours)]) end
function response(status)
  if status == 200 then answered = answered + 1
  elseif status == 429 or status == 503 then refused = refused + 1
  else wrong = wrong + 1 end
end
function done(summary, latency)
  local totals = { answered = 0, refused = 0, wrong = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(totals) do totals[name] = totals[name] + thread:get(name) end
  end
  local e = summary.errors
  print(string.format('RESULT {"answered": %d, "refused": %d, "wrong": %d, "broken": %d, "stalled": %d}',
    totals.answered, totals.refused, totals.wrong, e.connect + e.read + e.write, e.timeout))
end
"""


@pytest.fixture
def wrk():
    """Debian's wrk; its absence fails in CI and skips elsewhere."""
    program = shutil.which("wrk")
    if program is None:
        message = "no wrk on PATH: apt-get install wrk"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


def candidates(address):
    with urllib.request.urlopen(f"{address}/api/v1/search?q=blue", timeout=20) as answer:
        return json.load(answer)["candidates"]


def test_64_connections_see_no_error_while_two_generations_are_published(
    wrk, serve, new_library, image_finder, tmp_path
):
    (tmp_path / "load.lua").write_text(LUA)
    with serve(library=new_library) as address:
        before = candidates(address)
        command = [wrk, "-t2", "-c64", f"-d{SECONDS}s", "--timeout", "15s", "-s", tmp_path / "load.lua", address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            for name in ("first", "second"):
                Image.new("RGB", (300, 200), (0, 0, 255)).save(tmp_path / "images" / f"{name}.png")
                image_finder("index", "--library", new_library)
            output = load.communicate(timeout=SECONDS + 30)[0]
        counts = json.loads(output.split("RESULT ")[1])
        assert counts["answered"] > 0
        assert (counts["wrong"], counts["broken"], counts["stalled"]) == (0, 0, 0), output
        deadline = time.monotonic() + 20  # the server checks for a new index every second, later under load
        while candidates(address) != before + 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert candidates(address) == before + 2
