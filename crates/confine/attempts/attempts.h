/* Attempts to escape or to exhaust, as a C module could make them: one function each. See attempts.c. */
#ifndef VMOON_ATTEMPTS_H
#define VMOON_ATTEMPTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What cannot be tried because the stage lacks something for it. */
#define NO_STAGE (-2)

/* 0 if the attempt reached what it wanted, else the error number that stopped it. */
#define RESULT(call) ((call) >= 0 ? 0 : errno)

struct attempt {
    const char *name;
    int (*run)(const char *stage);
};

/* Ended by an entry without a name. */
extern const struct attempt file_attempts[], process_attempts[], socket_attempts[], system_attempts[];

/* The value of a key in the lines of the stage: in `value`, and returned; NULL if there is none. */
const char *staged(const char *stage, const char *key, char value[512]);
/* The same as a number; -1 if there is none. */
int staged_number(const char *stage, const char *key);
/* A path below a directory of the stage, in `path`. */
const char *below(const char *stage, const char *key, const char *name, char path[1024]);
/* 0 if the call was admitted: it succeeded, or failed with one of three numbers that come after the check of rights. */
int admitted(long result, int one, int two, int three);

#endif
