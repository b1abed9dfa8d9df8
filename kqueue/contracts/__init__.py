"""What the parts promise each other: stores by role, brokers, renewers, and the rules that all keep."""
