/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Lists the members, or all processes, by the ids that each has in its PID namespaces.
 *
 * Programs see ids of the machine's first PID namespace. Whoever reads this may live in another one
 * and know only that one's ids; the kernel shows an iterator the tasks of its opener's namespace.
 *
 * A child of a member that is no member is listed too: user space makes it one. It was born before its
 * parent was followed, or taken in by it as an orphan, or its birth has been missed.
 */
#include <snaplib/common.h>

struct seq_file;
struct task_struct;
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#define MAX_LEVELS 8

/* Read by snaplib/kernel/bpf/records.py: change both. */
struct record {
	u32 tgid;
	u32 parent;
	u64 start_boottime_ns;
	u32 threads;
	u32 live;            /* of these, not ending; 0: it has ended */
	u32 member;
	u32 level;           /* depth of its PID namespace; 0 is the machine's first */
	u32 ids[MAX_LEVELS]; /* its id in each namespace down to that depth */
	char comm[16];
};

static __always_inline int list(struct bpf_iter__task *ctx, bool members_only)
{
	void *task = ctx->task;
	if (!task)
		return 0;
	struct record record = {};
	record.tgid = AT(u32, task, OFF_task_struct__tgid);
	/* The main thread stands for the process; when it has ended it is still there, as a zombie. */
	if (AT(u32, task, OFF_task_struct__pid) != record.tgid)
		return 0;
	void *parent = AT(void *, task, OFF_task_struct__real_parent);
	record.parent = READ(u32, parent, OFF_task_struct__tgid);
	if (members_only) {
		record.member = members.lookup(&record.tgid) != NULL;
		if (!record.member) {
			if (!members.lookup(&record.parent))
				return 0;
		}
	}
	record.start_boottime_ns = AT(u64, task, OFF_task_struct__start_boottime);
	void *signal = AT(void *, task, OFF_task_struct__signal);
	record.threads = READ(u32, signal, OFF_signal_struct__nr_threads);
	record.live = READ(u32, signal, OFF_signal_struct__live);
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), (char *)task + OFF_task_struct__comm);
	void *pid = AT(void *, task, OFF_task_struct__thread_pid);
	if (pid) {
		record.level = READ(u32, pid, OFF_pid__level);
#pragma unroll
		for (int level = 0; level < MAX_LEVELS; level++) {
			if (level <= record.level)
				record.ids[level] = READ(u32, pid, OFF_pid__numbers + level * SIZE_upid);
		}
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

int bpf_iter__task(struct bpf_iter__task *ctx)
{
	return list(ctx, true);
}

int bpf_iter__task_any(struct bpf_iter__task *ctx)
{
	return list(ctx, false);
}
