"""Where data lies that is too large for the project, or not its own; tests skip what is missing."""

from pathlib import Path
from typing import Final

SHARED: Final = Path(__file__).parents[2].parent / "shared"
