"""Processes whose standard library was patched by eventlet or gevent."""
