// Memory of a given size that changes when it is told to. Arguments: MiB, number of mappings, and
// "huge" for transparent huge pages. Half of the memory cannot be compressed, half is text.
//
// Commands on stdin, one a line, each answered by a line: "scattered SHARE SEED" and "sequential
// SHARE SEED" change that share of all pages (a fraction); "gap" tells for how many microseconds it
// stood still at most since it was last asked.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define HUGE_PAGE (2L << 20)

static char **mappings;
static long count, pages_each;
static volatile long longest_us;
static unsigned long state = 88172645463325252UL;

static unsigned long next(void) { // xorshift64, Marsaglia 2003
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static long now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000L + time.tv_nsec / 1000;
}

static void *tick(void *unused) {
    for (long last = now_us();;) {
        usleep(500);
        long now = now_us();
        if (now - last > longest_us) longest_us = now - last;
        last = now;
    }
    return unused;
}

static void fill(char *page, unsigned long number) {
    if (number / 16 % 2) {
        for (long at = 0; at < PAGE; at += 64)
            snprintf(page + at, 64, "chr1\t%09lu\t60\t100M\t=\tACGTTGCAACGT\tIIIIIIIIIIII\n", number + at);
    } else {
        for (long at = 0; at < PAGE; at += 8) *(unsigned long *)(page + at) = next();
    }
}

static char *page_at(long number) {
    return mappings[number / pages_each] + number % pages_each * PAGE;
}

static void change(long number) {
    // A few cache lines of it, as programs do.
    char *page = page_at(number);
    for (long at = 0; at < PAGE; at += 512) *(unsigned long *)(page + at) = next();
}

int main(int arguments, char **argument) {
    if (arguments < 3) return 2;
    long pages = atol(argument[1]) << 8;
    int huge = arguments > 3 && !strcmp(argument[3], "huge");
    count = atol(argument[2]);
    pages_each = pages / count;
    pages = pages_each * count;
    mappings = calloc(count, sizeof *mappings);
    for (long i = 0; i < count; i++) {
        long size = pages_each * PAGE;
        char *memory = mmap(0, size + (huge ? HUGE_PAGE : 0), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return perror("mmap"), 1;
        if (huge) memory = (char *)(((long)memory + HUGE_PAGE - 1) & -HUGE_PAGE);
        // Every other one differs in something, or they would all be one mapping.
        if (i % 2) madvise(memory, size, MADV_DONTDUMP);
        madvise(memory, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        mappings[i] = memory;
        for (long page = 0; page < pages_each; page++) fill(memory + page * PAGE, i * pages_each + page);
    }
    pthread_t ticker;
    pthread_create(&ticker, 0, tick, 0);
    puts("ready");
    fflush(stdout);
    char word[32];
    double share;
    unsigned long seed;
    while (scanf("%31s", word) == 1) {
        if (!strcmp(word, "gap")) {
            printf("%ld\n", longest_us);
            longest_us = 0;
        } else if (scanf("%lf %lu", &share, &seed) == 2) {
            state ^= seed * 2654435761UL;
            long wanted = share * pages;
            if (!strcmp(word, "sequential")) {
                long first = next() % (pages - wanted + 1);
                for (long i = 0; i < wanted; i++) change(first + i);
            } else { // one of each stretch, so that none is chosen twice
                for (long i = 0; i < wanted; i++) {
                    long begin = i * pages / wanted, end = (i + 1) * pages / wanted;
                    change(begin + next() % (end - begin));
                }
            }
            printf("%ld\n", wanted);
        }
        fflush(stdout);
    }
}
