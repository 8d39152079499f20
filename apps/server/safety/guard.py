"""The door of the daemon: each request is let in or refused before a route sees it."""

from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.server.errors import ApiError
from apps.server.safety.answers import refuse
from apps.server.safety.bodies import Bodies
from apps.server.safety.hosts import Hosts
from apps.server.safety.keys import ApiKey, ApiKeys, key_missing
from apps.server.safety.limits import BodyLimits

LOCAL = "local"  # the caller where no API keys are used, and whoever comes by the socket
NOBODY = "nobody"  # the caller of what needs no key, where keys are used
# Without a caller's data: health for probes, and the page, which asks for a key itself. Addresses
# of pictures are secrets themselves, as they are at OpenAI: whoever has one is let in.
OPEN = frozenset({"/", "/favicon.ico", "/healthz", "/readyz"})
OPEN_FOLDERS = ("/static/", "/pictures/")
# No page may frame the daemon, guess at content, or hear of its addresses; what is not said to
# be kept by whoever answers is kept by nobody.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}


def needs_key(path: str) -> bool:
    """Whether only those who have an API key may ask for a path, where keys are used."""
    return path not in OPEN and not path.startswith(OPEN_FOLDERS)


class Guard:
    """An ASGI middleware around everything.

    Args:
        hosts: names that the daemon may be called by.
        keys: API keys; those who ask are `request.state.caller` where they are used. An answer that
            takes long asks `request.state.lets_in` whether its caller's key has ended meanwhile.
        limits: of bodies.
        socket: the path of the socket that only this user can reach. Who comes by it needs no key,
            and is `request.state.by_socket`: a process of this user may read what this user may.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        keys: ApiKeys,
        limits: BodyLimits,
        socket: str | None = None,
    ) -> None:
        self._app = app
        self._bodies = Bodies(app, limits)
        self._socket = socket
        self._hosts = hosts
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                more = [(name, value) for name, value in HEADERS.items() if name not in names]
                message = {**message, "headers": [*given, *more]}
            await send(message)

        try:
            self._hosts.check(scope)
            self._identify(scope)
        except ApiError as error:
            # Whoever may not ask is not listened to, either.
            error.headers.setdefault("Connection", "close")
            await refuse(careful, error)
            return
        await self._bodies(scope, receive, careful)

    def _identify(self, scope: Scope) -> None:
        if self._socket is not None and scope.get("server") == (self._socket, None):
            scope.setdefault("state", {}).update(caller=LOCAL, by_socket=True)
            return
        sent = [value.decode("latin-1") for n, value in scope["headers"] if n == b"authorization"]
        key = self._keys.owner(sent) if self._keys.needed else self._first_key(sent)
        state = scope.setdefault("state", {})
        state["lets_in"] = partial(self._keys.lets_in, key)
        if not self._keys.needed:
            return
        state["operator"] = key is not None and key.operator
        state["max_priority"] = None if key is None else key.max_priority
        if key is None and needs_key(scope["path"]):
            raise key_missing()
        state["caller"] = NOBODY if key is None else key.id

    def _first_key(self, sent: list[str]) -> ApiKey | None:
        """Nobody's, unless a key was made just now."""
        try:
            return self._keys.owner(sent)
        except ApiError:
            if self._keys.needed:
                raise
            return None
