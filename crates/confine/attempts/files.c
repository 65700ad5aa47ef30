/* Attempts on files: opening, changing, moving, their attributes, and how much of them there may be. */
#include "attempts.h"
#include <dirent.h>
#include <linux/stat.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>

#define PATH(variable, key, name)                 \
    char variable##_buffer[1024];                 \
    const char *variable = below(stage, key, name, variable##_buffer); \
    if (!variable)                                \
        return NO_STAGE

static int reads(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY);
    return fd < 0 ? errno : RESULT(read(fd, &byte, 1));
}

static int opens(const char *path, int flags) { return RESULT(open(path, flags, 0600)); }

static int read_passwd(const char *stage) { (void)stage; return reads("/etc/passwd"); }
static int read_outside(const char *stage) { PATH(p, "outside", "secret"); return reads(p); }
static int list_outside(const char *stage) { PATH(p, "outside", ""); return opendir(p) ? 0 : errno; }
static int write_outside(const char *stage) { PATH(p, "outside", "victim"); return opens(p, O_WRONLY); }
static int append_outside(const char *stage) { PATH(p, "outside", "victim"); return opens(p, O_WRONLY | O_APPEND); }
static int create_outside(const char *stage) { PATH(p, "outside", "new"); return opens(p, O_WRONLY | O_CREAT); }
static int tmpfile_outside(const char *stage) { PATH(p, "outside", ""); return opens(p, O_WRONLY | O_TMPFILE); }
static int truncate_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(truncate(p, 0)); }
static int unlink_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(unlink(p)); }
static int mkdir_outside(const char *stage) { PATH(p, "outside", "new"); return RESULT(mkdir(p, 0700)); }
static int rename_out(const char *stage) { PATH(a, "work", "seed"); PATH(b, "outside", "new"); return RESULT(rename(a, b)); }
static int rename_in(const char *stage) { PATH(a, "outside", "victim"); PATH(b, "work", "new"); return RESULT(rename(a, b)); }

static int exchange(const char *stage)
{
    PATH(a, "work", "seed");
    PATH(b, "outside", "victim");
    return RESULT(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */));
}

static int link_in(const char *stage) { PATH(a, "outside", "secret"); PATH(b, "work", "new"); return RESULT(link(a, b)); }
static int link_out(const char *stage) { PATH(a, "work", "seed"); PATH(b, "outside", "new"); return RESULT(link(a, b)); }

static int symlink_passwd(const char *stage)
{
    PATH(p, "work", "new");
    return symlink("/etc/passwd", p) ? errno : reads(p);
}

static int dotdot(const char *stage)
{
    char folder[512];
    int work = open(staged(stage, "granted", folder) ? folder : "", O_PATH);
    int fd = work < 0 ? -1 : openat(work, "../outside/secret", O_RDONLY);
    return fd < 0 ? errno : 0;
}

static int reopen_path(const char *stage)
{
    PATH(p, "outside", "secret");
    char name[64];
    int fd = open(p, O_PATH);
    if (fd < 0)
        return errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return reads(name);
}

static int create_work(const char *stage) { PATH(p, "work", "new"); return opens(p, O_RDWR | O_CREAT | O_EXCL); }
static int rename_work(const char *stage) { PATH(a, "work", "seed"); PATH(b, "work", "new"); return RESULT(rename(a, b)); }
static int read_granted(const char *stage) { PATH(p, "granted", "data"); return reads(p); }
static int write_granted(const char *stage) { PATH(p, "granted", "data"); return opens(p, O_WRONLY); }
static int truncate_granted(const char *stage) { PATH(p, "granted", "data"); return opens(p, O_RDONLY | O_TRUNC); }
static int stat_outside(const char *stage) { PATH(p, "outside", "secret"); struct stat s; return RESULT(stat(p, &s)); }
static int chdir_outside(const char *stage) { PATH(p, "outside", ""); return RESULT(chdir(p)); }

static int proc_self_mem(const char *stage) { (void)stage; return opens("/proc/self/mem", O_RDWR); }
static int proc_init_environ(const char *stage) { (void)stage; return reads("/proc/1/environ"); }

static int of_sibling(const char *stage, const char *name, int flags)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", staged_number(stage, "sibling"), name);
    return opens(path, flags);
}
static int proc_sibling_environ(const char *stage) { return of_sibling(stage, "environ", O_RDONLY); }
static int proc_sibling_mem(const char *stage) { return of_sibling(stage, "mem", O_RDWR); }
static int proc_sibling_root(const char *stage) { return of_sibling(stage, "root/etc/passwd", O_RDONLY); }

static int map_code(const char *stage)
{
    PATH(p, "granted", "data");
    int fd = open(p, O_RDONLY);
    if (fd < 0)
        return errno;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0;
}

static int map_module(const char *stage)
{
    PATH(p, "outside", "module.so");
    int fd = open(p, O_RDONLY);
    if (fd < 0)
        return errno;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0;
}

static int write_code(const char *stage)
{
    (void)stage;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return errno;
    return RESULT(mprotect(page, 4096, PROT_READ | PROT_EXEC));
}

