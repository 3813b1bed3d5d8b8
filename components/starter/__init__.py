"""The model in the box: trained weights that are put together with packaged trunks at first use. Names only, no torch.

model/ is made by `image-finder models pack`; its MODEL_CARD.md says on what it was trained and what it cannot do.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
MANIFEST = "starter.json"
WEIGHTS = "weights.safetensors"
CARD = "MODEL_CARD.md"
MAX_MB = 11.8  # of the weights, unless more is allowed
