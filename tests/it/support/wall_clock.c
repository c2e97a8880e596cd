/* A wall clock that goes so many seconds wrong as the file says that WALL_CLOCK_WRONG_BY names. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (failed || clock != CLOCK_REALTIME) {
        return failed;
    }
    const char *path = getenv("WALL_CLOCK_WRONG_BY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char text[32] = "";
        if (read(file, text, sizeof text - 1) > 0) {
            time->tv_sec += atoll(text);
        }
        close(file);
    }
    return 0;
}
