/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Counts page faults and changes of resident memory of the members.
 *
 * A fault with "present" and "write" both set (0x7 in user mode, 0x3 in the kernel) is a write to a
 * page that was write-protected: armed for tracking, or shared after fork. Writes by the kernel
 * through get_user_pages (O_DIRECT, process_vm_writev) fault nowhere and are not seen here.
 */
#include <snaplib/common.h>

#define PRESENT_OR_WRITE 3

/* exceptions:page_fault_user(address, regs, error_code) */
int page_fault_user(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct counts *mine = counts.lookup(&tgid);
	if (mine)
		mine->user[ctx->args[2] & PRESENT_OR_WRITE]++;
	return 0;
}

/* exceptions:page_fault_kernel(address, regs, error_code) */
int page_fault_kernel(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct counts *mine = counts.lookup(&tgid);
	if (mine) {
		/* The upper half of the address space is the kernel's own. */
		if ((s64)ctx->args[0] >= 0)
			mine->kernel[ctx->args[2] & PRESENT_OR_WRITE]++;
	}
	return 0;
}

/*
 * kmem:rss_stat(mm, member). Sees what faults do not: MAP_POPULATE, mlock, large folios. Only what a
 * member does to itself: the event fires in whatever process changes the memory.
 */
int rss_stat(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct counts *mine = counts.lookup(&tgid);
	if (mine)
		mine->rss[ctx->args[1] & 3]++;
	return 0;
}
