"""The init of a session: PID 1 of the task's namespace, and the relay of its standard streams.

It is run as ``python -I -S DIRECTORY SPEC_FD REPORT_FD`` and uses the standard library only, so
that it starts fast, stays small and cannot be harmed by what is installed or upgraded while a task
runs.
"""
