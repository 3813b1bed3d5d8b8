"""Starter model: location of the packaged weights, which are combined with packaged trunks at first use; no torch.

`image-finder models pack` writes model/ (export/starter_packing.py); app/starter_bundle.py exports it to the home.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
MANIFEST = "starter.json"
WEIGHTS = "weights.safetensors"
CARD = "MODEL_CARD.md"
MAX_MB = 11.8  # default limit of the weights
