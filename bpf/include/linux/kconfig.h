/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A stub: see linux/types.h. */
#define CONFIG_BPF_SYSCALL 1
