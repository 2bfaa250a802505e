// A program that does to its memory what it is told: one command a line on stdin, one reply a line
// on stdout, "ok NUMBER" or "error TEXT".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define HUGE_PAGE (2L << 20)

static unsigned char stamp = 1;
static volatile unsigned char sink;
static char global_pages[64 * PAGE] __attribute__((aligned(PAGE))) = {1};

static int last_memfd = -1;

static char *map_file(int flags, int fd, long pages, void *where) {
    if (flags & MAP_PRIVATE) { // so that it has something to copy
        char page[PAGE];
        memset(page, 5, PAGE);
        for (long i = 0; i < pages; i++)
            if (pwrite(fd, page, PAGE, i * PAGE) != PAGE) return MAP_FAILED;
    } else if (ftruncate(fd, pages * PAGE)) {
        return MAP_FAILED;
    }
    char *memory = mmap(where, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    close(fd);
    return memory;
}

static char *map(const char *kind, long pages, char *where) {
    int fixed = where ? MAP_FIXED : 0;
    size_t size = pages * PAGE;
    if (!strcmp(kind, "anon"))
        return mmap(where, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
    if (!strcmp(kind, "reserved"))
        return mmap(where, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (!strcmp(kind, "shared"))
        return mmap(where, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | fixed, -1, 0);
    if (!strcmp(kind, "memfd")) return map_file(MAP_SHARED | fixed, memfd_create("m", 0), pages, where);
    if (!strcmp(kind, "memfd-open")) {
        last_memfd = memfd_create("o", 0);
        return map_file(MAP_SHARED | fixed, dup(last_memfd), pages, where);
    }
    if (!strcmp(kind, "memfd-private"))
        return map_file(MAP_PRIVATE | fixed, memfd_create("p", 0), pages, where);
    if (!strcmp(kind, "file-shared"))
        return map_file(MAP_SHARED | fixed, open(".", O_TMPFILE | O_RDWR, 0600), pages, where);
    if (!strcmp(kind, "file-private"))
        return map_file(MAP_PRIVATE | fixed, open(".", O_TMPFILE | O_RDWR, 0600), pages, where);
    if (!strcmp(kind, "huge-pages")) { // transparent, populated
        char *raw = mmap(0, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *memory = (char *)(((long)raw + HUGE_PAGE - 1) & -HUGE_PAGE);
        madvise(memory, size, MADV_HUGEPAGE);
        memset(memory, 1, size);
        return memory;
    }
    if (!strcmp(kind, "aligned")) { // whole page tables of small pages
        char *raw = mmap(0, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *memory = (char *)(((long)raw + HUGE_PAGE - 1) & -HUGE_PAGE);
        madvise(memory, size, MADV_NOHUGEPAGE);
        return memory;
    }
    if (!strcmp(kind, "hugetlb"))
        return mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (!strcmp(kind, "heap")) {
        char *memory = sbrk(0);
        long padding = -(long)memory & (PAGE - 1);
        return sbrk(padding + size) == (void *)-1 ? MAP_FAILED : memory + padding;
    }
    if (!strcmp(kind, "globals")) return global_pages;
    if (!strcmp(kind, "droppable")) return mmap(0, size, PROT_READ | PROT_WRITE, 0x08 | MAP_ANONYMOUS, -1, 0);
    errno = EINVAL;
    return MAP_FAILED;
}

static void receive(char *to, long size) {
    static int pair[2];
    if (!pair[0]) socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char page[PAGE];
    memset(page, stamp, PAGE);
    for (long done = 0; done < size; done += PAGE) {
        if (send(pair[1], page, PAGE, 0) != PAGE) return;
        recv(pair[0], to + done, PAGE, MSG_WAITALL);
    }
}

static void write_remotely(char *to, long pages) {
    char bytes[64] = {stamp};
    for (long i = 0; i < pages; i++) {
        struct iovec from = {bytes, sizeof bytes}, target = {to + i * PAGE + 100, sizeof bytes};
        process_vm_writev(getpid(), &from, 1, &target, 1, 0);
    }
}

static int pause_for_ever(void *unused) {
    (void)unused;
    for (;;) pause();
}

struct range { char *start; long pages; };

static void *store(void *argument) {
    struct range *range = argument;
    for (long i = 0; i < range->pages; i++) range->start[i * PAGE + (i * 64) % PAGE] += stamp;
    return 0;
}

static long obey(const char *line, char **arguments) {
    char word[32] = "", kind[32] = "";
    unsigned long at = 0;
    long first = 0, pages = 0;
    sscanf(line, "%31s", word);
    stamp += 2;
    if (!strcmp(word, "map")) {
        sscanf(line, "%*s %31s %ld %lu", kind, &pages, &at);
        char *memory = map(kind, pages, (char *)at);
        return memory == MAP_FAILED ? -1 : (long)memory;
    }
    sscanf(line, "%*s %lu %ld %ld", &at, &first, &pages);
    char *start = (char *)at + first * PAGE;
    struct range range = {start, pages};
    if (!strcmp(word, "store")) return store(&range), 0;
    if (!strcmp(word, "memset")) return memset(start, stamp, pages * PAGE), 0;
    if (!strcmp(word, "read")) {
        int fd = open("/dev/urandom", O_RDONLY);
        long got = read(fd, start, pages * PAGE);
        return close(fd), got;
    }
    if (!strcmp(word, "recv")) return receive(start, pages * PAGE), 0;
    if (!strcmp(word, "remote")) return write_remotely(start, pages), 0;
    if (!strcmp(word, "load")) {
        for (long i = 0; i < pages; i++) sink += start[i * PAGE];
        return 0;
    }
    if (!strcmp(word, "pwrite")) return pwrite(last_memfd, &stamp, 1, first * PAGE);
    if (!strcmp(word, "close")) return close(last_memfd);
    if (!strcmp(word, "peek")) return (unsigned char)*start;
    if (!strcmp(word, "thread")) {
        pthread_t thread;
        pthread_create(&thread, 0, store, &range);
        return pthread_join(thread, 0);
    }
    if (!strcmp(word, "dontneed")) return madvise(start, pages * PAGE, MADV_DONTNEED);
    if (!strcmp(word, "unmap")) return munmap(start, pages * PAGE);
    if (!strcmp(word, "protect")) return mprotect(start, pages * PAGE, PROT_READ);
    if (!strcmp(word, "unprotect")) return mprotect(start, pages * PAGE, PROT_READ | PROT_WRITE);
    if (!strcmp(word, "move")) { // ADDRESS NEW_ADDRESS PAGES; a new address of 0: anywhere
        char *to = (char *)first;
        if (!to) to = mmap(0, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return (long)mremap((void *)at, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    }
    if (!strcmp(word, "fork")) { // the child stores, and waits to be killed
        pid_t pid = fork();
        if (!pid) {
            store(&range);
            for (;;) pause();
        }
        return pid;
    }
    if (!strcmp(word, "borrow")) { // a child with our memory, for ever: as between vfork and exec
        static char stack[4 * PAGE];
        return clone(pause_for_ever, stack + sizeof stack, CLONE_VM | SIGCHLD, 0);
    }
    if (!strcmp(word, "reap")) return kill((pid_t)at, 9) || waitpid((pid_t)at, 0, 0) < 0;
    if (!strcmp(word, "exec")) {
        puts("ok 0");
        execv("/proc/self/exe", arguments);
    }
    errno = ENOSYS;
    return -1;
}

int main(int count, char **arguments) {
    (void)count;
    char line[256];
    setvbuf(stdin, 0, _IONBF, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        long result = obey(line, arguments);
        if (result == -1) printf("error %s\n", strerror(errno));
        else printf("ok %ld\n", result);
    }
}
