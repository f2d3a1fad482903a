"""An emulated access point: hosts in namespaces, a userspace switch, tests with real devices."""
