"""Takes a userfaultfd out of a running process, which does not notice.

A userfaultfd watches the memory of the process that makes it, so the process must make it: one of
its threads is stopped for some 0.3 ms and made to run two system calls, userfaultfd(2) and, when we
have our own copy of the descriptor (pidfd_getfd(2)), close(2). Its registers and signal mask are
put back before it runs on. Nothing is written to its memory. The thread is let go from a stop in
the kernel's signal path, where the kernel itself takes up a system call that the stop interrupted
(ptrace(2), "PTRACE_EVENT stops"; signal(7), "Interruption of system calls").

Between the two SETREGSETs the thread has registers that are not its own. Were the tracer killed
then, the kernel would let it run on with them, and it would crash. That is why this runs as a
script in a process of its own, in a session of its own, with signals ignored: killing the program
that tracks, or its process group, does not interrupt it. What remains is a SIGKILL sent to this
very process, or to the whole cgroup, within those 0.3 ms.

That script is `__main__`. It imports only what the standard library has, and of snaplib only this folder. What differs
between architectures is in `machine`.
"""
