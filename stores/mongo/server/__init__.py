"""The server as the store sees it: connections, its clock, errors, transactions."""
