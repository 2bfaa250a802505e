"""Dump and restore: preflight, the page server, and CRIU driven over its RPC protocol."""
