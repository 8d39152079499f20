"""A test process, which is a fork of `tests.warm_tests`: `warm_join.py PLACE -u -c CODE`.

This process only waits for the fork, which has its standard streams. Where that process could not
be had it is the test process itself.
"""

import json
import os
import signal
import socket
import sys


def main(place: str, arguments: list[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        was = signal.getsignal(signal.SIGINT)
        code = arguments[arguments.index("-c") + 1]
        request = json.dumps([code, os.getcwd(), dict(os.environ)]).encode()
        try:
            connection.connect(f"\0{place}")
            socket.send_fds(connection, [request], [0, 1, 2])
            was = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests
            while connection.recv(100):  # its id
                pass
        except OSError:
            signal.signal(signal.SIGINT, was)
            os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
