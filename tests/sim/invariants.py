"""The invariants live in the package, where `swisd simulate` needs them too."""

from swisd.sim.invariants import GRACE, Invariants, Violation, run_to_active, run_to_end

__all__ = ["GRACE", "Invariants", "Violation", "run_to_active", "run_to_end"]
