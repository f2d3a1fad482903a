"""Hosts on a wire: the kernel's own bridge joins them, so nothing computes between two devices.

The lab's switch is a process of its own, which shares the cores with the devices. Where no delay, loss or
radio is wanted it would only be measured along.
"""

from typing import Any

from tests.lab.lab import Lab, sh

BRIDGE = "br0"


class WiredLab(Lab):
    """A lab whose hosts hang on a bridge. Links cannot be changed, cut or counted."""

    def _plug(self, name: str, namespace: str, ends: dict[str, Any]) -> None:
        if any(ends.values()):
            raise ValueError("a wire has no delay, loss or rate")
        if not self.hosts:
            sh("ip", "-n", self._middle, "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "-n", self._middle, "link", "set", BRIDGE, "up")
        port = f"p{len(self.hosts)}"
        peer = ["peer", "name", "eth0", "netns", namespace]
        sh("ip", "-n", self._middle, "link", "add", port, "type", "veth", *peer)
        sh("ip", "-n", self._middle, "link", "set", port, "master", BRIDGE, "up")
