"""Names of aliases, tags and files of a registered model."""

CHALLENGER = "challenger"  # the newest registered version
CHAMPION = "champion"  # the version that serves searches
PREVIOUS = "previous"  # the champion before it, to which a rollback returns

# Tags of a version
DATA_VERSION = "data_version"
DATA_FINGERPRINT = "data_fingerprint"
CODE_VERSION = "code_version"  # commit, with -dirty; or the hash of the sources
CODE_SHA256 = "code_sha256"
CONFIG_SHA256 = "config_sha256"
ENVIRONMENT_SHA256 = "environment_sha256"
HARDWARE = "hardware"
SEEDS = "seeds"
PARENT_CHAMPION = "parent_champion"
BUNDLE_SHA256 = "bundle_sha256"
BUNDLE_FORMAT = "bundle_format"
DATASET = "dataset"
SPLIT = "split"
MEAN_RECALL = "mean_recall"
VALIDATION = "validation"
RUN_NAME = "run_name"
IMPORTED = "imported"  # source and revision of a model that was not trained here
SUMMARY = "summary"  # first half of the description's first sentence, see version_summary
LAST_EVENT = "last_event"  # title of the newest ledger entry about the version

# Files of a version
BUNDLE_ARTIFACT = "bundle"
REPORT_ARTIFACT = "retrieval_report.json"
CARD_ARTIFACT = "MODEL_CARD.md"
LINEAGE_ARTIFACT = "lineage.json"
MANIFEST_ARTIFACT = "dataset_manifest.json"
VALIDATION_ARTIFACT = "validation_report.json"
DRIFT_REFERENCE_ARTIFACT = "drift_reference"
MEASURED_ARTIFACT = "reports/measured_bundle.json"  # of the run: a StoredMeasurement
PROMOTION_ARTIFACT = "reports/promotion.html"  # of the run: the newest decision about its version
PARITY_ARTIFACT = "reports/parity.json"  # of the run

# The ledger
LEDGER_HEAD = "ledger_head"  # tag of the registered model
ENTRY_NUMBER = "n"
ENTRY_SHA256 = "sha256"
ENTRY_TEXT = "entry"

LOCK_SUFFIX = ".lock"


def ledger_experiment(model: str) -> str:
    return f"{model} ledger"
