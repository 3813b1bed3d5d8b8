"""Unsupported formats: file endings that users may expect to be indexed, and their names."""

from collections.abc import Mapping

# Kind, its plural, file endings.
_KINDS = (
    (
        *("video", "videos"),
        ".mp4 .m4v .mov .avi .mkv .webm .wmv .mpg .mpeg .3gp .3g2 .mts .m2ts .flv .ogv .vob .asf .insv",
    ),
    (
        *("camera raw file", "camera raw files"),
        (
            ".3fr .arw .bay .cap .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef "
            ".ptx .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f"
        ),
    ),
    ("JPEG XL image", "JPEG XL images", ".jxl"),
    ("Photoshop document", "Photoshop documents", ".psd .psb"),
    ("SVG drawing", "SVG drawings", ".svg .svgz"),
    (
        *("image of another format", "images of other formats"),
        ".tga .exr .hdr .dds .pcx .ico .icns .xcf .kra .eps .ai .wmf .emf",
    ),
)
KIND_OF_ENDING = {ending: kind for kind, _, endings in _KINDS for ending in endings.split()}


def by_kind(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Kind -> ending -> number, the most frequent ending first."""
    found: dict[str, dict[str, int]] = {}
    for kind, _, endings in _KINDS:
        present = [ending for ending in endings.split() if counts.get(ending)]
        if present:
            found[kind] = {ending: counts[ending] for ending in sorted(present, key=lambda each: -counts[each])}
    return found


def unsupported_text(found: Mapping[str, Mapping[str, int]]) -> str:
    """The result of by_kind as text: "12 videos (.mp4 10, .mov 2), 1 camera raw file (.cr2)"."""
    plurals = {kind: plural for kind, plural, _ in _KINDS}
    parts = []
    for kind, counts in found.items():
        n_files = sum(counts.values())
        endings = ", ".join(f"{ending} {n:,}" if len(counts) > 1 else ending for ending, n in counts.items())
        parts.append(f"{n_files:,} {kind if n_files == 1 else plurals[kind]} ({endings})")
    return ", ".join(parts)
