import common.openmp  # noqa: F401
