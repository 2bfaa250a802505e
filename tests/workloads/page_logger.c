// Writes to random pages at a given rate and logs which, one bit a page. Arguments: log file,
// pages, writes a second, and the address of the pages if it matters (hexadecimal). A quarter of
// the writes go to an eighth of the pages. Before the first write it prints where the pages are.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define TICKS_PER_SECOND 500

static unsigned long state = 88172645463325252UL;

static unsigned long next(void) { // xorshift64, Marsaglia 2003
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

int main(int count, char **arguments) {
    if (count != 4 && count != 5) return 2;
    unsigned long pages = atol(arguments[2]), per_tick = atol(arguments[3]) / TICKS_PER_SECOND;
    int file = open(arguments[1], O_RDWR);
    unsigned char *log = mmap(0, (pages + 7) / 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    void *address = count == 5 ? (void *)strtoul(arguments[4], 0, 16) : 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (address ? MAP_FIXED_NOREPLACE : 0);
    char *memory = mmap(address, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (log == MAP_FAILED || memory == MAP_FAILED) return 1;
    madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
    for (unsigned long page = 0; page < pages; page++) memory[page * PAGE] = 1;
    printf("%lu\n", (unsigned long)memory);
    fflush(stdout);
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (;;) {
        for (unsigned long i = 0; i < per_tick; i++) {
            unsigned long number = next();
            unsigned long page = (number >> 8) % (number & 3 ? pages : pages / 8);
            log[page / 8] |= 1 << page % 8;
            memory[page * PAGE + (number >> 52)]++;
        }
        due.tv_nsec += 1000000000L / TICKS_PER_SECOND;
        if (due.tv_nsec >= 1000000000L) due.tv_nsec -= 1000000000L, due.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, 0);
    }
}
