/* A file system without locks (NFS without lockd, Lustre without -o flock): every lock fails with ENOLCK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

int flock(int file, int operation)
{
    (void)file, (void)operation;
    errno = ENOLCK;
    return -1;
}

#define WITHOUT_LOCKS(name)                                                                                            \
    int name(int file, int command, ...)                                                                               \
    {                                                                                                                  \
        va_list all;                                                                                                   \
        va_start(all, command);                                                                                        \
        void *argument = va_arg(all, void *);                                                                          \
        va_end(all);                                                                                                   \
        if (command == F_SETLK || command == F_SETLKW) {                                                               \
            errno = ENOLCK;                                                                                            \
            return -1;                                                                                                 \
        }                                                                                                              \
        int (*real)(int, int, ...) = dlsym(RTLD_NEXT, #name);                                                          \
        return real(file, command, argument);                                                                          \
    }

WITHOUT_LOCKS(fcntl)
WITHOUT_LOCKS(fcntl64)
