/* Attempts on the kernel and the computer. Where success would do harm, the call is made with arguments that are wrong in a way that is only
 * looked at once the caller was found to have the right: such a refusal counts as success. */
#include "attempts.h"
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/swap.h>
#include <sys/timex.h>

static int unshare_user(const char *stage) { (void)stage; return RESULT(unshare(CLONE_NEWUSER)); }
static int unshare_mounts(const char *stage) { (void)stage; return RESULT(unshare(CLONE_NEWNS)); }

static int try_mount(const char *stage)
{
    char work[512];
    return staged(stage, "work", work) ? admitted(mount("none", work, "no-such-fs", 0, NULL), ENODEV, 0, 0) : NO_STAGE;
}

static int try_umount(const char *stage)
{
    char work[512];
    return staged(stage, "work", work) ? admitted(umount2(work, MNT_DETACH), EINVAL, 0, 0) : NO_STAGE;
}

static int open_mount(const char *stage) { (void)stage; return admitted(syscall(SYS_fsopen, "no-such-fs", 0), ENODEV, 0, 0); }

static int set_namespace(const char *stage)
{
    int fd = staged_number(stage, "uts");
    return fd < 0 ? NO_STAGE : RESULT(setns(fd, CLONE_NEWUTS));
}

static int try_chroot(const char *stage)
{
    char work[512];
    return staged(stage, "work", work) ? RESULT(chroot(work)) : NO_STAGE;
}

static int bpf_list(const char *stage)
{
    union bpf_attr attr;
    (void)stage;
    memset(&attr, 0, sizeof attr);
    return admitted(syscall(SYS_bpf, BPF_PROG_GET_NEXT_ID, &attr, sizeof attr), ENOENT, 0, 0);
}

static int perf(const char *stage)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1};
    (void)stage;
    return RESULT(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int page_faults(const char *stage) { (void)stage; return RESULT(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */)); }

static int io_ring(const char *stage)
{
    char parameters[256] = "";
    (void)stage;
    return RESULT(syscall(SYS_io_uring_setup, 1, parameters));
}

static int keyring(const char *stage) { (void)stage; return RESULT(syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -2 /* process */, 1)); }
static int add_key(const char *stage) { (void)stage; return RESULT(syscall(SYS_add_key, "user", "vmoon", "x", 1, -2)); }

static int shared_memory(const char *stage)
{
    (void)stage;
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    if (id < 0)
        return errno;
    shmctl(id, IPC_RMID, NULL);
    return 0;
}

static int semaphores(const char *stage)
{
    (void)stage;
    int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    if (id < 0)
        return errno;
    semctl(id, 0, IPC_RMID);
    return 0;
}

static int messages(const char *stage)
{
    (void)stage;
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    if (id < 0)
        return errno;
    msgctl(id, IPC_RMID, NULL);
    return 0;
}

static int posix_queue(const char *stage) { (void)stage; return admitted(syscall(SYS_mq_open, "vmoon-none", O_RDONLY, 0, NULL), ENOENT, 0, 0); }
static int memory_file(const char *stage) { (void)stage; return RESULT(syscall(SYS_memfd_create, "x", 0)); }
static int no_random(const char *stage) { (void)stage; return RESULT(personality(ADDR_NO_RANDOMIZE)); }
static int set_mm(const char *stage) { (void)stage; return admitted(prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0), EINVAL, 0, 0); }
static int dumpable(const char *stage) { (void)stage; return RESULT(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }

static int capabilities(const char *stage)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{.effective = 1u << CAP_SYS_ADMIN, .permitted = 1u << CAP_SYS_ADMIN}};
    (void)stage;
    return RESULT(syscall(SYS_capset, &header, sets));
}

static int other_user(const char *stage)
{
    (void)stage;
    return RESULT(syscall(SYS_setuid, getuid() == 65533 ? 65532 : 65533));
}

static int try_reboot(const char *stage) { (void)stage; return admitted(syscall(SYS_reboot, 0, 0, 0, NULL), EINVAL, 0, 0); }
static int host_name(const char *stage) { (void)stage; return admitted(syscall(SYS_sethostname, NULL, -1), EINVAL, 0, 0); }

