"""The process that gives a task its memory while the task runs: ``python -m snaplib.checkpoint.lazypages``.

It takes the place of CRIU's lazy-pages daemon: a restore passes it the userfaultfd of each process.  Pages that are
touched come first, the rest in the background, each frame read and decoded once and put where it belongs out of the
buffer it was decoded into.
"""
