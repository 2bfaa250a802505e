// Lets the disk write into its memory asynchronously (io_submit, O_DIRECT), without end. Argument:
// pages.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096L
#define AT_ONCE 64L
#define REQUESTS 128
#define FILE_PAGES 4096L

static void must(long result, const char *what) {
    if (result < 0) perror(what), exit(1);
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    long pages = atol(arguments[1]), offset = 0, at = 0;
    int disk = open("disk", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (long i = 0; i < FILE_PAGES; i++) {
        char page[PAGE];
        memset(page, i, PAGE);
        memcpy(page, &i, sizeof i);
        if (write(disk, page, PAGE) != PAGE) return 1;
    }
    fsync(disk);
    disk = open("disk", O_RDONLY | O_DIRECT);
    must(disk, "open");
    char *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, pages * PAGE);
    aio_context_t context = 0;
    must(syscall(SYS_io_setup, REQUESTS, &context), "io_setup");
    puts("reading");
    fflush(stdout);
    for (;;) {
        struct iocb requests[REQUESTS], *pointers[REQUESTS];
        memset(requests, 0, sizeof requests);
        for (int i = 0; i < REQUESTS; i++) {
            offset = (offset + 7 * AT_ONCE) % (FILE_PAGES - AT_ONCE);
            at = (at + AT_ONCE) % (pages - AT_ONCE);
            requests[i].aio_lio_opcode = IOCB_CMD_PREAD;
            requests[i].aio_fildes = disk;
            requests[i].aio_buf = (unsigned long)(memory + at * PAGE);
            requests[i].aio_nbytes = AT_ONCE * PAGE;
            requests[i].aio_offset = offset * PAGE;
            pointers[i] = &requests[i];
        }
        must(syscall(SYS_io_submit, context, REQUESTS, pointers), "io_submit");
        struct io_event events[REQUESTS];
        for (long done = 0; done < REQUESTS;) { // a stop interrupts it
            long some = syscall(SYS_io_getevents, context, 1, REQUESTS - done, events, 0);
            if (some < 0 && errno != EINTR) must(some, "io_getevents");
            if (some > 0) done += some;
        }
    }
}
