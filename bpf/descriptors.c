/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Lists the open descriptors of the members: the truth, where system call events are only hints.
 *
 * Queues are those that ss(8) shows. A process whose main thread has ended is listed by its other
 * threads; the kernel passes over threads that share their leader's descriptors.
 */
#include <snaplib/common.h>
#include <snaplib/sockets.h>

struct seq_file;
struct task_struct;
struct file;
struct socket;
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	u32 unused;
	struct file *file;
};

#define MODE_TYPE 0170000
#define MODE_SOCKET 0140000
#define OPEN_CLOEXEC 02000000
#define FAMILY_UNIX 1
#define FAMILY_INET 2
#define FAMILY_INET6 10
#define TYPE_DATAGRAM 2
#define TYPE_SEQPACKET 5
#define PROTOCOL_UDP 17
#define UNKNOWN 0xffffffff

/*
 * Read by snaplib/kernel/bpf/records.py: change both. Both are of one size, so that what is written is an
 * array; a descriptor that is no socket takes half of what a socket takes.
 */
struct descriptor {
	u32 tgid; /* never 0 */
	u32 fd;
	u32 flags;
	u32 mode;
	u64 file;
	u64 inode;
	s64 position;
	u32 device;
	u32 unused[3];
};

/* Follows the descriptor of a socket. */
struct details {
	u32 none; /* 0, where a descriptor has its process */
	u32 receive_queue;
	u32 send_queue;
	u16 family;
	u16 protocol;
	u8 type;
	u8 state;
	u16 local_port;
	u16 peer_port; /* network byte order */
	u16 unused;
	u8 local[16]; /* of a unix socket: the inode of its peer */
	u8 peer[16];
};

struct record {
	struct descriptor descriptor;
	struct details details;
};

static __always_inline u64 socket_inode(void *sk)
{
	void *socket = READ(void *, sk, OFF_sock__sk_socket);
	if (!socket)
		return 0;
	return READ(u64, socket, OFF_socket_alloc__vfs_inode + OFF_inode__i_ino);
}

/* Below, pointers are of a type that the verifier knows, and loads through them cost next to nothing. */

/* That takes a fifth of the time of all, so user space asks for it only when there are new ones. */
static __always_inline void learn(struct details *details, void *sk)
{
	u64 key = (u64)sk;
	u8 ours = 1;
	if (details->state == TCP_STATE_CLOSE)
		return;
	if (details->state == TCP_STATE_LISTEN) {
		struct listener listener = listener_of(sk);
		u8 *heard = listeners.lookup(&listener);
		if (!heard) {
			if (listeners.update(&listener, &ours))
				lose(LOST_SOCKET);
		}
	}
	u8 *known = sockets.lookup(&key);
	if (!known) {
		if (sockets.update(&key, &ours))
			lose(LOST_SOCKET);
	}
}

static __always_inline void describe_tcp(struct details *details, void *sk)
{
	if (details->state == TCP_STATE_LISTEN) {
		details->receive_queue = AT(u32, sk, OFF_sock__sk_ack_backlog);
		details->send_queue = AT(u32, sk, OFF_sock__sk_max_ack_backlog);
	} else {
		void *tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp) {
			s32 unread = AT(u32, tcp, OFF_tcp_sock__rcv_nxt) - AT(u32, tcp, OFF_tcp_sock__copied_seq);
			details->receive_queue = unread > 0 ? unread : 0;
			details->send_queue =
				AT(u32, tcp, OFF_tcp_sock__write_seq) - AT(u32, tcp, OFF_tcp_sock__snd_una);
		}
	}
	if (setting(SETTING_LEARN))
		learn(details, sk);
}

/* The packets of a queue, a ring through its head; no more than so many are followed. */
#define MAX_PACKETS 32
static __always_inline u32 sum_of_packets(void *packet, void *head)
{
	u32 sum = 0;
#pragma unroll
	for (int i = 0; i < MAX_PACKETS; i++) {
		if (packet == head)
			return sum;
		sum += READ(u32, packet, OFF_sk_buff__len);
		packet = READ(void *, packet, OFF_sk_buff__next);
	}
	return UNKNOWN;
}

static __always_inline void describe_unix(struct details *details, void *sk)
{
	void *other = READ(void *, sk, OFF_unix_sock__peer);
	u32 packets = AT(u32, sk, OFF_sock__sk_receive_queue__qlen);
	if (other)
		*(u64 *)details->local = socket_inode(other);
	if (details->state == TCP_STATE_LISTEN) {
		details->receive_queue = packets;
		details->send_queue = AT(u32, sk, OFF_sock__sk_max_ack_backlog);
		return;
	}
	/* Its memory counter starts at one. */
	details->send_queue = AT(u32, sk, OFF_sock__sk_wmem_alloc) - 1;
	if (packets == 0)
		return;
	void *first = READ(void *, sk, OFF_sock__sk_receive_queue__next);
	if (details->type == TYPE_DATAGRAM) {
		/* As FIONREAD has it. */
		details->receive_queue = READ(u32, first, OFF_sk_buff__len);
		return;
	}
	if (details->type == TYPE_SEQPACKET) {
		details->receive_queue = sum_of_packets(first, (char *)sk + OFF_sock__sk_receive_queue);
		return;
	}
#if OPT_unix_sock__inq_len >= 0
	details->receive_queue = READ(u32, sk, OPT_unix_sock__inq_len);
#else
	details->receive_queue = UNKNOWN;
#endif
}

