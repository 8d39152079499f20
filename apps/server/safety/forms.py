"""How many parts a form may have: each upload is an open file while its request lasts."""

from typing import Any

MAX_FILES, MAX_FIELDS = 24, 64
FORM_LIMITS: Any = {
    "max_files": MAX_FILES,
    "max_fields": MAX_FIELDS,
    "max_part_size": 1024**2,  # bytes of a field that is no file
}
"""For FastAPI, and for `request.form(**FORM_LIMITS)`."""
