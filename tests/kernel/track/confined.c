// Counts under a seccomp filter that allows only what counting needs, and kills for anything else.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOW(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int count, char **arguments) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_write), ALLOW(SYS_read), ALLOW(SYS_exit_group), ALLOW(SYS_rt_sigreturn),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    char byte;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (count > 1 && arguments[1][0] == 's' ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)
                                            : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 1;
    write(1, "c", 1);
    while (read(0, &byte, 1) == 1) write(1, &byte, 1);
    syscall(SYS_exit, 0);
}
