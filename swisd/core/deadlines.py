"""Every wait of the swarm, in seconds, in one place."""

BEAT = 1.0  # between two heartbeats
SUSPECT = 3.0  # without a heartbeat: no new work
DEAD = 6.0  # without a heartbeat: out of the plan
FORGET = 120.0  # a dead device stays visible this long
HOST_TICK = 0.25
DIGEST = 1.0
SETTLE = 0.7  # after a change of members, before planning: devices tend to arrive together
TURN = 20.0  # a device waits this long for others on its machine to measure themselves
MEASURING = 30.0  # how long a first plan waits for a newcomer that still measures itself
LOAD_STALL = 60.0  # loading without any progress
BAN = 30.0  # a device that could not load its shard is left out this long
CLAIM = 4.0  # without a sign of a host, before another device claims the role (times its place in line)
PROVIDE = 2.0  # a new host waits this long for a device that holds the model, before it imports it
MEASURE_AGAIN = 30.0  # after a device failed to measure itself
RETRY = 5.0  # a failed fetch of a manifest or model
LINKS_SETTLE = 0.5
LINKS_EVERY = 120.0
STEP = 30.0  # least deadline of one step round the swarm
STEP_TIMES = 10.0  # a step may take so many times what the plan predicts
RENEW = 2.0  # asker to driver: still listening
LEASE = 12.0  # driver without a renewal: the asker is gone
KEEP_DONE = 20.0  # a finished session's last messages are kept for a resend
IDLE_SESSION = 300.0  # a worker frees a session's cache after this long without a frame
NO_FIT = 3.0  # an asker waits this long for a plan when there is none and no device is busy
PATIENCE = 45.0  # an asker waits this long for any progress before it gives up
REFINE_EVERY = 30.0  # at most one self-correction of the profile from real steps
