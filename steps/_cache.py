"""Cache policy of the steps: an output is reused only while our code and the installed packages are unchanged."""

from zenml.config.cache_policy import CachePolicy

from image_finder.model_registry import lineage
from image_finder.model_registry.code_hash import code_hash


def cache_key() -> str:
    """Hashes of our code and of the packages, with which a version is tagged too."""
    return f"{code_hash()} {lineage.environment_sha256()}"


# ZenML's own key covers only the source of the step function. Our steps are thin, so a changed component would return the
# old output. Named by string because resolving the function needs a source root at import.
CODE_AWARE = CachePolicy(cache_func="image_finder.steps._cache.cache_key")
