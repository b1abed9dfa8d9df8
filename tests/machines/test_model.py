"""The model, over each kind of store, with a broker that fails and without one.

The choices are the same at each run. A failure prints the shortest steps that lead to it.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machines.machine import Machine

#: Runs of up to ``STEPS`` steps each, for each world.
EXAMPLES = {"memory+fake": 220, "sqlite+fake": 60, "memory": 60, "sqlite": 30}
STEPS = 40
#: One of so many of them without ``--proof``.
SAMPLE = 10


@pytest.mark.sampled
@pytest.mark.parametrize("kind", EXAMPLES)
def test_no_order_of_events_breaks_an_invariant(kind: str, request: pytest.FixtureRequest) -> None:
    def machine() -> Machine:
        return Machine(kind)

    proof = request.config.getoption("--proof")
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[kind] if proof else EXAMPLES[kind] // SAMPLE,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
