// Counts 2,000 signals a second in a handler, and what it computes beside must come out right.
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t signals;
static void handle(int number) { (void)number; signals++; }

int main(void) {
    struct itimerval interval = {{0, 500}, {0, 500}};
    signal(SIGALRM, handle);
    setitimer(ITIMER_REAL, &interval, 0);
    puts("counting");
    fflush(stdout);
    for (;;) {
        double sum = 0;
        for (int i = 1; i <= 1000000; i++) sum += 1.0 / i;
        if (sum < 14.39272672286 || sum > 14.39272672287) {
            printf("wrong %.12f after %d signals\n", sum, (int)signals);
            return 1;
        }
    }
}
