// Threads that let the disk write into their memory (O_DIRECT), without end. Arguments: threads,
// pages of each.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096L
#define AT_ONCE 64L
#define FILE_PAGES 4096L

static long pages;

static void *read_on(void *number) {
    int disk = open("disk", O_RDONLY | O_DIRECT);
    char *memory =
        mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, pages * PAGE);
    if (disk < 0 || memory == MAP_FAILED) perror("disk"), exit(1);
    for (long from = (long)number;; from += 7 * AT_ONCE)
        for (long page = 0; page + AT_ONCE <= pages; page += AT_ONCE) {
            long offset = (from + page) % (FILE_PAGES - AT_ONCE);
            if (pread(disk, memory + page * PAGE, AT_ONCE * PAGE, offset * PAGE) < 0) exit(1);
        }
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    pages = atol(arguments[2]);
    int disk = open("disk", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (long i = 0; i < FILE_PAGES; i++) {
        char page[PAGE];
        memset(page, i, PAGE);
        memcpy(page, &i, sizeof i);
        if (write(disk, page, PAGE) != PAGE) return 1;
    }
    fsync(disk);
    for (long i = 1; i <= atol(arguments[1]); i++) {
        pthread_t thread;
        pthread_create(&thread, 0, read_on, (void *)i);
    }
    puts("reading");
    fflush(stdout);
    pause();
}
