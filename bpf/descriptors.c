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

/* Read by snaplib/kernel/bpf/records.py: change both. */
struct record {
	u32 tgid;
	u32 fd;
	u32 flags;
	u32 mode;
	u64 file;
	u64 inode;
	s64 position;
	u32 device;
	u32 magic;
	u64 socket;
	u16 family;
	u16 type;
	u16 protocol;
	u16 state;
	u32 receive_queue;
	u32 send_queue;
	u16 local_port;
	u16 peer_port; /* network byte order */
	u32 unused;
	u8 local[16];
	u8 peer[16];
	u64 peer_inode;
};

static __always_inline u64 socket_inode(void *sk)
{
	void *socket = READ(void *, sk, OFF_sock__sk_socket);
	if (!socket)
		return 0;
	return READ(u64, socket, OFF_socket_alloc__vfs_inode + OFF_inode__i_ino);
}

/* Below, pointers are of a type that the verifier knows, and loads through them cost next to nothing. */

static __always_inline void describe_tcp(struct record *record, void *sk)
{
	u64 key = (u64)sk;
	u8 ours = 1;
	if (record->state == TCP_STATE_LISTEN) {
		record->receive_queue = AT(u32, sk, OFF_sock__sk_ack_backlog);
		record->send_queue = AT(u32, sk, OFF_sock__sk_max_ack_backlog);
		struct listener listener = listener_of(sk);
		u8 *heard = listeners.lookup(&listener);
		if (!heard) {
			if (listeners.update(&listener, &ours))
				lose(LOST_SOCKET);
		}
	} else {
		void *tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp) {
			s32 unread = AT(u32, tcp, OFF_tcp_sock__rcv_nxt) - AT(u32, tcp, OFF_tcp_sock__copied_seq);
			record->receive_queue = unread > 0 ? unread : 0;
			record->send_queue =
				AT(u32, tcp, OFF_tcp_sock__write_seq) - AT(u32, tcp, OFF_tcp_sock__snd_una);
		}
	}
	if (record->state != TCP_STATE_CLOSE) {
		u8 *known = sockets.lookup(&key);
		if (!known) {
			if (sockets.update(&key, &ours))
				lose(LOST_SOCKET);
		}
	}
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

static __always_inline void describe_unix(struct record *record, void *sk)
{
	void *other = READ(void *, sk, OFF_unix_sock__peer);
	u32 packets = AT(u32, sk, OFF_sock__sk_receive_queue__qlen);
	if (other)
		record->peer_inode = socket_inode(other);
	if (record->state == TCP_STATE_LISTEN) {
		record->receive_queue = packets;
		record->send_queue = AT(u32, sk, OFF_sock__sk_max_ack_backlog);
		return;
	}
	/* Its memory counter starts at one. */
	record->send_queue = AT(u32, sk, OFF_sock__sk_wmem_alloc) - 1;
	if (packets == 0)
		return;
	void *first = READ(void *, sk, OFF_sock__sk_receive_queue__next);
	if (record->type == TYPE_DATAGRAM) {
		/* As FIONREAD has it. */
		record->receive_queue = READ(u32, first, OFF_sk_buff__len);
		return;
	}
	if (record->type == TYPE_SEQPACKET) {
		record->receive_queue = sum_of_packets(first, (char *)sk + OFF_sock__sk_receive_queue);
		return;
	}
#if OPT_unix_sock__inq_len >= 0
	record->receive_queue = READ(u32, sk, OPT_unix_sock__inq_len);
#else
	record->receive_queue = UNKNOWN;
#endif
}

static __always_inline void describe_socket(struct record *record, void *sk)
{
	record->socket = (u64)sk;
	record->family = AT(u16, sk, OFF_sock_common__skc_family);
	record->state = AT(u8, sk, OFF_sock_common__skc_state);
	record->protocol = AT(u16, sk, OFF_sock__sk_protocol);
	record->type = AT(u16, sk, OFF_sock__sk_type);
	if (record->family == FAMILY_UNIX) {
		describe_unix(record, sk);
		return;
	}
	if (record->family != FAMILY_INET) {
		if (record->family != FAMILY_INET6) {
			record->receive_queue = UNKNOWN;
			record->send_queue = UNKNOWN;
			return;
		}
	}
	record->local_port = AT(u16, sk, OFF_sock_common__skc_num);
	record->peer_port = AT(u16, sk, OFF_sock_common__skc_dport);
	if (record->family == FAMILY_INET) {
		*(u32 *)record->local = AT(u32, sk, OFF_sock_common__skc_rcv_saddr);
		*(u32 *)record->peer = AT(u32, sk, OFF_sock_common__skc_daddr);
	} else {
#if OPT_sock_common__skc_v6_rcv_saddr >= 0
		bpf_probe_read_kernel(record->local, 16, (char *)sk + OPT_sock_common__skc_v6_rcv_saddr);
		bpf_probe_read_kernel(record->peer, 16, (char *)sk + OPT_sock_common__skc_v6_daddr);
#endif
	}
	if (record->protocol == PROTOCOL_TCP) {
		describe_tcp(record, sk);
		return;
	}
	record->send_queue = AT(u32, sk, OFF_sock__sk_wmem_alloc) - 1;
	record->receive_queue = AT(u32, sk, OFF_sock__sk_backlog__rmem_alloc);
	if (record->protocol == PROTOCOL_UDP)
		record->receive_queue -= READ(u32, sk, OFF_udp_sock__forward_deficit);
}

static __always_inline bool closes_on_exec(void *task, u32 fd)
{
	void *files = AT(void *, task, OFF_task_struct__files);
	if (!files)
		return false;
	void *table = AT(void *, files, OFF_files_struct__fdt);
	u64 *bits = READ(u64 *, table, OFF_fdtable__close_on_exec);
	return READ(u64, bits, 8 * (fd / 64)) >> (fd & 63) & 1;
}

int bpf_iter__task_file(struct bpf_iter__task_file *ctx)
{
	void *task = ctx->task;
	void *file = ctx->file;
	if (!task)
		return 0;
	if (!file)
		return 0;
	struct record record = {};
	record.tgid = AT(u32, task, OFF_task_struct__tgid);
	if (!members.lookup(&record.tgid))
		return 0;
	record.fd = ctx->fd;
	record.flags = AT(u32, file, OFF_file__f_flags) & ~OPEN_CLOEXEC;
	if (closes_on_exec(task, record.fd))
		record.flags |= OPEN_CLOEXEC;
	record.file = (u64)file;
	record.position = AT(s64, file, OFF_file__f_pos);
	void *inode = AT(void *, file, OFF_file__f_inode);
	record.mode = AT(u16, inode, OFF_inode__i_mode);
	record.inode = AT(u64, inode, OFF_inode__i_ino);
	void *super = AT(void *, inode, OFF_inode__i_sb);
	record.device = AT(u32, super, OFF_super_block__s_dev);
	record.magic = AT(u64, super, OFF_super_block__s_magic);
	if ((record.mode & MODE_TYPE) == MODE_SOCKET) {
		void *socket = bpf_sock_from_file((struct file *)file);
		if (socket) {
			void *sk = AT(void *, socket, OFF_socket__sk);
			if (sk)
				describe_socket(&record, sk);
		}
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}
