import openmp  # noqa: F401
