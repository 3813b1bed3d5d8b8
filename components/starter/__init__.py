"""Starter model: a trained model without its packaged trunks, which is assembled from them at first use; no torch.

`image-finder models pack` writes model/ (export/starter_packing.py); app/starter_bundle.py assembles it in the home.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
MANIFEST = "starter.json"
WEIGHTS = "weights.safetensors"
CARD = "MODEL_CARD.md"
MAX_MB = 12.2  # default limit of the weights
