/* The first process of a lab's host: says that it is ready, then reaps every orphan at once.
   A host's libvirtd reports the end of a migration only when the killed QEMU was reaped, so promptness counts. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t signals;
    int number, null;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, 0);
    if (write(1, "ready\n", 6) != 6) return 1;
    null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    for (;;) {
        while (waitpid(-1, 0, WNOHANG) > 0) {}
        sigwait(&signals, &number);
    }
}
