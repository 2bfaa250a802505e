// Maps, moves, splits, replaces, drops and writes memory at random, without end. Arguments: a seed,
// and how many children may live at a time, 0 by default; they do the same for a while, some of them
// as another program. Shared memory is written through its mappings only. A call that must not fail
// ends it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define PLACES 48
enum { ANONYMOUS, SHARED, MEMFD, FILE_PRIVATE, HUGE, KINDS };

static struct { char *start; long pages; int kind; } places[PLACES];
static unsigned long state = 88172645463325252UL;
static volatile char sink;
static int file;
static int children, most_children;
static long steps_left = -1;

static unsigned long next(void) { // xorshift64, Marsaglia 2003
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void *must(void *result, const char *what) {
    if (result == MAP_FAILED) perror(what), exit(1);
    return result;
}

static char *map(int kind, long pages, char *where) {
    int fd = kind == FILE_PRIVATE ? file : -1, flags = where ? MAP_FIXED : 0;
    if (kind == MEMFD) fd = memfd_create("c", 0), ftruncate(fd, pages * PAGE);
    flags |= kind == SHARED || kind == MEMFD ? MAP_SHARED : MAP_PRIVATE;
    if (fd < 0) flags |= MAP_ANONYMOUS;
    char *start = must(mmap(where, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0), "mmap");
    if (kind == MEMFD) close(fd);
    if (kind == HUGE) madvise(start, pages * PAGE, MADV_HUGEPAGE);
    return start;
}

static void *use_stack(void *unused) {
    char bytes[20000];
    memset(bytes, next(), sizeof bytes);
    sink += bytes[99];
    return unused;
}

// A child that goes on where it is, or begins anew as another program.
static void beget(char *self) {
    while (waitpid(-1, 0, WNOHANG) > 0) children--;
    if (children >= most_children) return;
    pid_t child = fork();
    if (child) {
        if (child < 0) perror("fork"), exit(1);
        children++;
        return;
    }
    children = most_children = 0;
    steps_left = 500 + next() % 20000;
    state ^= (unsigned long)getpid() << 20;
    if (next() & 3) return;
    char seed[24];
    sprintf(seed, "%lu", next() >> 1);
    execl("/proc/self/exe", self, seed, "0", "5000", (char *)0);
    perror("exec"), exit(1);
}

static void churn(int place) {
    char *start = places[place].start;
    long pages = places[place].pages, first = next() % pages, count = 1 + next() % (pages - first);
    int kind = places[place].kind;
    if (count > 40) count = 40;
    char *part = start + first * PAGE;
    switch (next() % 20) {
    case 0:
        munmap(start, pages * PAGE);
        places[place].start = 0;
        break;
    case 1: // replaced where it is
        kind = next() % KINDS;
        if (kind == FILE_PRIVATE && pages > 250) kind = ANONYMOUS;
        map(kind, pages, start);
        places[place].kind = kind;
        break;
    case 2:
        if (kind != ANONYMOUS && kind != HUGE) break;
        long more = pages + next() % 100;
        places[place].start = must(mremap(start, pages * PAGE, more * PAGE, MREMAP_MAYMOVE), "grow");
        places[place].pages = more;
        break;
    case 3: { // a mapping that was split cannot be moved in one call
        char *to = mmap(0, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        to = mremap(start, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        places[place].start = must(to, "move");
        break;
    }
    case 4:
        mprotect(part, count * PAGE, PROT_READ);
        mprotect(part, count * PAGE, PROT_READ | PROT_WRITE);
        break;
    case 5:
        if (kind != FILE_PRIVATE) madvise(part, count * PAGE, MADV_DONTNEED);
        break;
    case 6:
        madvise(part, count * PAGE, MADV_FREE);
        for (long i = 0; i < count; i++) part[i * PAGE + 9]++;
        break;
    case 7:
        if (next() & 15) break;
        pid_t child = fork();
        if (!child) _exit(kind != SHARED && kind != MEMFD ? (*part)++ & 0 : 0);
        waitpid(child, 0, 0);
        break;
    case 8: {
        pthread_t thread;
        pthread_create(&thread, 0, use_stack, 0);
        pthread_join(thread, 0);
        break;
    }
    case 9: {
        if (!(next() & 3)) sbrk(next() % 40 * PAGE);
        char *block = malloc(100 + next() % 60000);
        memset(block, next(), 100);
        if (next() & 1) free(block);
        break;
    }
    case 10: case 11:
        for (long i = 0; i < count; i++) sink += part[i * PAGE];
        break;
    case 12:
        if (!first || kind == MEMFD) break;
        munmap(part, (pages - first) * PAGE);
        places[place].pages = first;
        break;
    default:
        for (long i = 0; i < count; i++) part[i * PAGE + (next() & 4095)]++;
    }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    state ^= atol(arguments[1]) * 7919;
    if (count > 2) most_children = atoi(arguments[2]);
    if (count > 3) steps_left = atol(arguments[3]);
    char page[PAGE];
    file = open(".", O_TMPFILE | O_RDWR, 0600);
    for (int i = 0; i < 256; i++) memset(page, i + 1, PAGE), write(file, page, PAGE);
    if (count < 4) puts("churning"), fflush(stdout);
    while (steps_left) {
        if (steps_left > 0) steps_left--;
        if (most_children && !(next() & 255)) beget(arguments[0]);
        int place = next() % PLACES;
        if (places[place].start) {
            churn(place);
        } else {
            int kind = next() % KINDS;
            long pages = 1 + next() % (kind == FILE_PRIVATE || next() % 32 ? 200 : 1200);
            places[place].start = map(kind, pages, 0);
            places[place].pages = pages;
            places[place].kind = kind;
        }
        if (!(next() & 7)) usleep(300);
    }
}
