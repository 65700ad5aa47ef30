/* vmoon_attempt: makes one attempt by its name, in the calling process.
 *
 * The stage says with lines `key=value` what there is to attack:
 *   work      a directory that may be granted for writing, with a file `seed`
 *   granted   a directory that is granted for reading, with a file `data`
 *   outside   a directory of the same user that is not granted, with files `secret` and `victim`, a copy of a shared
 *             library `module.so`, and sockets `stream` and `datagram` that somebody listens on
 *   program   an executable that is not granted
 *   sibling   the id of another process of the same user
 *   abstract  the name of an abstract socket that somebody listens on
 *   tcp       a port of 127.0.0.1 that somebody listens on
 *   tty, uts  descriptors: of a terminal, of a namespace
 *
 * Returns 0 if the attempt reached what it wanted, the error number that stopped it, -1 if the name is unknown, -2 if the
 * stage lacks what it needs. Some end the process instead, by a signal or by becoming another program.
 * What an attempt changes in the calling process is not undone: use a process for each. */
#include "attempts.h"

const char *staged(const char *stage, const char *key, char value[512])
{
    size_t length = strlen(key);
    for (const char *line = stage; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            size_t n = strcspn(line + length + 1, "\n");
            if (n >= 512)
                return NULL;
            memcpy(value, line + length + 1, n);
            value[n] = 0;
            return value;
        }
    return NULL;
}

int staged_number(const char *stage, const char *key)
{
    char value[512];
    return staged(stage, key, value) ? atoi(value) : -1;
}

const char *below(const char *stage, const char *key, const char *name, char path[1024])
{
    char folder[512];
    if (!staged(stage, key, folder))
        return NULL;
    snprintf(path, 1024, "%s/%s", folder, name);
    return path;
}

int admitted(long result, int one, int two, int three)
{
    if (result >= 0 || errno == one || errno == two || errno == three)
        return 0;
    return errno;
}

int vmoon_attempt(const char *name, const char *stage);

int vmoon_attempt(const char *name, const char *stage)
{
    const struct attempt *lists[] = {file_attempts, process_attempts, socket_attempts, system_attempts};
    for (size_t list = 0; list < sizeof lists / sizeof *lists; list++)
        for (const struct attempt *one = lists[list]; one->name; one++)
            if (strcmp(one->name, name) == 0) {
                errno = 0;
                return one->run(stage);
            }
    return -1;
}
