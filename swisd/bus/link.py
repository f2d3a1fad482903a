"""paho's MQTT client, with our sockets under it and a network thread that does not die.

paho has no public hook for a socket that is connected already, nor for a wait that can be cut short, so this
small subclass overrides a few of its methods; tests/bus hold what it relies on.
"""

import logging
import random
import socket
import threading
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.enums import _ConnectionState as ConnectionState

from swisd.bus.api import KEEPALIVE_S
from swisd.bus.endpoint import OutsideBroker, SwarmBroker
from swisd.core.errors import SwisdError

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
EAGER_WAIT_S = 0.3  # towards a host that is about to start


class Link(paho.Client):
    """One client connection, renewed for as long as it runs.

    `failure` says in words why the last attempt to open a socket failed; `on_crash` is called in the network
    thread where paho itself failed, for instance on a malformed packet.
    """

    def __init__(self, endpoint: SwarmBroker | OutsideBroker, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, protocol=paho.MQTTv311
        )
        self.endpoint = endpoint
        self.failure = ""
        self.on_crash: Callable[[str], None] = lambda reason: None
        self._hurry = threading.Event()
        self._wait_s = FIRST_WAIT_S
        self.longest_wait_s = LONGEST_WAIT_S
        self.where = (endpoint.host, endpoint.port)  # where the last socket led
        if isinstance(endpoint, OutsideBroker) and endpoint.username is not None:
            self.username_pw_set(endpoint.username, endpoint.password)

    def begin(self) -> None:
        """Start the network thread, which connects."""
        self.connect_async(self.endpoint.host, self.endpoint.port, KEEPALIVE_S)
        self.loop_start()

    def hurry(self, *, cut: bool = False) -> None:
        """Connect at once instead of waiting; with `cut`, break a connection that is open."""
        self._wait_s = FIRST_WAIT_S
        self._hurry.set()
        sock = self.socket()
        if cut and isinstance(sock, socket.socket):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("the socket to %s was closed already: %s", self.endpoint.host, error)

    def accepted(self) -> None:
        """The broker took us: the next waits are short again."""
        self._wait_s, self.longest_wait_s = FIRST_WAIT_S, LONGEST_WAIT_S

    def _create_socket(self) -> socket.socket:
        try:
            endpoint = self.endpoint
            sock = endpoint.open()
            self.where = (endpoint.host, endpoint.port)
            if isinstance(endpoint, SwarmBroker) and endpoint.others:
                self.where = sock.getpeername()[:2]
            return sock
        except (OSError, SwisdError, ValueError) as error:
            # paho retries on OSError and dies of anything else (a wrong key, a name that cannot be encoded).
            self.failure = str(error) or type(error).__name__
            raise OSError(self.failure) from error

    def _reconnect_wait(self) -> None:
        # Random, so that a swarm does not come back to a new host all in the same moment.
        if not self._thread_terminate:
            self._hurry.wait(self._wait_s * random.uniform(0.5, 1.0))
        self._hurry.clear()
        self._wait_s = min(self._wait_s * 2, self.longest_wait_s)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:  # noqa: BLE001  (whatever a broker's bytes provoke in paho, we reconnect)
                log.warning("MQTT client: %s: %s; connecting anew", type(error).__name__, error)
                self._sock_close()
                self.on_crash(f"what the broker sent could not be read ({type(error).__name__})")
                self._reconnect_wait()
                if self._thread_terminate:
                    return MQTTErrorCode.MQTT_ERR_UNKNOWN
                self._state = ConnectionState.MQTT_CS_CONNECT_ASYNC
