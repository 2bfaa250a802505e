// Answers CRIU's questions about soft-dirty pages on kernels that have no such bit, from userfaultfd
// write protection: preloaded into an unmodified criu process (LD_PRELOAD), see shim.py.
//
// A page is clean only if its mapping is registered for asynchronous write protection and the page
// has not been written since it was protected. Whatever else the kernel may say, it is dirty.
//
// - ioctl PAGEMAP_SCAN: PAGE_IS_SOFT_DIRTY is set from PAGE_IS_WRITTEN and PAGE_IS_WPALLOWED;
// - pagemap read the classic way, as the test does that decides whether CRIU tracks memory at all:
//   every page is dirty;
// - clear_refs: "4" is swallowed, for whoever tracks the task protects its pages again;
// - criu.kdat, CRIU's cache of what the kernel can do, is neither read nor written: it would tell
//   runs without this library that the kernel had soft-dirty bits, and every page would be clean.
//
// Linked with no library, so that it goes with whatever C library CRIU was built with. The ABI is
// that of linux/fs.h and of the kernel's Documentation/admin-guide/mm/pagemap.rst.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

// linux/fs.h; headers older than Linux 6.7 do not have them.
struct scan_request {
    uint64_t size, flags, start, end, walk_end, regions, region_room, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct region { uint64_t start, end, categories; };
#define SCAN _IOWR('f', 16, struct scan_request)
#define WPALLOWED (1u << 0)
#define WRITTEN (1u << 1)
#define PRESENT (1u << 3)
#define SWAPPED (1u << 4)
#define SOFT_DIRTY (1u << 7)

// An entry of pagemap: bit 55 is soft-dirty, 62 swapped; of a swapped page bits 0-54 hold the swap
// type (5 bits) and offset.
#define ENTRY_SOFT_DIRTY (1ull << 55)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PLACE ((1ull << 55) - 1)
#define ENTRY_TYPE 31
// Types from here on are no swap files (MAX_SWAPFILES of linux/swap.h is at least this).
#define SPECIAL_TYPES 23

static int ends_with(const char *text, long length, const char *end) {
    long end_length = 0;
    while (end[end_length]) end_length++;
    if (length < end_length) return 0;
    for (long i = 0; i < end_length; i++)
        if (text[length - end_length + i] != end[i]) return 0;
    return 1;
}

// Whether a descriptor is of a file of /proc with this name.
static int is_of(int fd, const char *name) {
    char path[32] = "/proc/self/fd/", link[256], digits[12];
    int at = 14, count = 0, saved = errno;
    if (fd < 0) return 0;
    do digits[count++] = '0' + fd % 10; while (fd /= 10);
    while (count) path[at++] = digits[--count];
    long length = syscall(SYS_readlinkat, AT_FDCWD, path, link, sizeof link);
    errno = saved;
    return length > 0 && ends_with(link, length, name);
}

// Whether all pages of a range are in a swap file. Others that look swapped may be markers: a page
// of a file that was written, protected and then dropped is one, and holds the file's content again.
static int all_in_swap(int fd, uint64_t start, uint64_t end) {
    uint64_t entries[256], page = getauxval(AT_PAGESZ);
    while (start < end) {
        uint64_t count = (end - start) / page;
        if (count > sizeof entries / sizeof *entries) count = sizeof entries / sizeof *entries;
        long got = syscall(SYS_pread64, fd, entries, count * 8, start / page * 8);
        if (got != (long)count * 8) return 0;
        for (uint64_t i = 0; i < count; i++) {
            // All of the place is 0 where we may not see it; no swap file keeps a page there.
            if (!(entries[i] & ENTRY_SWAPPED) || !(entries[i] & ENTRY_PLACE)) return 0;
            if ((entries[i] & ENTRY_TYPE) >= SPECIAL_TYPES) return 0;
        }
        start += count * page;
    }
    return 1;
}

static int is_clean(int fd, const struct region *region) {
    if (!(region->categories & WPALLOWED) || region->categories & WRITTEN) return 0;
    if (region->categories & PRESENT) return 1;
    return all_in_swap(fd, region->start, region->end);
}

static int scan(int fd, struct scan_request *request) {
    uint64_t wanted = request->return_mask;
    struct region *regions = (struct region *)(uintptr_t)request->regions;
    if ((request->category_mask | request->category_anyof_mask) & SOFT_DIRTY) {
        // To choose pages by it is more than can be answered here.
        errno = EINVAL;
        return -1;
    }
    request->return_mask = wanted | WPALLOWED | WRITTEN | PRESENT | SWAPPED;
    long count = syscall(SYS_ioctl, fd, SCAN, request);
    request->return_mask = wanted;
    long kept = 0, saved = errno;
    for (long i = 0; i < count && regions; i++) {
        struct region region = regions[i];
        uint64_t dirty = is_clean(fd, &region) ? 0 : SOFT_DIRTY;
        region.categories = ((region.categories & ~(uint64_t)SOFT_DIRTY) | dirty) & wanted;
        struct region *last = kept ? &regions[kept - 1] : 0;
        if (last && last->end == region.start && last->categories == region.categories)
            last->end = region.end;
        else
            regions[kept++] = region;
    }
    errno = saved;
    return count < 0 || !regions ? count : kept;
}

EXPORTED int ioctl(int fd, unsigned long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct scan_request *request = argument;
    const uint64_t soft_dirty = SOFT_DIRTY;
    if (number == SCAN && request &&
        (request->return_mask | request->category_mask | request->category_anyof_mask) & soft_dirty)
        return scan(fd, request);
    return syscall(SYS_ioctl, fd, number, argument);
}

static long all_dirty(int fd, uint64_t *entries, long got) {
    if (got >= 8 && is_of(fd, "/pagemap"))
        for (long i = 0; i < got / 8; i++) entries[i] |= ENTRY_SOFT_DIRTY;
    return got;
}

EXPORTED ssize_t read(int fd, void *buffer, size_t size) {
    return all_dirty(fd, buffer, syscall(SYS_read, fd, buffer, size));
}

EXPORTED ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset) {
    return all_dirty(fd, buffer, syscall(SYS_pread64, fd, buffer, size, offset));
}

