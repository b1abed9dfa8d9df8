"""The process that renews leases: its words, its plan, its sockets, and real processes."""
