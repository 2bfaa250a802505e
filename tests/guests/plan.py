"""What is tried in which guest: what its kernel decides, and no more than half an hour of emulation bears.

Each kernel is met by a guest that leaves its snapshots, and then by one that takes those of the others; the tests of
how dirty pages are found are of what is used on that kernel.
"""

from __future__ import annotations

INSIDE = "tests/guests/inside"
TRACK = "tests/kernel/track/test_writeprotect.py"

#: What every guest runs when those of other kernels have left their snapshots.
CROSSED = f"{INSIDE}/test_other_kernels.py"

_EXACT = "tests/kernel/observe/test_exact.py"

#: What each kernel is asked first; what is compiled for one of these is compiled for all.
FIRST = (
    f"{INSIDE}/test_host.py",
    f"{_EXACT}::test_23_are_seen_as_23",
    f"{_EXACT}::test_descriptors_equal_proc_a_hundred_times[ebpf]",
    f"{_EXACT}::test_sockets_equal_ss[ebpf]",
    f"{INSIDE}/test_leave_snapshots.py",
    f"{INSIDE}/test_differences.py",
)

_STANDING_STILL = (
    "tests/kernel/test_freezer.py::test_nothing_moves_while_frozen_and_everything_afterwards"
)

_EVERYWHERE = (
    CROSSED,
    f"{INSIDE}/test_running.py",
    # Version 1 of cgroups is mounted in none.
    f"{_STANDING_STILL}[cgroup-v2]",
    f"{_STANDING_STILL}[stop]",
)

_WRITE_PROTECT = tuple(
    f"{TRACK}::{test}"
    for test in (
        *(
            f"test_exactly_what_was_written_is_dirty[{kind}]"
            for kind in ("anon", "memfd-private", "memfd", "huge-pages")
        ),
        "test_pages_first_touched_after_arming_are_dirty",
        "test_a_moved_mapping_is_dirty",
        "test_stale_protection_bits_hide_no_writes",
        "test_what_the_kernel_does_not_track_is_never_clean",
        "test_a_memfd_written_through_its_descriptor_is_never_clean",
        "test_huge_pages_come_back",
        "test_killing_the_tracker_does_no_harm[120]",
    )
)

_CHAINS = f"{INSIDE}/test_chains.py"

#: And then, by kernel.
THEN = {
    "6.1": (*_EVERYWHERE, _CHAINS, f"{INSIDE}/test_softdirty.py"),
    "6.12": (
        *_EVERYWHERE,
        f"{_CHAINS}::test_a_chain_of_a_tree[write-protect]",
        *_WRITE_PROTECT,
    ),
    "newest": (
        *_EVERYWHERE,
        # By soft-dirty bits: such dumps have a rule of their own where some memory cannot be read.
        f"{_CHAINS}::test_a_chain_of_a_tree[soft-dirty]",
        *_WRITE_PROTECT,
    ),
}


def files(kernel: str) -> set[str]:
    """Return the paths of the files out of which anything is tried on a kernel.

    Args:
        kernel: One of `image.KERNELS`.
    """
    return {test.partition("::")[0] for test in (*FIRST, *THEN[kernel])}
