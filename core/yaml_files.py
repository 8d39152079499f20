"""YAML from users: plain values, and no small file that unfolds into a large one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

MAX_VALUES = 100_000  # of a document with its aliases written out


def parse_yaml(text: str, own: bool = False) -> Any:
    """The one document of `text`.

    Args:
        own: it is a file of this project. libyaml reads it ten times as fast, and would not outlive
            what is nested too deeply.

    Raises:
        ValueError: not YAML, or more than a file of settings can mean; the message is one line.
    """
    try:
        with _loader(text, own) as loader:
            node = loader.get_single_node()
            if node is None:
                return None
            _unfolded(node, {})
            return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # PyYAML's constructors of !!int, !!bool and !!timestamp trip over texts that are none.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


@contextmanager
def _loader(text: str, own: bool) -> Iterator[Any]:
    kind = yaml.CSafeLoader if own and yaml.__with_libyaml__ else yaml.SafeLoader
    loader = kind(text)
    try:
        yield loader
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values `node` holds when every alias is written out (`<<` copies them)."""
    if id(node) not in known:
        known[id(node)] = None  # until its children are counted: an alias to it would be endless
        known[id(node)] = 1 + sum(_unfolded(child, known) for child in _children(node))
    count = known[id(node)]
    if count is None:
        raise ValueError("an alias stands inside of its own anchor")
    if count > MAX_VALUES:
        raise ValueError(f"its aliases unfold to more than {MAX_VALUES} values")
    return count


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
