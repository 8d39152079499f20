"""The embedded demo model: a tiny text-to-image checkpoint, and how it was made."""
