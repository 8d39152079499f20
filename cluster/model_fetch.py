"""A hub's model on its way to the nodes of a cluster, as the engine sees it.

It is there for the engine when the first node has it: each node lets its own workers load when it
has the model, and no sooner.
"""

import threading
from collections.abc import Callable

from cluster.protocol import FetchNews
from core.engine.fetch import Fetch
from core.events import Listener, ModelFetching

SLICE = 1.0  # seconds between looks at the model before this one


class ClusterFetch:
    """One model, fetched by every node for itself.

    Args:
        begin: has the nodes fetch it.
        end: has them stop.

    Attributes:
        on_change: called, from any thread, when there is something new to read here.
        nodes: where it may come to.
        folder: where its files lie on one node; None until they are there.
        refusal: why no node can have it, or None.
        transfers: bytes are coming to some node.
    """

    def __init__(
        self,
        source: str,
        listener: Listener,
        begin: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.nodes: set[str] = set()
        self.folder: str | None = None
        self.refusal: str | None = None
        self.transfers = False
        self._source, self._listener = source, listener
        self._begin, self._end = begin, end
        self._begun = False
        self._news: dict[str, FetchNews] = {}
        self._stopping, self._over = threading.Event(), threading.Event()

    def start(self, after: Fetch | None = None) -> None:
        """Begin to fetch; does nothing the second time."""
        if self._begun:
            return
        self._begun = True
        if after is None:
            self._begin()
        else:
            threading.Thread(
                target=self._start_after, args=(after,), name="model-fetch", daemon=True
            ).start()

    def _start_after(self, other: Fetch) -> None:
        while not other.wait(SLICE):
            if self._stopping.is_set():
                return
        self._begin()

    def wait(self, seconds: float) -> bool:
        """Wait until it is there or cannot be had; False if time was up before."""
        return self._over.wait(seconds)

    def stop(self) -> None:
        """End it, wherever it is; what came stays on the nodes for the next run."""
        self._stopping.set()
        self._end()

    def hear(self, node: str, news: FetchNews) -> None:
        """A node tells how far it is."""
        known = self._news.get(node, news)
        self._news[node] = news
        if news.folder is None and news.refusal is None:
            self.transfers = True
            most = max(self._news.values(), key=lambda n: n.total)
            done = min((n.done for n in self._news.values() if n.total), default=0)
            self._listener(ModelFetching(self._source, done, most.total))
        if news.folder is not None and known.folder is None and self.transfers and news.total:
            self._listener(ModelFetching(self._source, news.total, news.total))
        self._decide()

    def node_lost(self, node: str) -> None:
        """A node will have it no more, and is waited for no longer."""
        self.nodes.discard(node)
        self._news.pop(node, None)
        self._decide()

    def _decide(self) -> None:
        folders = [news.folder for news in self._news.values() if news.folder is not None]
        refusals = {n: news.refusal for n, news in self._news.items() if news.refusal is not None}
        if folders:
            self.folder, self.transfers = self.folder or folders[0], False
        elif self.nodes and refusals.keys() >= self.nodes:
            node, why = next(iter(refusals.items()))
            self.refusal = f"{node}: {why}"
        if self.folder is not None or self.refusal is not None:
            self._over.set()
        self.on_change()
