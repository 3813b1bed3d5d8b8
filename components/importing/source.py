"""Source: finds the files of a model, in a directory or on the Hugging Face hub, with revision and licence."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from image_finder.components.errors import BundleError, DataError
from image_finder.components.importing.original import Original
from image_finder.components.records.base import Record
from image_finder.components.storage import sha256_of_file, sha256_of_lines
from image_finder.components.text import one_line

OPEN_CLIP = "open_clip:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "README.md"]  # no pickles
_NON_COMMERCIAL = re.compile(r"(^|[-_ ])(nc|amlr|research|non-?commercial)([-_ .]|$)", re.IGNORECASE)
_UNKNOWN = "unknown"
_REFUSED = (401, 403)


class SourceFacts(Record):
    licence: str = _UNKNOWN
    non_commercial: bool = False
    training_data: str = _UNKNOWN


@dataclass(frozen=True)
class Source:
    """Files of a model. name: as the user gave it; built_in: architecture of open_clip that the weights fit."""

    name: str
    files: Path
    revision: str
    facts: SourceFacts
    built_in: str | None = None

    @property
    def key(self) -> str:
        """A folder name for its bundle."""
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', Path(self.name).name)[-40:]}-{self.revision[:12]}"


def find_source(name: str, *, revision: str | None = None) -> Source:
    """Find the files of a source, and download them if they are on the hub.

    name: a directory, `owner/model` on the hub, `open_clip:NAME/TAG` or `open_clip:NAME=FILE.safetensors`. revision: on
    the hub, a branch, tag or commit; it is resolved to a commit. Raises BundleError, DataError (hub).
    """
    if name.startswith(OPEN_CLIP):
        return _open_clip_source(name, revision)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(name, folder.resolve(), _hash_of(folder), _facts_of(folder))
    if not _REPOSITORY.fullmatch(name):
        raise BundleError(
            f"'{name}' is no directory and no model on the hub; expected a directory, OWNER/MODEL, open_clip:NAME/TAG or "
            "open_clip:NAME=FILE.safetensors"
        )
    return _fetched(name, name, revision)


def load_original(source: Source) -> Original:
    """Load a source with its own library. Raises BundleError."""
    try:
        if source.built_in is not None:
            from image_finder.components.importing.open_clip_model import load_open_clip_file

            return load_open_clip_file(source.built_in, source.files)
        from image_finder.components.importing import hugging_face

        if (source.files / "open_clip_config.json").is_file():
            from image_finder.components.importing.open_clip_model import load_open_clip_folder

            return load_open_clip_folder(source.files)
        return hugging_face.load_hugging_face(source.files)
    except ModuleNotFoundError as error:
        raise BundleError(
            f"importing needs the package {error.name}: pip install 'text-guided-image-finder[import]'"
        ) from error


def _open_clip_source(name: str, revision: str | None) -> Source:
    rest = name.removeprefix(OPEN_CLIP)
    if "=" in rest:
        architecture, _, file = rest.partition("=")
        path = Path(file).expanduser()
        if not path.is_file():
            raise BundleError(f"{path} does not exist; name a file of weights: open_clip:NAME=FILE.safetensors")
        return Source(name, path.resolve(), sha256_of_file(path), SourceFacts(), built_in=architecture)
    architecture, _, tag = rest.partition("/")
    import open_clip

    known = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise BundleError(f"open_clip has no weights '{tag}' of '{architecture}'; known are {tags}")
    repository = "/".join(str(known.get("hf_hub", "")).split("/")[:2])
    if not repository:
        raise BundleError(
            f"open_clip publishes '{rest}' only as a pickle, which can execute code; import another model"
        )
    return _fetched(name, repository, revision)


def _fetched(name: str, repository: str, revision: str | None) -> Source:
    """Download the safe files of a repository at one commit; resumed if interrupted. Raises DataError, BundleError."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, whichever it uses

    try:
        found = HfApi().model_info(repository, revision=revision)
        commit = str(found.sha)
        names = [each.rfilename for each in found.siblings or []]
        if not any(each.endswith(".safetensors") for each in names):
            raise BundleError(
                f"{repository} has no *.safetensors; weights in other formats can execute code and are not read: import "
                "another model"
            )
        folder = Path(snapshot_download(repository, revision=commit, allow_patterns=_FILES))
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository} asks for consent: accept its terms at https://huggingface.co/{repository}, then set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{repository} has no revision '{revision}'; name a branch, tag or commit of it") from error
    except (OSError, httpx.HTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if isinstance(error, errors.RepositoryNotFoundError) or status in _REFUSED:
            raise DataError(
                f"{repository} is not on the hub, or private: check the name, or set HF_TOKEN (status {status})"
            ) from error
        raise DataError(
            f"cannot fetch {repository} from the hub: {one_line(error)}; check the connection and run again, a download "
            "is resumed"
        ) from error
    return Source(name, folder, commit, _facts_of(folder))


def _facts_of(folder: Path) -> SourceFacts:
    """Licence and training data by the front matter of the repository's README.md."""
    readme = folder / "README.md"
    if not readme.is_file():
        return SourceFacts()
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except (ValueError, UnicodeDecodeError):
        return SourceFacts()
    licence = " ".join(str(data[key]) for key in ("license", "license_name") if data.get(key)) or _UNKNOWN
    datasets = data.get("datasets") or []
    datasets = datasets if isinstance(datasets, list) else [datasets]
    return SourceFacts(
        licence=licence,
        non_commercial=bool(_NON_COMMERCIAL.search(licence)),
        training_data=", ".join(str(each) for each in datasets if each) or _UNKNOWN,
    )


def _hash_of(folder: Path) -> str:
    """Hash of the weights of a directory: of names and contents of its safetensors."""
    return sha256_of_lines((path.name, sha256_of_file(path)) for path in folder.glob("*.safetensors"))
