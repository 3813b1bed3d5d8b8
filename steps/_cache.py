"""Cache policy of our steps: a step's output is reused only while the code it calls and the installed packages are unchanged."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from zenml.config.cache_policy import CachePolicy

from image_finder.model_registry import lineage

PACKAGES = ("image_finder.components", "image_finder.model_registry", "image_finder.steps")


def hash_sources(folders: dict[str, Path]) -> str:
    """Hex SHA-256 over the path and content of every .py file below the folders, keyed by package name."""
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}/{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def code_hash() -> str:
    """Hash of our packages as the import system finds them, wherever the current folder is."""
    folders: dict[str, Path] = {}
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"package {name} was not found: install text-guided-image-finder again")
        folders[name] = Path(spec.submodule_search_locations[0])
    return hash_sources(folders)


def cache_key() -> str:
    """What an output depends on besides the inputs of its step: our code, and the names and versions of all packages.

    Both are hashes that a registered version is tagged with: where one of them differs, a new version is registered.
    """
    return f"{code_hash()} {lineage.environment_sha256()}"


# ZenML's own key holds the source of the step function only, and our steps are thin: editing a component would give the
# old output back. Named by string, because resolving the function would ask for a source root at import.
CODE_AWARE = CachePolicy(cache_func="image_finder.steps._cache.cache_key")
