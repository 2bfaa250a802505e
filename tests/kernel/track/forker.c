// One thread sleeps, another forks children without end that each wait a second.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void *fork_on(void *unused) {
    for (;;) {
        if (!fork()) sleep(1), _exit(0);
        usleep(2000);
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    signal(SIGCHLD, SIG_IGN);
    pthread_create(&thread, 0, fork_on, 0);
    puts("forking");
    fflush(stdout);
    pause();
}
