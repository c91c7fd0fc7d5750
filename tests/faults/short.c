/* Preloaded by the fault campaign: the Nth write, send, read or recv of the process does half of what was asked;
 * a count of 0 means each of them. Reads give one byte. The Nth close closes and then says that it failed, as Linux
 * does. Programs that ours starts are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static int strikes(const char *name, int *count) {
    const char *when = getenv(name);
    return when && strcmp(program_invocation_short_name, "cosmonaut") == 0 && (atoi(when) == 0 || ++*count == atoi(when));
}

static size_t half(size_t length) { return length > 1 ? length / 2 : length; }

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    static int count;
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return real(fd, bytes, strikes("SHORT_WRITE", &count) ? half(length) : length);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    static int count;
    if (!real) real = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    return real(fd, bytes, strikes("SHORT_SEND", &count) ? half(length) : length, flags);
}

ssize_t read(int fd, void *bytes, size_t length) {
    static ssize_t (*real)(int, void *, size_t);
    static int count;
    if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    return real(fd, bytes, strikes("SHORT_READ", &count) ? 1 : length);
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    static ssize_t (*real)(int, void *, size_t, int);
    static int count;
    if (!real) real = (ssize_t (*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
    return real(fd, bytes, strikes("SHORT_RECV", &count) ? 1 : length, flags);
}

int close(int fd) {
    static int (*real)(int);
    static int interrupted, failed;
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    int result = real(fd);
    if (strikes("CLOSE_EINTR", &interrupted)) {
        errno = EINTR;
        return -1;
    }
    if (strikes("CLOSE_EIO", &failed)) {
        errno = EIO;
        return -1;
    }
    return result;
}
