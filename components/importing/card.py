"""Card of an imported model: where it comes from and what was measured, in Markdown."""

from image_finder.components.bundle.bundle import BundleManifest, ImportedModel
from image_finder.components.importing.original import Original


def card_text(imported: ImportedModel, manifest: BundleManifest, original: Original) -> str:
    """The model card of an imported bundle."""
    use = "\n\n**The licence forbids commercial use.**" if imported.non_commercial else ""
    resize = original.preprocess.resize
    cut = resize is not None and resize.short_edge_px is not None
    scores = original.scores
    kind = "softmax" if scores.logit_bias is None else f"sigmoid, bias {scores.logit_bias:.3f}"
    return f"""# {imported.source}

Imported, not trained here. The weights belong to their authors.{use}

| | |
| --- | --- |
| source | {imported.source} |
| revision | {imported.revision} |
| licence | {imported.licence} |
| training data | {imported.training_data} |
| architecture | {imported.architecture}, {imported.library} |
| parameters | {imported.parameters:,} |
| dimension | {manifest.embedding_dim} |
| input | {original.preprocess.input_px} pixels, {"a square from the middle" if cut else "squashed to a square"} |
| longest text | {manifest.max_tokens} tokens |
| scores | scale {scores.logit_scale:.2f}, {kind} |

## Measured while importing

- Largest difference of a vector's component from {imported.library}: {imported.max_difference:.1e} (limit 1e-4).
- Smallest cosine to the exact towers after compression: text {imported.text_cosine:.5f}, image {imported.image_cosine:.5f}.
- One image {imported.image_ms:.1f} ms, one text {imported.text_ms:.1f} ms on {imported.threads} processor threads.

What the model finds and what it misses was not measured here: `image-finder models evaluate` does, on your own captions.
"""