static int mknod_device(const char *stage) { PATH(p, "work", "new"); return RESULT(mknod(p, S_IFCHR | 0666, makedev(1, 3))); }
static int mknod_fifo(const char *stage) { PATH(p, "work", "new"); return RESULT(mknod(p, S_IFIFO | 0600, 0)); }
static int chmod_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(chmod(p, 0644)); }
static int chmod_work(const char *stage) { PATH(p, "work", "seed"); return RESULT(chmod(p, 04755)); }

static int fchmod_granted(const char *stage)
{
    PATH(p, "granted", "data");
    int fd = open(p, O_RDONLY);
    return fd < 0 ? errno : RESULT(fchmod(fd, 0644));
}

static int chown_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(chown(p, getuid(), getgid())); }
static int utime_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(utimes(p, NULL)); }
static int setxattr_outside(const char *stage) { PATH(p, "outside", "victim"); return RESULT(setxattr(p, "user.x", "1", 1, 0)); }
static int getxattr_outside(const char *stage) { PATH(p, "outside", "victim"); return admitted(getxattr(p, "user.y", NULL, 0), ENODATA, 0, 0); }

static int watch_outside(const char *stage)
{
    PATH(p, "outside", "");
    int fd = inotify_init1(0);
    return fd < 0 ? errno : RESULT(inotify_add_watch(fd, p, IN_ALL_EVENTS));
}

static int watch_mount(const char *stage) { (void)stage; return RESULT(syscall(SYS_fanotify_init, 4 /* FAN_CLASS_CONTENT */, O_RDONLY)); }

static int handle_of_outside(const char *stage)
{
    PATH(p, "outside", "secret");
    struct { struct file_handle head; char bytes[128]; } handle = {.head = {.handle_bytes = 128}};
    int mount;
    return RESULT(name_to_handle_at(AT_FDCWD, p, &handle.head, &mount, 0));
}

static int open_by_handle(const char *stage)
{
    struct { struct file_handle head; char bytes[128]; } handle = {.head = {.handle_bytes = 8}};
    char folder[512];
    int mount = open(staged(stage, "granted", folder) ? folder : "", O_RDONLY | O_DIRECTORY);
    return mount < 0 ? errno : admitted(syscall(SYS_open_by_handle_at, mount, &handle.head, O_RDONLY), ESTALE, EINVAL, EOPNOTSUPP);
}

static int lease(const char *stage)
{
    PATH(p, "granted", "data");
    int fd = open(p, O_RDONLY);
    return fd < 0 ? errno : RESULT(fcntl(fd, F_SETLEASE, F_RDLCK));
}

static int sparse_file(const char *stage)
{
    PATH(p, "work", "new");
    int fd = open(p, O_RDWR | O_CREAT, 0600);
    return fd < 0 ? errno : RESULT(ftruncate(fd, (off_t)1 << 40));
}

static int descriptors(const char *stage)
{
    (void)stage;
    for (int more = 0; more < 512; more++)
        if (dup(2) < 0)
            return errno;
    return 0;
}

const struct attempt file_attempts[] = {
    {"read-passwd", read_passwd}, {"read-outside", read_outside}, {"list-outside", list_outside},
    {"write-outside", write_outside}, {"append-outside", append_outside}, {"create-outside", create_outside},
    {"tmpfile-outside", tmpfile_outside}, {"truncate-outside", truncate_outside}, {"unlink-outside", unlink_outside},
    {"mkdir-outside", mkdir_outside}, {"rename-out", rename_out}, {"rename-in", rename_in}, {"exchange", exchange},
    {"link-in", link_in}, {"link-out", link_out}, {"symlink-passwd", symlink_passwd}, {"dotdot", dotdot},
    {"reopen-path", reopen_path}, {"create-work", create_work}, {"rename-work", rename_work}, {"read-granted", read_granted},
    {"write-granted", write_granted}, {"truncate-granted", truncate_granted}, {"stat-outside", stat_outside},
    {"chdir-outside", chdir_outside}, {"proc-self-mem", proc_self_mem}, {"proc-init-environ", proc_init_environ},
    {"proc-sibling-environ", proc_sibling_environ}, {"proc-sibling-mem", proc_sibling_mem},
    {"proc-sibling-root", proc_sibling_root}, {"map-code", map_code}, {"map-module", map_module}, {"write-code", write_code},
    {"mknod-device", mknod_device}, {"mknod-fifo", mknod_fifo}, {"chmod-outside", chmod_outside}, {"chmod-work", chmod_work},
    {"fchmod-granted", fchmod_granted}, {"chown-outside", chown_outside}, {"utime-outside", utime_outside},
    {"setxattr-outside", setxattr_outside}, {"getxattr-outside", getxattr_outside}, {"watch-outside", watch_outside},
    {"watch-mount", watch_mount}, {"handle-of-outside", handle_of_outside}, {"open-by-handle", open_by_handle},
    {"lease", lease}, {"sparse-file", sparse_file}, {"descriptors", descriptors}, {NULL, NULL},
};
