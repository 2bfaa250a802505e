// Threads that write to memory of every kind in every way, without end. Arguments: threads, pages
// of each region, seed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
enum { ANONYMOUS, HUGE, SHARED, MEMFD, FILE_SHARED, FILE_PRIVATE, REGIONS };

static char *regions[REGIONS];
static long pages;
static volatile char sink;

static unsigned long next(unsigned long *state) { // xorshift64, Marsaglia 2003
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void *write_on(void *seed) {
    unsigned long state = (unsigned long)seed * 2654435761u + 88172645463325252UL;
    char buffer[PAGE];
    int pair[2], random = open("/dev/urandom", O_RDONLY);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    for (;;) {
        unsigned long number = next(&state);
        int region = number % REGIONS;
        char *page = regions[region] + (number >> 8) % pages * PAGE;
        memset(buffer, number >> 20, sizeof buffer);
        switch (number >> 40 & 15) {
        case 0: read(random, page, PAGE); break;
        case 1: send(pair[1], buffer, PAGE, 0), recv(pair[0], page, PAGE, MSG_WAITALL); break;
        case 2: {
            struct iovec from = {buffer, 64}, to = {page + 128, 64};
            process_vm_writev(getpid(), &from, 1, &to, 1, 0);
            break;
        }
        case 3:
            if (region <= HUGE) madvise(page, PAGE, MADV_DONTNEED);
            page[7] = number;
            break;
        case 4: memcpy(page, buffer, PAGE); break;
        case 5: __atomic_fetch_add((long *)page, 1, __ATOMIC_SEQ_CST); break;
        case 6: case 7: case 8: sink += *page; break;
        case 9:
            if (number >> 50 & 63) break;
            pid_t child = fork();
            if (!child) _exit(0);
            waitpid(child, 0, 0);
            break;
        case 10:
            if (number >> 50 & 7) break;
            pid_t borrower = vfork();
            if (!borrower) _exit(0);
            waitpid(borrower, 0, 0);
            break;
        default: page[number >> 52]++;
        }
        if (!(number >> 56 & 15)) usleep(100);
    }
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    pages = atol(arguments[2]);
    long size = pages * PAGE;
    for (int region = 0; region < REGIONS; region++) {
        int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;
        if (region == SHARED) flags = MAP_SHARED | MAP_ANONYMOUS;
        if (region == MEMFD) fd = memfd_create("m", 0), flags = MAP_SHARED;
        if (region >= FILE_SHARED) {
            fd = open(".", O_TMPFILE | O_RDWR, 0600);
            flags = region == FILE_SHARED ? MAP_SHARED : MAP_PRIVATE;
        }
        if (fd >= 0) ftruncate(fd, size);
        char *memory = mmap(0, size + (2 << 20), PROT_READ | PROT_WRITE, flags, fd, 0);
        if (region == HUGE) {
            memory = (char *)(((long)memory + (2 << 20) - 1) & -(2L << 20));
            madvise(memory, size, MADV_HUGEPAGE);
        }
        for (long page = 0; page < pages / 2; page++) memory[page * PAGE] = 1;
        regions[region] = memory;
    }
    for (long i = 1; i <= atol(arguments[1]); i++) {
        pthread_t thread;
        pthread_create(&thread, 0, write_on, (void *)(atol(arguments[3]) * 100 + i));
    }
    puts("writing");
    fflush(stdout);
    pause();
}
