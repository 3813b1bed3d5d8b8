"""Seconds from starting `image-finder search` to its answer, and the slowest imports.

python -m tests.benchmarks.bench_search_start INDEX [--bundle BUNDLE] [--repeat 5] [--text "a dog on the beach"]
"""

import argparse
import json
import subprocess
import sys
import time

RUN = "from image_finder.components.app.cli import main; main()"


def import_times(command: list[str], count: int) -> dict[str, float]:
    """Cumulative milliseconds of the slowest imports; an importer includes its imports."""
    done = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True, check=True)
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line][1:]
    times = {name.strip(): int(cumulative) / 1e3 for _, cumulative, name in rows}
    return dict(sorted(times.items(), key=lambda row: -row[1])[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--bundle")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--text", default="a dog on the beach")
    options = parser.parse_args()
    command = [sys.executable, "-c", RUN, "search", options.text, "--index", options.index]
    command += ["--bundle", options.bundle] if options.bundle else []
    seconds = []
    for _ in range(options.repeat):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(round(time.perf_counter() - started, 3))
    result = {"seconds": sorted(seconds), "best_s": min(seconds), "import_ms": import_times(command, 25)}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
