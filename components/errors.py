"""Error tree: every failure a user can cause or meet, one line each; knows nothing of what raises it.

FinderError
├── ConfigError          an unknown key, a value out of range, two values that do not fit together
│   └── BusyError        another run holds what this one needs: try again later
├── DataError            captions, images or tables that are missing, malformed or refused by a gate
│   └── ImageError     one image that cannot be decoded
├── ProcessError         a process of a training over several that died or fell silent
├── StorageError         a file that cannot be written, or whose content is not what its manifest says
├── BundleError          a model bundle that is absent, incomplete, corrupted or of another format
├── IndexMismatchError   a vector index that was made with another bundle
├── QueryError           a query that cannot be answered: empty, too long, k out of range
└── QualityError         a measured gate (recall, parity, data quality) that was not passed

Messages say what, where, measured against expected, and what to do. The rims (command line, HTTP) translate once.
"""


class FinderError(Exception):
    """Base of every error this project raises on purpose; its text is fit to be shown to a user as it is."""


class ConfigError(FinderError):
    """A configuration that cannot be used."""


class BusyError(ConfigError):
    """Another run holds what this one needs."""


class DataError(FinderError):
    """A data set that cannot be used."""


class ImageError(DataError):
    """One image that cannot be decoded."""


class ProcessError(FinderError):
    """A process that worked with others and died or fell silent."""


class StorageError(FinderError):
    """A file that cannot be written or whose content is not what it should be."""


class BundleError(FinderError):
    """A bundle that cannot be opened."""


class IndexMismatchError(FinderError):
    """An index and a bundle that do not belong together."""


class QueryError(FinderError):
    """A query that cannot be answered."""


class QualityError(FinderError):
    """A gate that refused what it measured."""
