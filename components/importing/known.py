"""Known models: a small table to choose from; nothing is downloaded until a model is imported.

Recall is text-to-image, zero-shot, in %, on the 5,000 images of COCO's test part and the 1,000 of Flickr30k's, from
open_clip's docs/openclip_retrieval_results.csv (github.com/mlfoundations/open_clip, commit 05e7db4). None: that table lacks
the model. Licences as their authors named them when this table was written; an import reads them from the source.
"""

from image_finder.components.records.base import Record

_BYTES_A_WEIGHT = 4
_COPIES, _LIBRARIES_GB = 5, 0.9  # as in importer.py


class KnownModel(Record):
    """parameters_m: millions; coco, flickr30k: recall at 1, 5 and 10."""

    source: str
    licence: str
    parameters_m: int
    dimension: int
    languages: str = "English"
    coco: tuple[float, float, float] | None = None
    flickr30k: tuple[float, float, float] | None = None

    @property
    def memory_gb(self) -> float:
        """Memory that the import needs; a search needs the size of the bundle."""
        return round(_LIBRARIES_GB + self.parameters_m * _BYTES_A_WEIGHT * _COPIES / 1000, 1)


KNOWN = (
    KnownModel(
        source="openai/clip-vit-base-patch32",
        licence="MIT",
        parameters_m=151,
        dimension=512,
        coco=(30.4, 55.9, 66.9),
        flickr30k=(58.8, 83.6, 90.0),
    ),
    KnownModel(
        source="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        licence="MIT",
        parameters_m=151,
        dimension=512,
        coco=(39.3, 65.4, 75.6),
        flickr30k=(66.8, 88.4, 93.1),
    ),
    KnownModel(
        source="laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        licence="MIT",
        parameters_m=150,
        dimension=512,
        coco=(40.2, 66.0, 75.6),
        flickr30k=(67.6, 88.3, 93.0),
    ),
    KnownModel(
        source="openai/clip-vit-large-patch14",
        licence="MIT",
        parameters_m=428,
        dimension=768,
        coco=(36.5, 61.1, 71.1),
        flickr30k=(65.0, 87.2, 92.0),
    ),
    KnownModel(
        source="google/siglip-base-patch16-224",
        licence="Apache-2.0",
        parameters_m=203,
        dimension=768,
        coco=(47.8, 72.4, 81.0),
        flickr30k=(74.7, 92.3, 95.6),
    ),
    KnownModel(
        source="google/siglip-base-patch16-256-multilingual",
        licence="Apache-2.0",
        parameters_m=371,
        dimension=768,
        languages="many",
        coco=(44.9, 69.5, 78.4),
        flickr30k=(72.2, 90.4, 94.7),
    ),
    KnownModel(
        source="google/siglip-so400m-patch14-384",
        licence="Apache-2.0",
        parameters_m=878,
        dimension=1152,
        coco=(54.2, 76.8, 84.2),
        flickr30k=(83.0, 96.1, 98.0),
    ),
    KnownModel(
        source="google/siglip2-base-patch16-224",
        licence="Apache-2.0",
        parameters_m=375,
        dimension=768,
        languages="many",
    ),
    KnownModel(
        source="OFA-Sys/chinese-clip-vit-base-patch16",
        licence="unknown",
        parameters_m=188,
        dimension=512,
        languages="Chinese",
    ),
    KnownModel(
        source="open_clip:MobileCLIP2-S0/dfndr2b",
        licence="Apple AMLR, not for commercial use",
        parameters_m=75,
        dimension=512,
    ),
)
