"""Step: the index and its bundle to where searches look."""

from typing import Annotated

from zenml import log_metadata, step

from components.bundle import Bundle
from components.search.index import IndexManifest, VectorIndex
from components.search.publish import publish
from steps._workspace import home


@step(enable_cache=False)
def publish_index(index: VectorIndex, bundle: Bundle) -> Annotated[IndexManifest, "published_index"]:
    """Copy both to the home, the bundle first. Never cached: the home may have been changed by hand."""
    published = publish(index, bundle, bundles=home() / "bundles", target=home() / "index")
    log_metadata({"path": str(published.path), "pictures": published.manifest.count})
    return published.manifest
