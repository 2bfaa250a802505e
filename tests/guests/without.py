"""What the code does because kernels differ, and what shows that it is needed: without it a test in a guest fails.

``python -m tests.guests without`` changes one place at a time, in a guest of the kernel that needs it, and runs the
test that has to fail then.  A test that passes all the same shows nothing of that difference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from tests.guests.image import KERNELS, ROOT, Image
from tests.guests.machine import End, Job
from tests.guests.plan import INSIDE, TRACK
from tests.guests.results import RESULTS
from tests.guests.running import prefixed, run_job

__all__ = ["ALL", "FOUND", "Without", "changed", "run_without"]

_DIFFERENCES = f"{INSIDE}/test_differences.py"
_CHAIN = f"{INSIDE}/test_chains.py::test_a_chain_of_a_tree"
_CROSSED = f"{INSIDE}/test_other_kernels.py"

#: What the guest has found is there: name -> outcome of the test.
FOUND = "without.json"
_TIMEOUT_S = 1500.0


@attrs.frozen
class Without:
    """One place of the code, and how it is without what it does for a kernel.

    Attributes:
        name: What is left out.
        kernel: That cannot do without, one of `image.KERNELS`.
        file: Where it is.
        old: The text there, which is there once.
        new: What stands there instead.
        test: What fails then.
    """

    name: str
    kernel: str
    file: str
    old: str
    new: str
    test: str


ALL = (
    Without(
        "write protection is chosen where there is PAGEMAP_SCAN",
        "6.12",
        "snaplib/track/choose.py",
        "return WriteProtect(task, sample=sample)",
        'raise CannotTrack("left out")',
        f"{_DIFFERENCES}::test_dirty_pages_are_found_by_the_best_there_is",
    ),
    Without(
        "soft-dirty bits are used where there is nothing better",
        "6.1",
        "snaplib/track/choose.py",
        "return SoftDirty(task, reasons=reasons)",
        'raise CannotTrack("left out")',
        f"{_DIFFERENCES}::test_dirty_pages_are_found_by_the_best_there_is",
    ),
    Without(
        "pages are told apart without PAGEMAP_SCAN",
        "6.1",
        "snaplib/kernel/pagemap.py",
        "if flags or (having | lacking | any_of) & ~_CLASSIC or most_pages:",
        "if True:",
        f"{_DIFFERENCES}::test_pages_are_told_apart_without_the_ioctl_too",
    ),
    Without(
        "CRIU asks the kernel itself for soft-dirty bits",
        "6.1",
        "snaplib/checkpoint/tracked.py",
        "if warm.basis is Basis.WRITE_PROTECT:",
        "if True:",
        f"{_CHAIN}[soft-dirty]",
    ),
    Without(
        "hugetlb pages count as dirty under soft-dirty bits",
        "6.1",
        "snaplib/track/softdirty.py",
        "if _shared(area) or self._of_hugetlb(pid, area):",
        "if _shared(area):",
        f"{INSIDE}/test_softdirty.py::test_hugetlb_pages_are_never_clean",
    ),
    Without(
        "memory that nobody may read is known to be that",
        "newest",
        "snaplib/kernel/hidden.py",
        "    except OSError:\n        return False",
        "    except OSError:\n        return True",
        f"{_DIFFERENCES}::test_memory_made_inaccessible_is_read_or_known_to_be_hidden",
    ),
    Without(
        "CRIU is made to send memory that nobody may read",
        "newest",
        "snaplib/warm/taskpages.py",
        "if reads_hidden_memory() or not isinstance(tracker, WriteProtect):",
        "if True:",
        f"{_CHAIN}[write-protect]",
    ),
    Without(
        "memory that nobody may read makes a dump by soft-dirty bits a full one",
        "newest",
        "snaplib/warm/finalcopy.py",
        "            if lost.pages:",
        "            if False:",
        f"{_CHAIN}[soft-dirty]",
    ),
    Without(
        "what cannot be write-protected counts as dirty",
        "newest",
        "snaplib/track/registrar.py",
        "_REFUSALS = frozenset({errno.EINVAL, errno.EPERM, errno.EBUSY})",
        "_REFUSALS = frozenset({errno.EPERM, errno.EBUSY})",
        f"{TRACK}::test_what_the_kernel_does_not_track_is_never_clean",
    ),
    Without(
        "a refusal of restartable sequences is explained",
        "6.1",
        "snaplib/criu/remedies.py",
        r'r"failed sys_rseq\(.*\) = -22"',
        'r"left out"',
        f"{_CROSSED}::test_a_task_of_many_features_is_taken_over_from[newest]",
    ),
    Without(
        "droppable memory is restored where there is none",
        "6.1",
        "snaplib/checkpoint/restorerun.py",
        "if not has_droppable_memory():",
        "if False:",
        f"{_CROSSED}::test_a_task_of_many_features_is_taken_over_from[6.12]",
    ),
    Without(
        "large buffers begin at a huge page",
        "6.1",
        "snaplib/store/bulk.py",
        "arena = arena[-_address(arena) % _HUGE_BYTES :]",
        "pass",
        f"{_DIFFERENCES}::test_large_buffers_begin_at_a_huge_page",
    ),
    Without(
        "the vdso counts whether or not it is resident",
        "6.1",
        "snaplib/observe/memory.py",
        'sums["kernel_bytes"] += mapping.size_bytes',
        'sums["kernel_bytes"] += rss',
        f"{_DIFFERENCES}::test_what_the_kernel_puts_into_every_process_is_counted_once_and_not_watched",
    ),
    Without(
        "the clock's further mapping is not watched",
        "newest",
        "snaplib/track/areas.py",
        '"[vvar_vclock]", ',
        "",
        f"{_DIFFERENCES}::test_what_the_kernel_puts_into_every_process_is_counted_once_and_not_watched",
    ),
    Without(
        "eBPF programs do without members that a kernel lacks",
        "6.1",
        "snaplib/kernel/bpf/compiler.py",
        'if kind == "OFF":',
        "if True:",
        "tests/kernel/observe/test_exact.py::test_descriptors_equal_proc_a_hundred_times[ebpf]",
    ),
    Without(
        "eBPF programs that were compiled elsewhere are not loaded",
        "6.12",
        "snaplib/kernel/bpf/cache.py",
        "wanted = {name: self.path(name) for name in names}",
        'wanted = {name: next(self.folder.glob(f"{name}-*")) for name in names}',
        f"{_CROSSED}::test_programs_compiled_elsewhere_are_not_loaded",
    ),
)


def changed(one: Without, root: Path = ROOT) -> str:
    """Return the content of the file without what is left out.

    Args:
        one: What that is.
        root: The checkout.

    Raises:
        ValueError: The text is not there, or more than once.
    """
    content = (root / one.file).read_text()
    if content.count(one.old) != 1:
        raise ValueError(f"{one.file} has {one.old!r} {content.count(one.old)} times")
    return content.replace(one.old, one.new)


def run_without(image: Image, kernels: Sequence[str], *, accelerator: str) -> int:
    """Leave out one thing at a time in guests, and print what that shows; 0 if each test failed.

    Args:
        image: What guests are made of.
        kernels: On which.
        accelerator: ``tcg`` or ``kvm``.
    """
    wanted = [kernel for kernel in kernels if any(one.kernel == kernel for one in ALL)]

    def run(kernel: str) -> dict[str, str]:
        folders = {one: RESULTS / one / "snapshots" for one in KERNELS if one != kernel}
        job = Job(
            ["python", "-m", "tests.guests.inside.leaveout", kernel],
            folders={name: folder for name, folder in folders.items() if folder.exists()},
            timeout_s=_TIMEOUT_S,
        )
        out = RESULTS / kernel
        (out / FOUND).unlink(missing_ok=True)
        show = prefixed(kernel)
        outcome = run_job(image, kernel, job, out=out, accelerator=accelerator, show=show)
        told = outcome.end is End.DONE and (out / FOUND).exists()
        return json.loads((out / FOUND).read_text()) if told else {}

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(wanted, pool.map(run, wanted), strict=True))
    needed = True
    print("| left out | on | the test |\n|---|---|---|")
    for one in ALL:
        if one.kernel in wanted:
            outcome = found[one.kernel].get(one.name, "not run")
            needed = needed and outcome == "failed"
            print(f"| {one.name} | {one.kernel} | {outcome} |")
    sys.stdout.flush()
    return 0 if needed else 1
