"""How priors may be called: their names are those of files, and words of a command line."""

from __future__ import annotations

import re

LONGEST_PRIOR_NAME = 64


def is_prior_name(text: str) -> bool:
    """Whether a text has letters (a to z), digits, dots, dashes and underscores only, no dot or dash first, and fits."""
    return len(text) <= LONGEST_PRIOR_NAME and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None
