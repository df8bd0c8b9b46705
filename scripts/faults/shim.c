/* Counts, breaks or records the file operations of a program below one folder.
 *
 * build: cc -shared -fPIC -O1 -o shim.so shim.c -ldl
 * use:   LD_PRELOAD=shim.so SHIM_ROOT=/folder SHIM_… program
 *
 *   SHIM_ROOT=FOLDER    only operations on FOLDER and what it contains count; an absolute path without links
 *   SHIM_COUNTS=FILE    append a line "KIND NUMBER" for each kind of operation when the process ends
 *   SHIM_FAIL=KIND:K:ERROR[:always]
 *                       the K-th operation of a kind, from 1 over all threads, fails with the number ERROR, or is cut to
 *                       half of its bytes if ERROR is `short`; the process is killed if ERROR is `kill`; with `always`, every one from the K-th on
 *   SHIM_HIT=FILE       append the path of each operation that failed
 *   SHIM_RECORD=FILE    append every operation that changes files, with its bytes, for power_cuts.py
 *
 * Programs that make system calls without the C library are not seen; `strace --inject` reaches those. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, FSYNC, RENAME, LINK, MKDIR, STAT, READDIR, UNLINK, LOCK, MMAP, CLONE, N_KINDS };
static const char *const NAMES[N_KINDS] = {"open", "read",    "write",  "fsync", "rename", "link", "mkdir",
                                           "stat", "readdir", "unlink", "lock",  "mmap",   "clone"};

static const char *root, *counts_file, *hit_file;
static size_t root_length;
static atomic_long counts[N_KINDS];
static int fail_kind = -1, fail_errno, fail_short, fail_kill, fail_always;
static long fail_at;
static int record_fd = -1;
static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;

/* The C library's function of a name. */
#define REAL(name) \
    ({ \
        static __typeof__(&name) real; \
        if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        real; \
    })

__attribute__((constructor)) static void start(void) {
    root = getenv("SHIM_ROOT");
    root_length = root ? strlen(root) : 0;
    counts_file = getenv("SHIM_COUNTS");
    hit_file = getenv("SHIM_HIT");

    const char *fail = getenv("SHIM_FAIL");
    char name[16], error[16], always[16] = "";
    if (fail && sscanf(fail, "%15[^:]:%ld:%15[^:]:%15s", name, &fail_at, error, always) >= 3) {
        for (int kind = 0; kind < N_KINDS; kind++)
            if (!strcmp(name, NAMES[kind])) fail_kind = kind;
        fail_short = !strcmp(error, "short");
        fail_kill = !strcmp(error, "kill");
        fail_errno = atoi(error);
        fail_always = !strcmp(always, "always");
    }

    const char *record = getenv("SHIM_RECORD");
    if (record) record_fd = REAL(open64)(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

__attribute__((destructor)) static void end(void) {
    FILE *file = counts_file ? fopen(counts_file, "a") : NULL;
    if (!file) return;
    for (int kind = 0; kind < N_KINDS; kind++) fprintf(file, "%s %ld\n", NAMES[kind], atomic_load(&counts[kind]));
    fclose(file);
}

/* Writes the absolute path of `path` in the folder `dirfd` to `out`. Returns 1 if it is the root or below it. */
static int absolute(int dirfd, const char *path, char out[PATH_MAX]) {
    char base[PATH_MAX] = "", link[32];
    if (!root || !path) return 0;

    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        snprintf(link, sizeof link, dirfd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
        if (snprintf(out, PATH_MAX, path[0] ? "%s/%s" : "%s", base, path) >= PATH_MAX) return 0;
    }
    return !strncmp(out, root, root_length) && (out[root_length] == 0 || out[root_length] == '/');
}

enum outcome { CONTINUE, FAIL, SHORT };

/* Counts an operation on `path` in the folder `dirfd`. Sets `errno` if it has to fail. */
static enum outcome counted(enum kind kind, int dirfd, const char *path) {
    char whole[PATH_MAX];
    int saved = errno;
    int is_inside = absolute(dirfd, path, whole);
    errno = saved;
    if (!is_inside) return CONTINUE;

    long at = atomic_fetch_add(&counts[kind], 1) + 1;
    if ((int)kind != fail_kind || at < fail_at || (at > fail_at && !fail_always)) return CONTINUE;

    int hit = hit_file ? REAL(open64)(hit_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (hit >= 0) {
        dprintf(hit, "%s\n", whole);
        close(hit);
    }
    if (fail_kill) kill(getpid(), SIGKILL);
    if (fail_short) return SHORT;
    errno = fail_errno;
    return FAIL;
}

static enum outcome counted_fd(enum kind kind, int fd) { return counted(kind, fd, ""); }

/* Halves a number of bytes that is to be cut short. */
static size_t cut(enum outcome outcome, size_t n) { return outcome == SHORT && n > 1 ? n / 2 : n; }

/* Appends a record: a line of fields with tabs between them, then `n` bytes. The caller holds the lock. */
static void record(const char *op, int fd, const char *path, const char *other, int64_t at, const void *data, size_t n) {
    struct stat64 stat = {0};
    if (fd >= 0) REAL(fstat64)(fd, &stat);
    char line[2 * PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "%s\t%llu\t%s\t%s\t%lld\t%zu\n", op, (unsigned long long)stat.st_ino, path,
                          other, (long long)at, n);
    struct iovec parts[2] = {{line, (size_t)length}, {(void *)data, n}};
    if (REAL(writev)(record_fd, parts, 2) != (ssize_t)(length + n)) abort();
}

/* Records the `n` bytes before the position of an open file, or those at `at`, which were just written. */
static void record_bytes(int fd, int64_t at, ssize_t n) {
    char path[PATH_MAX], link[32];
    if (n <= 0 || !absolute(fd, "", path)) return;
    if (at < 0) at = lseek64(fd, 0, SEEK_CUR) - n;

    // The file may be open only for writing.
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int again = REAL(open64)(link, O_RDONLY | O_CLOEXEC);
    char *data = malloc((size_t)n);
    if (again < 0 || !data || REAL(pread64)(again, data, (size_t)n, at) != n) abort();
    record("write", fd, path, "", at, data, (size_t)n);
    free(data);
    close(again);
}

/* Runs `call` and, if it succeeds and operations are recorded, `after`. No other operation is recorded in between. */
#define RECORDED(call, after) \
    ({ \
        if (record_fd >= 0) pthread_mutex_lock(&record_lock); \
        __typeof__(call) result = (call); \
        int saved = errno; \
        if (record_fd >= 0) { \
            if (result != (__typeof__(call))-1) { \
                after; \
            } \
            pthread_mutex_unlock(&record_lock); \
        } \
        errno = saved; \
        result; \
    })

/* Records a change of one path, or of two. */
static void record_paths(const char *op, int dirfd, const char *path, int other_dirfd, const char *other) {
    char whole[PATH_MAX], other_whole[PATH_MAX] = "";
    int is_inside = absolute(dirfd, path, whole);
    if (other) is_inside = absolute(other_dirfd, other, other_whole) && is_inside;
    if (is_inside) record(op, -1, whole, other_whole, 0, "", 0);
}

/* Records that an open call created or emptied a file. */
static void record_open(int fd, int flags) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(fd, "", path)) return;
    record(flags & O_TRUNC ? "empty" : "create", fd, path, "", 0, "", 0);
}

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
    // The flags of O_TMPFILE contain those of O_DIRECTORY; such files have no path.
    if (counted(OPEN, dirfd, path) == FAIL) return -1;
    return RECORDED(REAL(openat64)(dirfd, path, flags, mode), record_open(result, flags));
}

#define OPEN_FUNCTION(name, parameters, dirfd) \
    int name parameters { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(dirfd, path, flags, mode); \
    }
OPEN_FUNCTION(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN_FUNCTION(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN_FUNCTION(openat, (int dirfd, const char *path, int flags, ...), dirfd)
OPEN_FUNCTION(openat64, (int dirfd, const char *path, int flags, ...), dirfd)

ssize_t read(int fd, void *data, size_t n) {
    enum outcome outcome = counted_fd(READ, fd);
    return outcome == FAIL ? -1 : REAL(read)(fd, data, cut(outcome, n));
}

ssize_t pread64(int fd, void *data, size_t n, off64_t at) {
    enum outcome outcome = counted_fd(READ, fd);
    return outcome == FAIL ? -1 : REAL(pread64)(fd, data, cut(outcome, n), at);
}

ssize_t readv(int fd, const struct iovec *parts, int n) {
    enum outcome outcome = counted_fd(READ, fd);
    return outcome == FAIL ? -1 : REAL(readv)(fd, parts, (int)cut(outcome, (size_t)n));
}

ssize_t write(int fd, const void *data, size_t n) {
    enum outcome outcome = counted_fd(WRITE, fd);
    if (outcome == FAIL) return -1;
    return RECORDED(REAL(write)(fd, data, cut(outcome, n)), record_bytes(fd, -1, result));
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    enum outcome outcome = counted_fd(WRITE, fd);
    if (outcome == FAIL) return -1;
    return RECORDED(REAL(pwrite64)(fd, data, cut(outcome, n), at), record_bytes(fd, at, result));
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    enum outcome outcome = counted_fd(WRITE, fd);
    if (outcome == FAIL) return -1;
    return RECORDED(REAL(writev)(fd, parts, (int)cut(outcome, (size_t)n)), record_bytes(fd, -1, result));
}

int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    if (counted_fd(WRITE, fd) == FAIL) return -1;
    return RECORDED(REAL(ftruncate64)(fd, length),
                    if (absolute(fd, "", path)) record("length", fd, path, "", length, "", 0));
}

static void record_sync(int fd) {
    char path[PATH_MAX];
    if (absolute(fd, "", path)) record("sync", fd, path, "", 0, "", 0);
}

int fsync(int fd) { return counted_fd(FSYNC, fd) == FAIL ? -1 : RECORDED(REAL(fsync)(fd), record_sync(fd)); }

int fdatasync(int fd) { return counted_fd(FSYNC, fd) == FAIL ? -1 : RECORDED(REAL(fdatasync)(fd), record_sync(fd)); }

int rename(const char *path, const char *other) {
    if (counted(RENAME, AT_FDCWD, other) == FAIL) return -1;
    return RECORDED(REAL(rename)(path, other), record_paths("rename", AT_FDCWD, path, AT_FDCWD, other));
}

int linkat(int dirfd, const char *path, int other_dirfd, const char *other, int flags) {
    if (counted(LINK, other_dirfd, other) == FAIL) return -1;
    return RECORDED(REAL(linkat)(dirfd, path, other_dirfd, other, flags),
                    record_paths("link", dirfd, path, other_dirfd, other));
}

int mkdir(const char *path, mode_t mode) {
    if (counted(MKDIR, AT_FDCWD, path) == FAIL) return -1;
    return RECORDED(REAL(mkdir)(path, mode), record_paths("mkdir", AT_FDCWD, path, AT_FDCWD, NULL));
}

static int unlinked(int dirfd, const char *path, int flags) {
    if (counted(UNLINK, dirfd, path) == FAIL) return -1;
    return RECORDED(REAL(unlinkat)(dirfd, path, flags),
                    record_paths(flags & AT_REMOVEDIR ? "rmdir" : "unlink", dirfd, path, AT_FDCWD, NULL));
}

int unlinkat(int dirfd, const char *path, int flags) { return unlinked(dirfd, path, flags); }

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }

int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out) {
    return counted(STAT, dirfd, path) == FAIL ? -1 : REAL(statx)(dirfd, path, flags, mask, out);
}

int stat64(const char *path, struct stat64 *out) {
    return counted(STAT, AT_FDCWD, path) == FAIL ? -1 : REAL(stat64)(path, out);
}

int lstat64(const char *path, struct stat64 *out) {
    return counted(STAT, AT_FDCWD, path) == FAIL ? -1 : REAL(lstat64)(path, out);
}

int fstat64(int fd, struct stat64 *out) { return counted_fd(STAT, fd) == FAIL ? -1 : REAL(fstat64)(fd, out); }

int fstatat64(int dirfd, const char *path, struct stat64 *out, int flags) {
    return counted(STAT, dirfd, path) == FAIL ? -1 : REAL(fstatat64)(dirfd, path, out, flags);
}

/* The C library opens the folder by a call that is not seen. */
DIR *opendir(const char *path) { return counted(READDIR, AT_FDCWD, path) == FAIL ? NULL : REAL(opendir)(path); }

struct dirent64 *readdir64(DIR *dir) {
    return counted_fd(READDIR, dirfd(dir)) == FAIL ? NULL : REAL(readdir64)(dir);
}

int flock(int fd, int operation) { return counted_fd(LOCK, fd) == FAIL ? -1 : REAL(flock)(fd, operation); }

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset) {
    if (fd >= 0 && counted_fd(MMAP, fd) == FAIL) return MAP_FAILED;
    return REAL(mmap64)(at, n, protection, flags, fd, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, n, protection, flags, fd, offset);
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    enum outcome outcome = counted_fd(CLONE, out);
    if (outcome == FAIL) return -1;
    return RECORDED(REAL(copy_file_range)(in, in_at, out, out_at, cut(outcome, n), flags),
                    record_bytes(out, out_at ? *out_at - result : -1, result));
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    enum outcome outcome = counted_fd(CLONE, out);
    if (outcome == FAIL) return -1;
    return RECORDED(REAL(sendfile64)(out, in, at, cut(outcome, n)), record_bytes(out, -1, result));
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == FICLONE && counted_fd(CLONE, fd) == FAIL) return -1;
    return REAL(ioctl)(fd, request, argument);
}
