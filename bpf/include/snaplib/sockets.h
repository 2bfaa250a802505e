/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What tcp.c and descriptors.c both know of TCP sockets. */
#ifndef SNAPLIB_SOCKETS_H
#define SNAPLIB_SOCKETS_H

#include <snaplib/common.h>

#define PROTOCOL_TCP 6

/* include/net/tcp_states.h */
#define TCP_STATE_SYN_RECV 3
#define TCP_STATE_CLOSE 7
#define TCP_STATE_LISTEN 10

/*
 * Where the members listen. Of two tasks that listen on one port at different addresses, each counts
 * the connections of both.
 */
struct listener {
	u64 net;
	u16 port;
	u16 family;
	u32 unused;
};

/* The members' TCP sockets, by address; out again when they are closed. */
BPF_F_TABLE("hash", u64, u8, sockets, MAX_SOCKETS, NO_PREALLOC);
BPF_F_TABLE("hash", struct listener, u8, listeners, MAX_SOCKETS, NO_PREALLOC);

static __always_inline struct listener listener_of(void *sk)
{
	struct listener it = {};
	it.net = READ(u64, sk, OFF_sock_common__skc_net);
	it.port = READ(u16, sk, OFF_sock_common__skc_num);
	it.family = READ(u16, sk, OFF_sock_common__skc_family);
	return it;
}

#endif