static int set_clock(const char *stage)
{
    struct timex now = {.modes = 0};
    (void)stage;
    if (syscall(SYS_adjtimex, &now) < 0)
        return errno;
    now.modes = ADJ_TICK; /* to what it is */
    return RESULT(syscall(SYS_adjtimex, &now));
}

static int swap(const char *stage) { (void)stage; return admitted(swapon("/no-such-file", 0), ENOENT, 0, 0); }
static int accounting(const char *stage) { (void)stage; return admitted(acct("/no-such-file"), ENOENT, 0, 0); }
static int module(const char *stage) { (void)stage; return admitted(syscall(SYS_finit_module, -1, "", 0), EBADF, 0, 0); }
static int other_kernel(const char *stage) { (void)stage; return admitted(syscall(SYS_kexec_load, 0, 0, NULL, 0x10), EINVAL, 0, 0); }

static int type_ahead(const char *stage)
{
    char key = 'x';
    int fd = staged_number(stage, "tty");
    return fd < 0 ? NO_STAGE : RESULT(ioctl(fd, TIOCSTI, &key));
}

static int type_ahead_disguised(const char *stage)
{
    /* The kernel looks at 32 bits of the command only; a filter that compares 64 is passed by. */
    char key = 'x';
    int fd = staged_number(stage, "tty");
    return fd < 0 ? NO_STAGE : RESULT(syscall(SYS_ioctl, fd, (1ul << 40) | TIOCSTI, &key));
}

static int own_filter(const char *stage)
{
    struct { unsigned short code; unsigned char jt, jf; unsigned k; } code = {6, 0, 0, 0x7fff0000};
    struct { unsigned short length; void *code; } program = {1, &code};
    (void)stage;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return RESULT(syscall(SYS_seccomp, 1 /* SET_MODE_FILTER */, 0, &program));
}

static int other_abi(const char *stage)
{
#if defined(__x86_64__)
    /* getpid of i386 */
    long result;
    (void)stage;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "cc", "r8", "r9", "r10", "r11");
    return result == getpid() ? 0 : (result < 0 ? -(int)result : EINVAL);
#else
    (void)stage;
    return ENOSYS;
#endif
}

static int x32(const char *stage)
{
    (void)stage;
#if defined(__x86_64__)
    return RESULT(syscall(0x40000000 | SYS_getpid));
#else
    return ENOSYS;
#endif
}

static int ports(const char *stage)
{
    (void)stage;
#if defined(__x86_64__)
    return RESULT(syscall(SYS_ioperm, 0x80, 1, 1));
#else
    return ENOSYS;
#endif
}

static int segments(const char *stage)
{
    (void)stage;
#if defined(__x86_64__)
    char entries[64];
    return RESULT(syscall(SYS_modify_ldt, 0, entries, sizeof entries));
#else
    return ENOSYS;
#endif
}

const struct attempt system_attempts[] = {
    {"unshare-user", unshare_user}, {"unshare-mounts", unshare_mounts}, {"mount", try_mount}, {"umount", try_umount},
    {"open-mount", open_mount}, {"set-namespace", set_namespace}, {"chroot", try_chroot}, {"bpf", bpf_list}, {"perf", perf},
    {"page-faults", page_faults}, {"io-ring", io_ring}, {"keyring", keyring}, {"add-key", add_key},
    {"shared-memory", shared_memory}, {"semaphores", semaphores}, {"messages", messages}, {"posix-queue", posix_queue},
    {"memory-file", memory_file}, {"no-random", no_random}, {"set-mm", set_mm}, {"dumpable", dumpable},
    {"capabilities", capabilities}, {"other-user", other_user}, {"reboot", try_reboot}, {"host-name", host_name},
    {"set-clock", set_clock}, {"swap", swap}, {"accounting", accounting}, {"module", module}, {"other-kernel", other_kernel},
    {"type-ahead", type_ahead}, {"type-ahead-disguised", type_ahead_disguised}, {"own-filter", own_filter},
    {"other-abi", other_abi}, {"x32", x32}, {"io-ports", ports}, {"segments", segments},
    {NULL, NULL},
};
