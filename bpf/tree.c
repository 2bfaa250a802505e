/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Follows the task's processes: a child is a member before it has run its first instruction.
 */
#include <snaplib/common.h>

#define EVENT_FORK 1
#define EVENT_EXEC 2
#define EVENT_EXIT 3
#define NO_WAKEUP 1 /* BPF_RB_NO_WAKEUP: user space looks once a second by itself */

struct event {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u32 kind;
	u32 tgid;
	u32 other; /* fork: the child; exec: the thread that called it */
	u32 unused;
};
BPF_RINGBUF_OUTPUT(events, RING_PAGES);

static __always_inline void tell(u32 kind, u32 tgid, u32 other)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));
	if (!event) {
		lose(LOST_EVENT);
		return;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->tgid = tgid;
	event->other = other;
	event->unused = 0;
	events.ringbuf_submit(event, NO_WAKEUP);
}

static __always_inline void join(u32 tgid)
{
	struct counts zero = {};
	u64 now = bpf_ktime_get_ns();
	if (members.update(&tgid, &now)) {
		lose(LOST_MEMBER);
		return;
	}
	if (counts.update(&tgid, &zero))
		lose(LOST_MEMBER);
}

/* Whether the current process is in the task's own cgroup. */
static __always_inline bool in_cgroup(void)
{
	u32 which = SETTING_CGROUP;
	u64 *cgroup = settings.lookup(&which);
	if (!cgroup)
		return false;
	if (!*cgroup)
		return false;
	return bpf_get_current_cgroup_id() == *cgroup;
}

/* sched:sched_process_fork(parent, child): in the parent, before the child runs. */
int sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	void *child = (void *)ctx->args[1];
	u32 child_pid = READ(u32, child, OFF_task_struct__pid);
	u32 child_tgid = READ(u32, child, OFF_task_struct__tgid);
	if (child_pid != child_tgid) {
		struct counts *mine = counts.lookup(&tgid);
		if (mine)
			mine->threads_started++;
		return 0;
	}
	u64 *member = members.lookup(&tgid);
	if (!member) {
		if (!in_cgroup()) {
			/* A stranger may get the id of a member that ended and is not yet collected. */
			counts.delete(&child_tgid);
			return 0;
		}
	}
	join(child_tgid);
	struct counts *mine = counts.lookup(&tgid);
	if (mine)
		mine->forks++;
	tell(EVENT_FORK, tgid, child_tgid);
	return 0;
}

/* sched:sched_process_exec(task, old_pid, binprm) */
int sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *member = members.lookup(&tgid);
	if (!member) {
		if (!in_cgroup())
			return 0;
		join(tgid);
	}
	struct counts *mine = counts.lookup(&tgid);
	if (mine)
		mine->execs++;
	tell(EVENT_EXEC, tgid, (u32)ctx->args[1]);
	return 0;
}

/* sched:sched_process_exit(task, ...): once for each thread. */
int sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 both = bpf_get_current_pid_tgid();
	u32 tgid = both >> 32;
	u64 *member = members.lookup(&tgid);
	if (!member)
		return 0;
	if ((u32)both != tgid) {
		struct counts *mine = counts.lookup(&tgid);
		if (mine)
			mine->threads_ended++;
	}
	void *signal = READ(void *, (void *)ctx->args[0], OFF_task_struct__signal);
	if (READ(s32, signal, OFF_signal_struct__live) != 0)
		return 0; /* other threads live on, though this may be the main one */
	/* Two last threads may both see none alive: the one that takes the key out tells it. */
	if (members.delete(&tgid) == 0)
		tell(EVENT_EXIT, tgid, 0);
	return 0;
}
