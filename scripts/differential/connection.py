"""Frames on a socket."""

import socket
import struct

ANSWER_MAX_SECONDS = 60
# How long an answer that must not come is waited for.
SILENCE_SECONDS = 0.3


class Closed(Exception):
    """The broker has closed the connection."""


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=ANSWER_MAX_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def send(self, api, version, body, client="differential"):
        self.correlation += 1
        name = client.encode()
        header = struct.pack(">hhih", api.key, version, self.correlation, len(name)) + name
        if api.request_header_version(version) == 2:
            header += b"\0"
        frame = header + body
        self.raw(struct.pack(">i", len(frame)) + frame)
        return self.correlation

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            raise Closed from error

    def receive(self):
        """The next answer, without its length."""
        (length,) = struct.unpack(">i", self.exactly(4))
        return self.exactly(length)

    def answers_within(self, seconds):
        """Whether an answer, or the end of the connection, comes so soon."""
        self.socket.settimeout(seconds)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK)) or True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(ANSWER_MAX_SECONDS)

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def close(self):
        self.socket.close()
