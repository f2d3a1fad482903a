"""MQTT topic filters: which topics a pattern with `+` and `#` takes in (MQTT 3.1.1, section 4.7)."""


def valid_pattern(pattern: str) -> bool:
    """Whether a broker would take this filter."""
    levels = pattern.split("/")
    return (
        0 < len(pattern) <= 65535
        and "\0" not in pattern
        and all("+" not in level or level == "+" for level in levels)
        and all("#" not in level for level in levels[:-1])
        and ("#" not in levels[-1] or levels[-1] == "#")
    )


def valid_topic(topic: str) -> bool:
    """Whether one may publish on this topic."""
    return 0 < len(topic) <= 65535 and not any(sign in topic for sign in "+#\0")


def matches(pattern: str, topic: str) -> bool:
    """Whether a valid pattern takes in a valid topic."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False  # broker-internal topics only answer to their own name
    wanted, levels = pattern.split("/"), topic.split("/")
    for number, level in enumerate(wanted):
        if level == "#":
            return True  # also the parent level: `a/#` takes in `a`
        if number >= len(levels) or level not in ("+", levels[number]):
            return False
    return len(wanted) == len(levels)
