"""Pictures changed by instructions, without judging them: `edit_images.py`."""

from apps.edit_images.edit_list import EditList, read_edits

__all__ = ["EditList", "read_edits"]
