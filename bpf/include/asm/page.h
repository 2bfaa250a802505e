/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A stub: see linux/types.h. bcc's ring buffer macro counts in pages; the loader passes their size. */
#include <linux/types.h>
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif
