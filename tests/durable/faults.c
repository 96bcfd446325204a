/* faults - fails the writes and syncs of a program on some files; to be preloaded.
 *
 *     gcc -shared -fPIC -O2 -Wall -Wextra -Werror -o faults.so faults.c -ldl
 *
 * faults_arm(prefix, at, kind) begins to count the calls on files whose paths begin with `prefix`, and has the call
 * with the number `at` (from 1) fail, with some kinds all later ones too; faults_disarm() ends that and returns how
 * many were counted.  Counted: write, pwrite, fsync, fdatasync, ftruncate.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { COUNT, KILL, KILL_AFTER, ENOSPC_ONCE, ENOSPC_ON, EIO_ONCE, EIO_ON, SHORT, CUT };
enum { GO_ON, FAIL, HALF };

static char prefix[PATH_MAX];
static size_t length;
static atomic_long count, at;
static atomic_int kind, armed;

void faults_arm(const char *path, long number, int what) {
    snprintf(prefix, sizeof prefix, "%s", path);
    length = strlen(prefix);
    count = 0;
    at = number;
    kind = what;
    armed = 1;
}

long faults_disarm(void) {
    armed = 0;
    return count;
}

static int is_watched(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    return size >= (ssize_t)length && memcmp(path, prefix, length) == 0;
}

static void cut(void) {
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s-wal", prefix);
    if (truncate(path, 0) != 0) perror("faults: cut");
}

/* What is to become of a call; errno is set where it fails. */
static int judged(int fd, int is_data) {
    if (!armed || !is_watched(fd)) return GO_ON;
    long number = ++count;
    int persists = kind == ENOSPC_ON || kind == EIO_ON || kind == SHORT;
    if (number < at || at == 0 || (number > at && !persists)) return GO_ON;
    switch (kind) {
    case KILL: kill(getpid(), SIGKILL); return GO_ON;
    case CUT: cut(); return GO_ON;
    case SHORT:
        if (number == at && is_data) return HALF; /* fall through */
    case ENOSPC_ONCE:
    case ENOSPC_ON: errno = ENOSPC; return FAIL;
    case EIO_ONCE:
    case EIO_ON: errno = EIO; return FAIL;
    default: return GO_ON;
    }
}

static void done(int fd) {
    if (armed && kind == KILL_AFTER && count == at && is_watched(fd)) kill(getpid(), SIGKILL);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define PWRITE(name, offset_t)                                                           \
    ssize_t name(int fd, const void *data, size_t size, offset_t where) {                \
        REAL(name);                                                                      \
        int what = judged(fd, 1);                                                        \
        if (what == FAIL) return -1;                                                     \
        ssize_t result = real(fd, data, what == HALF ? (size + 1) / 2 : size, where);    \
        done(fd);                                                                        \
        return result;                                                                   \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    int what = judged(fd, 1);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, data, what == HALF ? (size + 1) / 2 : size);
    done(fd);
    return result;
}

#define ON_FD(name, parameters, arguments)   \
    int name parameters {                    \
        REAL(name);                          \
        if (judged(fd, 0)) return -1;        \
        int result = real arguments;         \
        done(fd);                            \
        return result;                       \
    }
ON_FD(fsync, (int fd), (fd))
ON_FD(fdatasync, (int fd), (fd))
ON_FD(ftruncate, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, (int fd, off64_t size), (fd, size))
