// Waits in the system call it is told by name, and tells what that returned and after how long:
// "RESULT ERRNO MILLISECONDS". What it waits for happens after DELAY ms, or is a timeout of that.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2], milliseconds;
static const char *name;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int is(const char *other) { return !strcmp(name, other); }

static void *write_later(void *unused) {
    (void)unused;
    usleep(milliseconds * 1000);
    write(ends[1], "x", 1);
    pthread_mutex_unlock(&mutex);
    return 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static long wait_for_it(void) {
    struct timespec timeout = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    struct timeval old_timeout = {timeout.tv_sec, timeout.tv_nsec / 1000};
    struct pollfd poll_end = {ends[0], POLLIN, 0}, nothing = {ends[0], 0, 0};
    struct epoll_event event = {EPOLLIN, {0}};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    char byte;
    if (is("nanosleep")) return nanosleep(&timeout, 0);
    if (is("clock_nanosleep")) return clock_nanosleep(CLOCK_MONOTONIC, 0, &timeout, 0);
    if (is("poll-timeout")) return poll(&nothing, 1, milliseconds);
    if (is("poll")) return poll(&poll_end, 1, -1);
    if (is("ppoll-timeout")) return ppoll(&nothing, 1, &timeout, 0);
    if (is("select-timeout")) return select(0, 0, 0, 0, &old_timeout);
    if (is("select")) return select(ends[0] + 1, &set, 0, 0, 0);
    if (is("read")) return read(ends[0], &byte, 1);
    if (is("recv")) return recv(ends[0], &byte, 1, 0);
    if (is("epoll_wait")) {
        int epoll = epoll_create1(0);
        epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
        return epoll_wait(epoll, &event, 1, -1);
    }
    if (is("futex")) return pthread_mutex_lock(&mutex);
    if (is("waitpid")) {
        pid_t child = fork();
        if (!child) usleep(milliseconds * 1000), _exit(0);
        return waitpid(child, 0, 0) == child ? 1 : -1;
    }
    if (is("sigtimedwait")) {
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGUSR1);
        sigprocmask(SIG_BLOCK, &signals, 0);
        return sigtimedwait(&signals, 0, &timeout);
    }
    if (is("semtimedop")) {
        int id = semget(IPC_PRIVATE, 1, 0600);
        struct sembuf operation = {0, -1, 0};
        long result = semtimedop(id, &operation, 1, &timeout);
        int error = errno;
        semctl(id, 0, IPC_RMID);
        errno = error;
        return result;
    }
    if (is("msgrcv")) {
        int id = msgget(IPC_PRIVATE, 0600);
        if (!fork()) {
            struct { long type; char text[1]; } message = {1, "x"};
            usleep(milliseconds * 1000);
            msgsnd(id, &message, 1, 0);
            _exit(0);
        }
        struct { long type; char text[1]; } message;
        long result = msgrcv(id, &message, 1, 0, 0);
        msgctl(id, IPC_RMID, 0);
        return result;
    }
    return -2;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    name = arguments[1];
    milliseconds = atoi(arguments[2]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    pthread_t writer;
    pthread_mutex_lock(&mutex);
    double began = now();
    pthread_create(&writer, 0, write_later, 0);
    puts("waiting");
    fflush(stdout);
    errno = 0;
    long result = wait_for_it();
    printf("%ld %d %.0f\n", result, result < 0 ? errno : 0, now() - began);
}
