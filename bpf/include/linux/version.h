/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * A stub: see linux/types.h. bcc's headers choose helper names by version and nothing else; what a
 * kernel can do we find out by loading.
 */
#include <linux/types.h>
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 15, 0)
