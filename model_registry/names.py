"""Names the registry uses: aliases, tags and files of a registered model; knows nothing of MLflow."""

CHALLENGER = "challenger"  # the newest registered version
CHAMPION = "champion"  # the version that serves

DATA_VERSION = "data_version"
CODE_VERSION = "code_version"
CONFIG_SHA256 = "config_sha256"
ENVIRONMENT_SHA256 = "environment_sha256"
BUNDLE_SHA256 = "bundle_sha256"
BUNDLE_FORMAT = "bundle_format"
SPLIT = "split"
MEAN_RECALL = "mean_recall"

BUNDLE_ARTIFACT = "bundle"
REPORT_ARTIFACT = "retrieval_report.json"
CARD_ARTIFACT = "MODEL_CARD.md"