static __always_inline void describe_socket(struct details *details, void *sk)
{
	details->family = AT(u16, sk, OFF_sock_common__skc_family);
	details->state = AT(u8, sk, OFF_sock_common__skc_state);
	details->protocol = AT(u16, sk, OFF_sock__sk_protocol);
	details->type = AT(u16, sk, OFF_sock__sk_type);
	if (details->family == FAMILY_UNIX) {
		describe_unix(details, sk);
		return;
	}
	if (details->family != FAMILY_INET) {
		if (details->family != FAMILY_INET6) {
			details->receive_queue = UNKNOWN;
			details->send_queue = UNKNOWN;
			return;
		}
	}
	details->local_port = AT(u16, sk, OFF_sock_common__skc_num);
	details->peer_port = AT(u16, sk, OFF_sock_common__skc_dport);
	if (details->family == FAMILY_INET) {
		*(u32 *)details->local = AT(u32, sk, OFF_sock_common__skc_rcv_saddr);
		*(u32 *)details->peer = AT(u32, sk, OFF_sock_common__skc_daddr);
	} else {
#if OPT_sock_common__skc_v6_rcv_saddr >= 0
		bpf_probe_read_kernel(details->local, 16, (char *)sk + OPT_sock_common__skc_v6_rcv_saddr);
		bpf_probe_read_kernel(details->peer, 16, (char *)sk + OPT_sock_common__skc_v6_daddr);
#endif
	}
	if (details->protocol == PROTOCOL_TCP) {
		describe_tcp(details, sk);
		return;
	}
	details->send_queue = AT(u32, sk, OFF_sock__sk_wmem_alloc) - 1;
	details->receive_queue = AT(u32, sk, OFF_sock__sk_backlog__rmem_alloc);
	if (details->protocol == PROTOCOL_UDP)
		details->receive_queue -= READ(u32, sk, OFF_udp_sock__forward_deficit);
}

static __always_inline bool closes_on_exec(void *task, u32 fd)
{
	void *files = AT(void *, task, OFF_task_struct__files);
	if (!files)
		return false;
	void *table = AT(void *, files, OFF_files_struct__fdt);
	u64 *bits = AT(u64 *, table, OFF_fdtable__close_on_exec);
	return READ(u64, bits, 8 * (fd / 64)) >> (fd & 63) & 1;
}

static __always_inline int list(struct bpf_iter__task_file *ctx, bool members_only)
{
	void *task = ctx->task;
	void *file = ctx->file;
	if (!task)
		return 0;
	if (!file)
		return 0;
	struct record record;
	__builtin_memset(&record.descriptor, 0, sizeof(record.descriptor));
	struct descriptor *it = &record.descriptor;
	it->tgid = AT(u32, task, OFF_task_struct__tgid);
	if (members_only) {
		if (!members.lookup(&it->tgid))
			return 0;
	}
	it->fd = ctx->fd;
	it->flags = AT(u32, file, OFF_file__f_flags) & ~OPEN_CLOEXEC;
	if (closes_on_exec(task, it->fd))
		it->flags |= OPEN_CLOEXEC;
	it->file = (u64)file;
	it->position = AT(s64, file, OFF_file__f_pos);
	void *inode = AT(void *, file, OFF_file__f_inode);
	it->mode = AT(u16, inode, OFF_inode__i_mode);
	it->inode = AT(u64, inode, OFF_inode__i_ino);
	void *super = AT(void *, inode, OFF_inode__i_sb);
	it->device = AT(u32, super, OFF_super_block__s_dev);
	if ((it->mode & MODE_TYPE) != MODE_SOCKET) {
		bpf_seq_write(ctx->meta->seq, &record, sizeof(record.descriptor));
		return 0;
	}
	__builtin_memset(&record.details, 0, sizeof(record.details));
	void *socket = bpf_sock_from_file((struct file *)file);
	if (socket) {
		void *sk = AT(void *, socket, OFF_socket__sk);
		if (sk)
			describe_socket(&record.details, sk);
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

/* Of all members. */
int bpf_iter__task_file(struct bpf_iter__task_file *ctx)
{
	return list(ctx, true);
}

/* Of the one process that the iterator was opened for, member or not. */
int bpf_iter__task_file_one(struct bpf_iter__task_file *ctx)
{
	return list(ctx, false);
}
