/* Attempts on processes: making them, becoming another program, signals to others, looking into them, limits. */
#include "attempts.h"
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static pid_t sibling(const char *stage) { return staged_number(stage, "sibling"); }

/* What became of a child that was to end with 0. */
static int ended(pid_t child)
{
    int status = 0;
    if (child < 0)
        return errno;
    if (child == 0)
        _exit(0);
    waitpid(child, &status, 0);
    return status == 0 ? 0 : ECHILD;
}

static int try_fork(const char *stage) { (void)stage; return ended(fork()); }

static int try_vfork(const char *stage)
{
    (void)stage;
    int status = 0;
    pid_t child = vfork();
    if (child == 0)
        _exit(0);
    return child < 0 ? errno : RESULT(waitpid(child, &status, 0));
}

static int try_clone(const char *stage) { (void)stage; return ended(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

static int try_clone3(const char *stage)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    (void)stage;
    return ended(syscall(SYS_clone3, &args, sizeof args));
}

static int clone_namespace(const char *stage)
{
    (void)stage;
    return ended(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
}

static int spawn(const char *stage)
{
    char program[512];
    pid_t child = 0;
    int status = 0;
    if (!staged(stage, "program", program))
        return NO_STAGE;
    char *args[] = {program, NULL};
    int error = posix_spawn(&child, program, NULL, NULL, args, environ);
    if (error)
        return error;
    waitpid(child, &status, 0);
    return status == 0 ? 0 : ECHILD;
}

static int exec(const char *stage)
{
    char program[512];
    if (!staged(stage, "program", program))
        return NO_STAGE;
    char *args[] = {program, NULL};
    execve(program, args, environ);
    return errno;
}

static int exec_at(const char *stage)
{
    char program[512];
    if (!staged(stage, "program", program))
        return NO_STAGE;
    char *args[] = {program, NULL};
    int fd = open(program, O_PATH);
    if (fd >= 0)
        syscall(SYS_execveat, fd, "", args, environ, AT_EMPTY_PATH);
    return errno;
}

static int exec_memory(const char *stage)
{
    static const char script[] = "#!/bin/true\n";
    char *args[] = {"x", NULL};
    (void)stage;
    int fd = syscall(SYS_memfd_create, "x", 0);
    if (fd < 0)
        return errno;
    if (write(fd, script, sizeof script - 1) < 0)
        return errno;
    fexecve(fd, args, environ);
    return errno;
}

static void *nothing(void *argument) { return argument; }

static int thread(const char *stage)
{
    pthread_t made;
    (void)stage;
    int error = pthread_create(&made, NULL, nothing, NULL);
    return error ? error : pthread_join(made, NULL);
}

static int ptrace_sibling(const char *stage) { return RESULT(ptrace(PTRACE_SEIZE, sibling(stage), NULL, NULL)); }

static int memory_of_sibling(const char *stage)
{
    /* The sibling is a fork of the same process, so this variable is at the same place in it. */
    static long here = 1;
    long there = 0;
    struct iovec to = {&there, sizeof there}, from = {&here, sizeof here};
    return RESULT(process_vm_readv(sibling(stage), &to, 1, &from, 1, 0));
}

static int descriptor_of_sibling(const char *stage)
{
    int pidfd = syscall(SYS_pidfd_open, sibling(stage), 0);
    return pidfd < 0 ? errno : RESULT(syscall(SYS_pidfd_getfd, pidfd, 2, 0));
}

static int pidfd_signal(const char *stage)
{
    int pidfd = syscall(SYS_pidfd_open, sibling(stage), 0);
    return pidfd < 0 ? errno : RESULT(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
}

static int kill_sibling(const char *stage) { return RESULT(kill(sibling(stage), 0)); }
static int kill_parent(const char *stage) { (void)stage; return RESULT(kill(getppid(), 0)); }
static int kill_all(const char *stage) { (void)stage; return RESULT(kill(-1, 0)); }
static int tgkill_sibling(const char *stage) { return RESULT(syscall(SYS_tgkill, sibling(stage), sibling(stage), 0)); }
static int tkill_sibling(const char *stage) { return RESULT(syscall(SYS_tkill, sibling(stage), 0)); }

static int queue_sibling(const char *stage)
{
    siginfo_t info = {.si_signo = SIGURG, .si_code = SI_QUEUE};
    return RESULT(syscall(SYS_rt_sigqueueinfo, sibling(stage), 0, &info));
}

static int kill_self(const char *stage) { (void)stage; return RESULT(kill(getpid(), 0)); }
static int tgkill_self(const char *stage) { (void)stage; return RESULT(syscall(SYS_tgkill, getpid(), gettid(), 0)); }

static int own_sibling(const char *stage)
{
    int ends[2];
    return pipe(ends) ? errno : RESULT(fcntl(ends[0], F_SETOWN, sibling(stage)));
}

static int nice_sibling(const char *stage)
{
    int now = getpriority(PRIO_PROCESS, sibling(stage));
    return RESULT(setpriority(PRIO_PROCESS, sibling(stage), now));
}

static int real_time(const char *stage)
{
    struct sched_param parameter = {.sched_priority = 1};
    (void)stage;
    return RESULT(sched_setscheduler(0, SCHED_FIFO, &parameter));
}

static int move_sibling(const char *stage)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return errno;
    return RESULT(sched_setaffinity(sibling(stage), sizeof set, &set));
}

static int limits_of_sibling(const char *stage)
{
    struct rlimit limit;
    return RESULT(prlimit(sibling(stage), RLIMIT_NOFILE, NULL, &limit));
}

static int raise_limit(const char *stage)
{
    struct rlimit limit;
    (void)stage;
    if (getrlimit(RLIMIT_MSGQUEUE, &limit))
        return errno;
    limit.rlim_max += 1;
    return RESULT(setrlimit(RLIMIT_MSGQUEUE, &limit));
}

static int io_priority(const char *stage) { return RESULT(syscall(SYS_ioprio_set, 1, sibling(stage), (2 << 13) | 4)); }

static int endless(const char *stage)
{
    struct timespec used;
    (void)stage;
    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    while (used.tv_sec < 2);
    return 0;
}

static int address_space(const char *stage)
{
    (void)stage;
    void *at = mmap(NULL, (size_t)1 << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? errno : 0;
}

static int core_file(const char *stage)
{
    struct rlimit limit;
    (void)stage;
    if (getrlimit(RLIMIT_CORE, &limit))
        return errno;
    return limit.rlim_max > 0 ? 0 : EFBIG;
}

const struct attempt process_attempts[] = {
    {"fork", try_fork}, {"vfork", try_vfork}, {"clone", try_clone}, {"clone3", try_clone3}, {"clone-namespace", clone_namespace},
    {"spawn", spawn}, {"exec", exec}, {"exec-at", exec_at}, {"exec-memory", exec_memory}, {"thread", thread},
    {"ptrace-sibling", ptrace_sibling}, {"memory-of-sibling", memory_of_sibling},
    {"descriptor-of-sibling", descriptor_of_sibling}, {"pidfd-signal", pidfd_signal}, {"kill-sibling", kill_sibling},
    {"kill-parent", kill_parent}, {"kill-all", kill_all}, {"tgkill-sibling", tgkill_sibling}, {"tkill-sibling", tkill_sibling},
    {"queue-sibling", queue_sibling}, {"kill-self", kill_self}, {"tgkill-self", tgkill_self}, {"own-sibling", own_sibling},
    {"nice-sibling", nice_sibling}, {"real-time", real_time}, {"move-sibling", move_sibling},
    {"limits-of-sibling", limits_of_sibling}, {"raise-limit", raise_limit}, {"io-priority", io_priority},
    {"endless", endless}, {"address-space", address_space}, {"core-file", core_file}, {NULL, NULL},
};
