"""YAML from users: plain values, and no small file that unfolds into a large one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

MAX_VALUES = 100_000  # of a settings file with its aliases written out
LARGE = 50_000  # characters: from here on libyaml reads strangers' files, too
MAX_DEPTH = 100  # of what it is given; it would not outlive what is nested a thousand times deeper


def parse_yaml(text: str, own: bool = False, most: int = MAX_VALUES) -> Any:
    """The one document of `text`.

    Args:
        own: it is a file of this project. libyaml reads it ten times as fast, and would not outlive
            what is nested too deeply.
        most: how many values the document may hold with its aliases written out.

    Raises:
        ValueError: not YAML, or more than a file of settings can mean; the message is one line.
    """
    try:
        fast = own or (len(text) > LARGE and _is_shallow(text))
        with _loader(text, fast) as loader:
            node = loader.get_single_node()
            if node is None:
                return None
            _unfolded(node, {}, most)
            return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # PyYAML's constructors of !!int, !!bool and !!timestamp trip over texts that are none.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


@contextmanager
def _loader(text: str, fast: bool) -> Iterator[Any]:
    kind = yaml.CSafeLoader if fast and yaml.__with_libyaml__ else yaml.SafeLoader
    loader = kind(text)
    try:
        yield loader
    finally:
        loader.dispose()


def _is_shallow(text: str) -> bool:
    """Whether nothing in it is nested deeply, by its events, which are read one after another."""
    if not yaml.__with_libyaml__:
        return False
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return False
    return True


def _unfolded(node: yaml.Node, known: dict[int, int | None], most: int) -> int:
    """How many values `node` holds when every alias is written out (`<<` copies them)."""
    if id(node) not in known:
        known[id(node)] = None  # until its children are counted: an alias to it would be endless
        known[id(node)] = 1 + sum(_unfolded(child, known, most) for child in _children(node))
    count = known[id(node)]
    if count is None:
        raise ValueError("an alias stands inside of its own anchor")
    if count > most:
        raise ValueError(f"its aliases unfold to more than {most} values")
    return count


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
