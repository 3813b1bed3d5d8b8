"""Code hash: identifies the installed code that makes and measures models."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("image_finder.components", "image_finder.model_registry", "image_finder.steps")


def hash_sources(folders: dict[str, Path]) -> str:
    """SHA-256 over path and content of every .py file in directories, keyed by package name."""
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}/{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def code_hash() -> str:
    """Hash of our installed packages, independent of the current directory."""
    folders: dict[str, Path] = {}
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"package {name} was not found: install text-guided-image-finder again")
        folders[name] = Path(spec.submodule_search_locations[0])
    return hash_sources(folders)
