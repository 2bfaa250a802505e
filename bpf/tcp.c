/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Counts state changes of the members' TCP sockets.
 *
 * Most changes happen while some other process, or none, is current. A socket is known to be ours
 * from what only its owner can do, connect(2) and listen(2); from having come out of a listening
 * socket of ours; or because the descriptor iterator has found it (descriptors.c).
 */
#include <snaplib/common.h>
#include <snaplib/sockets.h>

/* To each state, by its number in include/net/tcp_states.h. TIME_WAIT is told as CLOSE. */
struct changes {
	u64 to[16];
};
BPF_PERCPU_ARRAY(tcp_changes, struct changes, 1);

/* sock:inet_sock_set_state(sk, old state, new state) */
int inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 key = ctx->args[0];
	u32 before = ctx->args[1] & 15;
	u32 after = ctx->args[2] & 15;
	u8 ours = 1;
	if (READ(u16, sk, OFF_sock__sk_protocol) != PROTOCOL_TCP)
		return 0;

	u8 *known = sockets.lookup(&key);
	if (!known) {
		struct listener listener = listener_of(sk);
		if (before == TCP_STATE_CLOSE) {
			u32 tgid = bpf_get_current_pid_tgid() >> 32;
			if (!members.lookup(&tgid))
				return 0;
			if (after == TCP_STATE_LISTEN) {
				if (listeners.update(&listener, &ours))
					lose(LOST_SOCKET);
			}
		} else {
			if (!listeners.lookup(&listener))
				return 0;
			if (before != TCP_STATE_LISTEN) {
				if (before != TCP_STATE_SYN_RECV)
					return 0;
			}
		}
		if (after != TCP_STATE_CLOSE) {
			if (sockets.update(&key, &ours))
				lose(LOST_SOCKET);
		}
	}
	u32 only = 0;
	struct changes *changes = tcp_changes.lookup(&only);
	if (changes)
		changes->to[after]++;
	if (after == TCP_STATE_CLOSE) {
		sockets.delete(&key);
		if (before == TCP_STATE_LISTEN) {
			struct listener listener = listener_of(sk);
			listeners.delete(&listener);
		}
	}
	return 0;
}
