/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What all program sets share: how to read kernel memory, and the maps.
 *
 * Layouts. OFF_task_struct__tgid is the offset of task_struct.tgid in the running kernel, read from
 * its BTF when this is compiled; OPT_x is the same, or -1 where the kernel has no such member.
 *
 * bcc rewrites map access in the main file only, so the compiler puts this text into the source; nothing
 * but these stubs' own types may be included by way of a real #include.
 *
 * Maps. A map that several sets declare is made once, by its name, and shared among them.
 */
#ifndef SNAPLIB_COMMON_H
#define SNAPLIB_COMMON_H

#include <linux/types.h>

/* Read through any pointer; a bad one gives zero. */
#define READ(type, base, offset)                                                     \
	({                                                                               \
		type value_ = 0;                                                             \
		bpf_probe_read_kernel(&value_, sizeof(value_), (char *)(base) + (offset));   \
		value_;                                                                      \
	})

/* Read through a pointer whose type the verifier knows: iterators only. It checks the offset. */
#define AT(type, base, offset) (*(type *)((char *)(base) + (offset)))

#ifndef MAX_PROCESSES
#define MAX_PROCESSES 32768
#endif
#ifndef MAX_SOCKETS
#define MAX_SOCKETS 131072
#endif
#ifndef RING_PAGES
#define RING_PAGES 64
#endif

#define NO_PREALLOC 1 /* BPF_F_NO_PREALLOC: memory for what is in the map, not for what could be */

/* Counters of one process since it became a member, one copy for each CPU. */
struct counts {
	u64 user[4];   /* page faults in user mode, by bits of the error code: 1 present, 2 write */
	u64 kernel[4]; /* the same in the kernel, on user addresses: read(2) into fresh memory */
	u64 rss[4];    /* changes of file, anonymous, swap and shared memory pages */
	u64 forks;
	u64 execs;
	u64 threads_started;
	u64 threads_ended;
};

/*
 * The process ids (tgid) of the living members of the task, to the time in ns when each was born or, 1,
 * that user space has made it one.
 */
BPF_F_TABLE("hash", u32, u64, members, MAX_PROCESSES, NO_PREALLOC);

/*
 * Keys are members and, until user space has collected their last counts, members that ended.
 * Page faults look up only this map: one hash lookup is all that other processes pay.
 */
BPF_F_TABLE("percpu_hash", u32, struct counts, counts, MAX_PROCESSES, NO_PREALLOC);

/* Set by user space. */
BPF_ARRAY(settings, u64, 4);
#define SETTING_CGROUP 0    /* id of the version 2 cgroup whose processes are members too; 0: none */
#define SETTING_LEVEL 1     /* depth of the PID namespace of whoever observes */
#define SETTING_NAMESPACE 2 /* its inode */
#define SETTING_LEARN 3     /* whether the descriptor iterator is to note whose TCP sockets it lists */

static __always_inline u64 setting(u32 which)
{
	u64 *value = settings.lookup(&which);
	return value ? *value : 0;
}

/* What was lost, by kind. */
struct losses {
	u64 of[4];
};
BPF_PERCPU_ARRAY(losses, struct losses, 1);
#define LOST_EVENT 0
#define LOST_MEMBER 1
#define LOST_SOCKET 2

static __always_inline void lose(u32 kind)
{
	u32 only = 0;
	struct losses *lost = losses.lookup(&only);
	if (lost)
		lost->of[kind & 3]++;
}

#endif
