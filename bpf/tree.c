/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Follows the task's processes: a child is a member before it has run its first instruction.
 */
#include <snaplib/common.h>

#define EVENT_FORK 1
#define EVENT_EXEC 2
#define EVENT_EXIT 3
#define NO_WAKEUP 1 /* BPF_RB_NO_WAKEUP: user space looks once a second by itself */

/* Ids are those of the PID namespace of whoever observes; 0 for who has none there. */
struct event {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u32 kind;
	u32 pid;
	u32 child; /* of a fork */
	u32 unused;
};
BPF_RINGBUF_OUTPUT(events, RING_PAGES);

/* How many members have ended. Not among a member's counts: who has ended is collected at any time. */
BPF_PERCPU_ARRAY(exits, u64, 1);

static __always_inline u32 observed_id(void *task)
{
	void *leader = READ(void *, task, OFF_task_struct__group_leader);
	void *pid = READ(void *, leader, OFF_task_struct__thread_pid);
	u32 level = setting(SETTING_LEVEL);
	if (!pid)
		return 0;
	if (READ(u32, pid, OFF_pid__level) < level)
		return 0;
	void *id = (char *)pid + OFF_pid__numbers + level * SIZE_upid;
	void *namespace = READ(void *, id, OFF_upid__ns);
	if (READ(u32, namespace, OFF_pid_namespace__ns__inum) != (u32)setting(SETTING_NAMESPACE))
		return 0;
	return READ(u32, id, OFF_upid__nr);
}

static __always_inline void tell(u32 kind, void *task, void *child)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));
	if (!event) {
		lose(LOST_EVENT);
		return;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->pid = observed_id(task);
	event->child = child ? observed_id(child) : 0;
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
	/* There may be counts of one that had this id before and is not yet collected: they stay. */
	if (counts.lookup(&tgid))
		return;
	if (counts.update(&tgid, &zero))
		lose(LOST_MEMBER);
}

/* Whether the current process is in the task's own cgroup. */
static __always_inline bool in_cgroup(void)
{
	u64 cgroup = setting(SETTING_CGROUP);
	if (!cgroup)
		return false;
	return bpf_get_current_cgroup_id() == cgroup;
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
	tell(EVENT_FORK, (void *)ctx->args[0], child);
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
	tell(EVENT_EXEC, (void *)ctx->args[0], NULL);
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
	if (members.delete(&tgid) == 0) {
		u32 only = 0;
		u64 *count = exits.lookup(&only);
		if (count)
			(*count)++;
		tell(EVENT_EXIT, (void *)ctx->args[0], NULL);
	}
	return 0;
}
