"""Names of files and folders, made from what people write in any script.

Unicode's composed form (NFC), marks kept (प्रिया stays प्रिया), and short enough for every common
file system, which count bytes: a name that is too long is cut between characters as people see
them, never inside one. What was fit for a name before stays as it is, or finished work would not
be found again.
"""

import hashlib
import unicodedata

MAX_BYTES = 240  # of 255: the rest is for an index and a suffix, such as _00001.webp
_MARKS = ("Mn", "Mc", "Me")
_JOINERS = "\u200c\u200d"  # ZWNJ and ZWJ, which shape the letters beside them


def cleaned(text: str, allowed: str, stand_in: str = "_") -> str:
    """`text` with one `stand_in` for each run of what is no letter, digit, mark or underscore.

    Args:
        allowed: punctuation that may stay.
    """
    kept: list[str] = []
    replaced = False  # the last character
    for char in unicodedata.normalize("NFC", text):
        mark = unicodedata.category(char) in _MARKS
        if char.isalnum() or char == "_" or char in allowed or (mark and kept and not replaced):
            kept.append(char)
            replaced = False
        elif not (char in _JOINERS and kept and unicodedata.category(kept[-1]) in _MARKS):
            if not replaced:
                kept.append(stand_in)
            replaced = True
    return "".join(kept)


def cut(text: str, most: int, most_bytes: int = MAX_BYTES) -> str:
    """The beginning of `text`: at most so many code points, and so many bytes in UTF-8."""
    if len(text) <= most and _bytes(text) <= most_bytes:
        return text
    length = size = 0
    import regex  # hardly any name is too long, and it takes 10 ms to load

    for character in regex.findall(r"\X", text):  # with its marks, as people see it
        length, size = length + len(character), size + _bytes(character)
        if length > most or size > most_bytes:
            return text[: length - len(character)] or text[: most_bytes // 4][:most]
    return text


def distinct(text: str, name: str, most_bytes: int = MAX_BYTES) -> str:
    """`name` with a short hash of `text`, which it no longer tells apart from others."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cut(name, len(name), most_bytes - len(digest) - 1)}-{digest}"


def bounded(name: str, most_bytes: int = MAX_BYTES) -> str:
    """`name`, or as much of it as fits and a hash of the whole."""
    return name if _bytes(name) <= most_bytes else distinct(name, name, most_bytes)


def counted(count: int, noun: str) -> str:
    """A number of things in words: `1 tweet`, `3 tweets`, `2 switches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('ch', 'sh', 's', 'x')) else 's'}"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))  # names of old disks need not be UTF-8