EXPORTED ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    return pread64(fd, buffer, size, offset);
}

EXPORTED ssize_t write(int fd, const void *buffer, size_t size) {
    if (size && size <= 2 && *(const char *)buffer == '4' && is_of(fd, "/clear_refs")) return size;
    return syscall(SYS_write, fd, buffer, size);
}

static int open_unless_cache(int folder, const char *path, int flags, mode_t mode) {
    long length = 0;
    while (path[length]) length++;
    if (ends_with(path, length, "/criu.kdat")) {
        errno = ENOENT;
        return -1;
    }
    if (ends_with(path, length, "/criu.kdat.tmp")) { // as if another criu were just writing it
        errno = EEXIST;
        return -1;
    }
    return syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN(folder)                                                        \
    mode_t mode = 0;                                                        \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {              \
        va_list arguments;                                                  \
        va_start(arguments, flags);                                         \
        mode = va_arg(arguments, mode_t);                                   \
        va_end(arguments);                                                  \
    }                                                                       \
    return open_unless_cache(folder, path, flags, mode)

EXPORTED int open(const char *path, int flags, ...) { OPEN(AT_FDCWD); }
EXPORTED int open64(const char *path, int flags, ...) { OPEN(AT_FDCWD); }
EXPORTED int openat(int folder, const char *path, int flags, ...) { OPEN(folder); }
EXPORTED int openat64(int folder, const char *path, int flags, ...) { OPEN(folder); }

// What CRIU starts (ip, nft, scripts) is not to be touched.
__attribute__((constructor)) static void leave_children_alone(void) { unsetenv("LD_PRELOAD"); }
