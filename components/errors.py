"""Error tree: every failure that a user can cause or meet, reported in one line.

FinderError
├── ConfigError          an unknown key, a value out of range, two values that do not fit together
│   └── BusyError        another run holds a resource: try again later
├── DataError            captions, images or tables that are missing, malformed or refused by a gate
│   └── ImageError       one image that cannot be decoded
├── ProcessError         a worker of a distributed training died or timed out
├── StorageError         a file that cannot be written, or that does not match its manifest
├── BundleError          a model bundle that is absent, incomplete, corrupted or of another format
├── IndexMismatchError   a vector index that was built with another bundle
├── QueryError           a query that cannot be answered: empty, too long, k out of range
└── QualityError         a gate (recall, parity, data quality) that was not passed

A message says what happened, where, the measured and the expected value, and what to do. The command line and the HTTP
API translate it once.
"""


class FinderError(Exception):
    """Base of every error raised on purpose; its text can be shown to users unchanged."""


class ConfigError(FinderError): ...


class BusyError(ConfigError): ...


class DataError(FinderError): ...


class ImageError(DataError): ...


class ProcessError(FinderError): ...


class StorageError(FinderError): ...


class BundleError(FinderError): ...


class IndexMismatchError(FinderError): ...


class QueryError(FinderError): ...


class QualityError(FinderError): ...
