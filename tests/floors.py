"""The plan of the house, which :mod:`tests.test_layout` holds the imports to."""

#: The rooms from the top floor to the ground. A room uses those below it, and itself.
FLOORS = (
    "__main__",
    "cli",
    "worker",
    "testing",
    "__init__",
    "queue",
    "assembly",
    "config",
    "admin",
    "loops",
    "execution",
    "upkeep",
    "dispatch",
    "renewal",
    "stores",
    "brokers",
    "telemetry",
    "contracts",
    "system",
    "model",
)
